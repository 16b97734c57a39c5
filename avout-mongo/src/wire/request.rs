//! Requests, each sent once and answered or given up in time.

use std::time::Duration;

use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use mongodb::Database;
use mongodb::bson::{Bson, Document, RawDocumentBuf};

use super::error::{classify, code, lost_write, meaning_of_code};

/// Why there is no reply.
pub(crate) enum Failure {
    /// The driver said so.
    Driver(mongodb::error::Error),
    /// None came in time. The request may have been sent.
    Late,
    /// There is one, and it says otherwise. Nothing was changed.
    Other(Error),
}

impl Failure {
    /// For a read, or a write that was surely not applied.
    pub(crate) fn unapplied(self) -> Error {
        match self {
            Self::Driver(error) => classify(error),
            Self::Late => Error::new(ErrorKind::Unavailable, "no reply came within the timeout"),
            Self::Other(error) => error,
        }
    }

    /// For a write that takes effect by itself.
    pub(crate) fn lost_write(self) -> Error {
        match self {
            Self::Driver(error) => lost_write(error),
            Self::Late => Error::new(ErrorKind::OutcomeUnknown, "no reply to a write came within the timeout"),
            Self::Other(error) => error,
        }
    }

    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Driver(error) => code(error),
            Self::Late | Self::Other(_) => None,
        }
    }
}

/// Makes a request with the driver, whose future may be polled by any executor.
pub(crate) async fn bounded<T>(
    timeout: Duration,
    request: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, Failure> {
    match tasks::request(async { tokio::time::timeout(timeout, request).await }).await {
        Ok(reply) => reply.map_err(Failure::Driver),
        Err(_) => Err(Failure::Late),
    }
}

/// Where to send commands that need no client yet.
pub(crate) struct Requests<'a> {
    pub(crate) database: &'a Database,
    pub(crate) timeout: Duration,
}

impl Requests<'_> {
    pub(crate) async fn run(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        let request = self.database.run_raw_command(command);
        bounded(self.timeout, async move { request.await }).await
    }
}

/// The first error of a single write, or of the write concern, in a reply that is otherwise fine.
pub(crate) struct WriteErrors {
    /// Of a single write: it was not done.
    pub(crate) write: Option<i32>,
    /// It was done here, and nothing says that a majority has it.
    pub(crate) concern: bool,
}

impl WriteErrors {
    pub(crate) fn of(reply: &Document) -> Self {
        let write = reply.get_array("writeErrors").ok().and_then(|errors| errors.first());
        let write = write.and_then(Bson::as_document).map(|error| error.get_i32("code").unwrap_or(0));
        Self { write, concern: reply.contains_key("writeConcernError") }
    }

    /// For a write that takes effect by itself.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(code) = self.write {
            let (kind, message) = meaning_of_code(code);
            return Err(Error::new(kind, message));
        }
        if self.concern {
            let message = "a majority of the servers did not confirm the write";
            return Err(Error::new(ErrorKind::OutcomeUnknown, message));
        }
        Ok(())
    }
}
