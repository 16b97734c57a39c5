use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use avout_core::backend::history::Losses;
use avout_core::backend::time::HeldClock;
use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities, tasks};
use avout_core::protocol::{Key, Realm};
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{oneshot, watch};

use crate::clock::{self, Clock, Name};
use crate::connection::{connect, patiently, roll_back};
use crate::error::{classify, with_path};
use crate::file::{File, forbidden};
use crate::here::Open;
use crate::history::{self, History};
use crate::known::Known;
use crate::options::{Options, Place, Synchronous};
use crate::readers::Readers;
use crate::records::{self, Keys};
use crate::watch::Hub;
use crate::work::{Batch, Job, Pending, Work};
use crate::writer::{Message, SharedWriter, Writer};
use crate::{Backend, schema, writer};

/// The largest record, value or commit. SQLite's limit for a row is 1,000,000,000 bytes.
pub(crate) const MAX_BYTES: usize = 512 << 20;

/// The largest value that is read on the thread of the caller.
const INLINE_READ: usize = 64 << 10;

/// What the threads of one client have in common.
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// `None` for a store in memory.
    pub(crate) file: Option<File>,
    pub(crate) realm: Realm,
    pub(crate) hub: Hub,
    pub(crate) known: Known,
    pub(crate) history: History,
    /// Requests to write that are under way.
    pub(crate) open: Open,
    pub(crate) stats: Stats,
    #[cfg(test)]
    pub(crate) faults: crate::faults::Faults,
}

impl Shared {
    /// One more connection to the file, which is checked to be the same.
    pub(crate) fn connect(&self) -> Result<Connection> {
        let Some(file) = &self.file else {
            return Err(Error::new(ErrorKind::Unsupported, "a store in memory has one connection"));
        };
        file.check()?;
        let connection = connect(&self.options, Some(file))?;
        file.check()?;
        let realm = patiently(self.options.busy_timeout, || schema::realm(&connection));
        if realm.map_err(|error| self.cause(&connection, error))? != self.realm {
            return Err(Error::new(ErrorKind::StoreLost, "the file holds another store now"));
        }
        Ok(connection)
    }

    /// What a failed read means.
    pub(crate) fn cause(&self, connection: &Connection, error: Error) -> Error {
        match &self.file {
            Some(file) => file.cause(connection, error),
            None => error,
        }
    }

    /// Takes in a clock that was read after `known` was asked for.
    pub(crate) fn follow(&self, connection: &Connection, known: history::Known, clock: &Clock) -> Result<()> {
        if self.file.is_some() && self.history.follow(connection, known, clock).map_err(classify)? {
            self.hub.begin_anew();
        }
        Ok(())
    }

    /// Reads the clock, and takes it in.
    pub(crate) fn look(&self, connection: &Connection, known: history::Known) -> Result<()> {
        if self.file.is_some() {
            self.follow(connection, known, &Clock::read(connection).map_err(classify)?)?;
        }
        Ok(())
    }
}

/// What the writer did, for tests and measurements.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    transactions: AtomicU64,
    commits: AtomicU64,
    /// The transactions among them that were done on the threads of their callers.
    here: AtomicU64,
}

impl Stats {
    /// Counts one SQLite transaction with so many commits in it.
    pub(crate) fn count(&self, commits: i64) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(commits.unsigned_abs(), Ordering::Relaxed);
    }

    pub(crate) fn count_here(&self) {
        self.here.fetch_add(1, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn here(&self) -> u64 {
        self.here.load(Ordering::Relaxed)
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.transactions.load(Ordering::Relaxed), self.commits.load(Ordering::Relaxed))
    }
}

/// One client of a file: what the coordinator, the store, their containers and watchers share. It ends with the last of them.
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) coordinates: CoordinatorCapabilities,
    pub(crate) stores: StoreCapabilities,
    queue: Sender<Message>,
    writer: SharedWriter,
    readers: Readers,
    closed: AtomicBool,
    /// Threads and locks do not survive a fork, so a child must not go on with its parent's client.
    process: u32,
    /// Its sender is the writer's: it ends when that thread does.
    ended: watch::Receiver<()>,
}

pub(crate) async fn open(options: Options) -> Result<Backend> {
    let (queue, requests) = mpsc::channel();
    let (opened, open) = oneshot::channel();
    let (running, ended) = watch::channel(());
    // All that may take long is done on the thread that will write. Nobody joins it: it ends when the last handle is
    // dropped, which may be on a thread of the async runtime that must not wait for the disk. `Backend::close` waits.
    thread::Builder::new()
        .name("avout-sql-writer".into())
        .spawn(move || {
            let _running = running;
            match prepare(options) {
                Ok((shared, writer, reader)) => {
                    let writer = Arc::new(Mutex::new(Some(writer)));
                    // If nobody waits any more, the queue has no sender and the writer ends at once.
                    let _ = opened.send(Ok((shared, Arc::clone(&writer), reader)));
                    writer::serve(&writer, &requests);
                }
                Err(error) => drop(opened.send(Err(error.during("open")))),
            }
        })
        .map_err(|error| Error::new(ErrorKind::Unavailable, "no thread could be started").with_source(error))?;
    let answer = told(open).await;
    let (shared, writer, reader) =
        answer.map_err(|_| Error::new(ErrorKind::Unavailable, "the writer's thread ended"))??;
    let client = Arc::new(Client::new(shared, queue, writer, reader, ended));
    Ok(Backend::new(client))
}

type Prepared = (Arc<Shared>, Writer, Option<Connection>);

fn prepare(options: Options) -> Result<Prepared> {
    let Place::File(path) = &options.place else {
        return prepare_with(options, None);
    };
    let file = File::prepare(path)?;
    let path = file.path().to_owned();
    prepare_with(options, Some(file)).map_err(|error| with_path(denied(error, &path), &path))
}

/// SQLite says only that it cannot open something, be it for want of a right or of a file descriptor.
fn denied(error: Error, path: &Path) -> Error {
    let code = error.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
    match forbidden(path) {
        Some(why) if code == Some(rusqlite::ErrorCode::CannotOpen) => {
            Error::new(ErrorKind::Denied, why).with_source(error)
        }
        _ => error,
    }
}

fn prepare_with(options: Options, file: Option<File>) -> Result<Prepared> {
    let mut connection = connect(&options, file.as_ref())?;
    let id = Name::new();
    let (realm, clock) = schema::prepare(&mut connection, &options, id)?;
    let shared = Arc::new(Shared {
        options,
        file,
        realm,
        hub: Hub::default(),
        known: Known::default(),
        history: History::new(clock),
        open: Open::default(),
        stats: Stats::default(),
        #[cfg(test)]
        faults: crate::faults::Faults::default(),
    });
    let reader = match &shared.file {
        Some(file) => {
            // SQLite says that it uses the log even where writing that to the file has just failed.
            file.remember_companions().map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the write-ahead log was not begun; open it again")
                    .with_source(error)
            })?;
            Some(shared.connect()?)
        }
        None => None,
    };
    let writer = Writer::new(Arc::clone(&shared), connection, id)?;
    Ok((shared, writer, reader))
}

impl Client {
    fn new(
        shared: Arc<Shared>,
        queue: Sender<Message>,
        writer: SharedWriter,
        reader: Option<Connection>,
        ended: watch::Receiver<()>,
    ) -> Self {
        let in_file = shared.file.is_some();
        let durable = in_file && shared.options.synchronous == Synchronous::Full;
        let mut coordinates = CoordinatorCapabilities::new(shared.realm);
        coordinates.durable = durable;
        coordinates.shared_between_processes = in_file;
        coordinates.max_record = MAX_BYTES;
        coordinates.max_commit = MAX_BYTES;
        coordinates.max_keys = 65_536;
        coordinates.definite_replies = true;
        coordinates.unique_revisions = true;
        let mut stores = StoreCapabilities::default();
        stores.max_value = MAX_BYTES;
        stores.durable = durable;
        stores.shared_between_processes = in_file;
        stores.push = true;
        let readers = Readers::new(reader, shared.options.readers);
        let process = std::process::id();
        let closed = AtomicBool::new(false);
        Self { shared, coordinates, stores, queue, writer, readers, closed, process, ended }
    }

    /// Whether it may be used: not closed, and not in another process than it was opened in.
    pub(crate) fn usable(&self) -> Result<()> {
        if std::process::id() != self.process {
            return Err(Error::new(ErrorKind::Misuse, "it was opened before a fork; open it again in the child"));
        }
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Has the writer do this. If the future is dropped before its batch began it is not done, else it is done as a whole.
    pub(crate) async fn write<W: Work>(&self, work: W) -> Result<W::Answer> {
        self.usable()?;
        let opened = self.shared.open.enter();
        let may_keep_caller = work.may_keep_caller();
        let (job, answer) = Pending::new(work);
        let job: Box<dyn Job> = job;
        let left = if may_keep_caller && self.shared.file.is_some() && opened.is_spared(job.bytes()).await {
            self.write_here(job)
        } else {
            Some(job)
        };
        if let Some(job) = left {
            self.queue.send(Message::Job(job)).map_err(|_| closed())?;
        }
        let (answer, _work) = told(answer).await.unwrap_or_else(|_| Err(self.no_answer()))?;
        Ok(answer)
    }

    /// Forgets that commits were slow.
    #[cfg(test)]
    pub(crate) fn hurry(&self) {
        if let Some(writer) = self.writer.lock().expect("no panic").as_mut() {
            writer.hurry();
        }
    }

    /// Does this on the thread of the caller, if that need not wait for anything but the disk. Gives it back if not.
    fn write_here(&self, job: Box<dyn Job>) -> Option<Box<dyn Job>> {
        let Ok(mut writer) = self.writer.try_lock() else {
            return Some(job);
        };
        let Some(writer) = writer.as_mut() else {
            return Some(job);
        };
        let left = writer.batch_here(job);
        if writer.wants_its_thread() {
            let _ = self.queue.send(Message::Wake);
        }
        left
    }

    pub(crate) async fn resolve(&self, receipt: crate::outcome::Receipt) -> Result<avout_core::protocol::Resolution> {
        self.usable()?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Message::Resolve(Box::new((receipt, reply)))).map_err(|_| closed())?;
        told(answer).await.unwrap_or_else(|_| Err(closed()))
    }

    fn no_answer(&self) -> Error {
        // What was queued behind the end was never begun. A writer that panicked may have been in the middle.
        if self.closed.load(Ordering::Acquire) {
            closed()
        } else {
            Error::new(ErrorKind::OutcomeUnknown, "the writer's thread ended")
        }
    }

    /// Reads with `f`, which gets the largest value that it may read and gives `None` if there is a larger one.
    ///
    /// A reader of a log never waits for the writer, and what it reads is nearly always in the page cache: it takes a few
    /// microseconds, where another thread would take tens to be woken and to answer. So small reads are done here,
    /// on the caller's thread, without ever sleeping for a lock. Whatever may take longer goes to a thread that may
    /// block: large reads, locks (a log that is being recovered), and when all connections are lent.
    pub(crate) async fn read<T, F>(self: &Arc<Self>, small: bool, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: Fn(&Connection, usize) -> Result<Option<T>> + Send + 'static,
    {
        self.usable()?;
        let Some(file) = &self.shared.file else {
            return self.write(Reading(Mutex::new(f))).await?;
        };
        file.check()?;
        if small && let Some(found) = self.read_beside_writer(&f) {
            return found;
        }
        if small && let Some((_permit, connection)) = self.readers.take_idle() {
            self.freshen(&connection);
            match f(&connection, INLINE_READ) {
                Ok(found) => {
                    self.readers.give_back(connection);
                    if let Some(found) = found {
                        return Ok(found);
                    }
                }
                Err(error) => match self.shared.cause(&connection, error) {
                    // A lock; whatever else it is comes again.
                    error if error.kind() == ErrorKind::Unavailable => {}
                    error => return Err(self.after(connection, error)),
                },
            }
        }
        let client = Arc::clone(self);
        let turn = self.readers.turn().await;
        let reading = tasks::runtime().spawn_blocking(move || {
            let connection = client.readers.take(&turn, || client.shared.connect())?;
            client.freshen(&connection);
            let found = patiently(client.shared.options.busy_timeout, || f(&connection, usize::MAX));
            let found = match found.map_err(|error| client.shared.cause(&connection, error)) {
                Ok(found) => found,
                Err(error) => return Err(client.after(connection, error)),
            };
            client.readers.give_back(connection);
            found.ok_or_else(|| Error::new(ErrorKind::TooLarge, "the value has no size that can be read"))
        });
        reading
            .await
            .map_err(|error| Error::new(ErrorKind::Unavailable, "the reading thread ended").with_source(error))?
    }

    /// A connection that failed to read is closed, unless the file is lost: a new one could not tell.
    fn after(&self, connection: Connection, error: Error) -> Error {
        if error.kind() == ErrorKind::StoreLost {
            self.readers.give_back(connection);
        }
        error
    }

    /// Has a connection forget what it has read, now and then: SQLite takes that for current until somebody writes, also if an older copy
    /// was written over the file.
    fn freshen(&self, connection: &Connection) {
        if self.shared.history.forgets()
            && let Err(error) = connection.release_memory()
        {
            tracing::debug!(%error, "a connection keeps what it has read");
        }
    }

    /// The keys of a table, page by page.
    pub(crate) async fn keys(self: &Arc<Self>, of: Keys, prefix: &Key) -> Result<Vec<Key>> {
        let (mut keys, mut next) = (Vec::new(), None::<String>);
        loop {
            let prefix = prefix.clone();
            let page = self.read(false, move |c, _| records::keys(c, of, &prefix, next.as_deref()).map(Some)).await?;
            keys.extend(page.keys);
            next = page.next;
            if next.is_none() {
                return Ok(keys);
            }
        }
    }

    /// Where losses are reported. A store in memory has none.
    pub(crate) fn losses(&self) -> Option<&Arc<Losses>> {
        self.shared.file.as_ref().map(|_| self.shared.history.losses())
    }

    /// Reads with the writer's connection if nobody writes: what this client wrote is in its cache, and not in those of the others.
    fn read_beside_writer<T, F>(&self, f: &F) -> Option<Result<T>>
    where
        F: Fn(&Connection, usize) -> Result<Option<T>>,
    {
        if !self.shared.open.is_idle() {
            return None;
        }
        let writer = self.writer.try_lock().ok()?;
        let connection = writer.as_ref()?.to_read()?;
        self.freshen(connection);
        match f(connection, INLINE_READ) {
            Ok(found) => found.map(Ok),
            // A lock; or the file has gone bad, and a connection that only reads tells.
            Err(_) => {
                roll_back(connection);
                None
            }
        }
    }

    /// Ends the threads and closes the connections, and waits for it.
    pub(crate) async fn close(&self) {
        self.stop();
        let mut ended = self.ended.clone();
        let _held = HeldClock::here();
        // Nothing is ever sent: it returns when the writer's thread drops its end.
        while ended.changed().await.is_ok() {}
    }

    fn stop(&self) {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.shared.hub.close();
            // Closing the last connection to a file writes its log back. That is for the writer's thread.
            let _ = self.queue.send(Message::Stop(self.readers.close()));
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if std::process::id() == self.process {
            self.stop();
        } else {
            // In the child of a fork: closing these would write to the parent's log.
            self.readers.close().into_iter().for_each(std::mem::forget);
        }
    }
}

/// What another thread of the client answers. It takes no time by a paused clock, which would run ahead of it.
async fn told<T>(mut answer: oneshot::Receiver<T>) -> Result<T, RecvError> {
    match answer.try_recv() {
        Ok(answer) => Ok(answer),
        Err(_) => {
            let _held = HeldClock::here();
            answer.await
        }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed")
}

/// A read by the writer's connection, the only one there is to a store in memory.
struct Reading<F>(Mutex<F>);

impl<T, F> Work for Reading<F>
where
    T: Send + 'static,
    F: Fn(&Connection, usize) -> Result<Option<T>> + Send + 'static,
{
    type Answer = Result<T>;

    fn bytes(&self) -> usize {
        0
    }

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Result<T>> {
        if batch.points() > 0 {
            // What it reads may be of this batch, and the clock's row is written at the end only.
            clock::set_clock(batch.connection, batch.point()).map_err(classify)?;
        }
        let f = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(f(batch.connection, usize::MAX).and_then(|found| {
            found.ok_or_else(|| Error::new(ErrorKind::TooLarge, "the value has no size that can be read"))
        }))
    }
}
