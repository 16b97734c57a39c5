use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;

use avout_core::backend::history::Losses;
use avout_core::backend::time::HeldClock;
use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities};
use avout_core::protocol::Resolution;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::oneshot::error::RecvError;
use tokio::sync::{oneshot, watch};

use super::shared::{MAX_BYTES, Shared};
use crate::options::Synchronous;
use crate::wire::readers::Readers;
use crate::writer::work::{Job, Pending, Work};
use crate::writer::{Message, SharedWriter};

/// One client of a file: what the coordinator, the store, their containers and watchers share. It ends with the last of them.
pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) coordinates: CoordinatorCapabilities,
    pub(crate) stores: StoreCapabilities,
    pub(super) queue: Sender<Message>,
    pub(super) writer: SharedWriter,
    pub(super) readers: Readers,
    closed: AtomicBool,
    /// Threads and locks do not survive a fork, so a child must not go on with its parent's client.
    process: u32,
    /// Its sender is the writer's: it ends when that thread does.
    ended: watch::Receiver<()>,
}

impl Client {
    pub(crate) fn new(
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
        coordinates.readonly = shared.options.readonly;
        let mut stores = StoreCapabilities::default();
        stores.max_value = MAX_BYTES;
        stores.durable = durable;
        stores.shared_between_processes = in_file;
        stores.push = true;
        stores.readonly = shared.options.readonly;
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

    pub(crate) async fn resolve(&self, receipt: crate::coordinator::outcome::Receipt) -> Result<Resolution> {
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

    /// Where losses are reported. A store in memory has none.
    pub(crate) fn losses(&self) -> Option<&Arc<Losses>> {
        self.shared.file.as_ref().map(|_| self.shared.history.losses())
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
            self.shared.hub.close(&closed());
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
pub(crate) async fn told<T>(mut answer: oneshot::Receiver<T>) -> Result<T, RecvError> {
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
