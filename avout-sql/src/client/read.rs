use std::sync::{Arc, Mutex, PoisonError};

use avout_core::backend::{Page, tasks};
use avout_core::protocol::Key;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::handle::Client;
use crate::coordinator::read::{self, Keys};
use crate::schema::clock;
use crate::wire::connection::{patiently, roll_back};
use crate::wire::error::classify;
use crate::writer::work::{Batch, Work};

/// The largest value that is read on the thread of the caller.
const INLINE_READ: usize = 64 << 10;

impl Client {
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

    /// A page of the keys of a table. Rows that are no keys make none of it empty.
    pub(crate) async fn keys(self: &Arc<Self>, of: Keys, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let mut after = after.map(|key| key.as_str().to_owned());
        loop {
            let prefix = prefix.clone();
            let part = self.read(false, move |c, _| read::keys(c, of, &prefix, after.as_deref()).map(Some)).await?;
            if !part.keys.is_empty() || part.next.is_none() {
                return Ok(Page { keys: part.keys, more: part.next.is_some() });
            }
            after = part.next;
        }
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
