//! The SQLite backend of avout: store and coordinator in one file, for the processes of one machine.
//!
//! A file is a namespace. Any number of processes may have it open, and each may open it more than once. It needs
//! SQLite's write-ahead log, so it must lie on a local disk: network file systems have no shared memory.
//!
//! ```no_run
//! # async fn f() -> avout_core::Result<()> {
//! let backend = avout_sql::open("state.db").await?;
//! let (coordinator, store) = (&backend.coordinator, &backend.store);
//! # let _ = (coordinator, store);
//! backend.close().await;
//! # Ok(()) }
//! ```
//!
//! # How it works
//! One thread for each client writes. It takes all requests that wait into one SQLite transaction, so that they share one wait
//! for the disk, and answers when that is committed. A commit that nobody would share, on a runtime that can spare the thread, is
//! done by its caller. Reads are SQLite snapshots on connections of their own and wait for
//! nobody. Changes are told to watchers of the same client by that thread; for those of other
//! clients a second thread, running only while there are watchers, looks every 5 ms whether the file has changed.
//!
//! # The file
//! A new file gets mode 0600, and SQLite gives `-wal` and `-shm` the mode of the file. The file itself may not be a symbolic link nor have a
//! second hard link, since SQLite finds the log by the name; links among the folders on the way are followed once, when it is opened.
//! To copy a file that is in use, copy it with SQLite (`VACUUM INTO`, `.backup`). Before a copy is put in the place of
//! a file, end all clients and remove the old `-wal` and `-shm`: SQLite would apply the log of the old file to the new one.
//!
//! Deleting, replacing, renaming or cutting the file or its log under a client is noticed before the next write and again before
//! its answer: everything is [`StoreLost`](avout_core::ErrorKind::StoreLost) until the file is back under its name. A commit that was
//! under way just then is [`OutcomeUnknown`](avout_core::ErrorKind::OutcomeUnknown), since it is in the file if that comes back.
//! Bytes that were changed in place are found when they are read, by checksums of the records.
//!
//! # Forks
//! A client is of the process that opened it. After a fork without exec the child gets [`Misuse`](avout_core::ErrorKind::Misuse), and opens
//! the file itself.

#![warn(missing_docs)]

mod client;
mod clock;
mod connection;
mod container;
mod coordinator;
mod error;
#[cfg(test)]
mod faults;
mod file;
mod here;
mod history;
mod known;
mod log;
mod options;
mod outcome;
mod poller;
mod readers;
mod records;
mod schema;
mod watch;
mod work;
mod writer;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use avout_core::Result;

pub use container::Store;
pub use coordinator::Coordinator;
pub use options::{Options, Synchronous};
pub use rusqlite;

use client::Client;

/// Opens the file at `path`, or makes it.
///
/// # Errors
/// [`Denied`](avout_core::ErrorKind::Denied): it is read-only, of another user, or a link.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): it is a database of another application.
/// [`Corrupt`](avout_core::ErrorKind::Corrupt): it is no SQLite database, or damaged.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a newer library made it, or its file system cannot do what SQLite needs.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): others kept it locked for too long.
/// In all these cases a file that is not avout's is as it was.
///
/// # Cancel safety
/// Safe: a file that was made stays, and a client that nobody got ends.
pub async fn open(path: impl Into<PathBuf>) -> Result<Backend> {
    Options::new(path).open().await
}

/// Opens what a text names, as [`Options::from_url`] reads it.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput), and those of [`open`].
///
/// # Cancel safety
/// As [`open`].
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A file that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the client ends, in the
/// background. [`close`](Self::close) ends it surely.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<Coordinator>,
    /// Holds the values.
    pub store: Arc<Store>,
    client: Arc<Client>,
}

impl Backend {
    fn new(client: Arc<Client>) -> Self {
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client)));
        let store = Arc::new(Store::new(Arc::clone(&client)));
        Self { coordinator, store, client }
    }

    /// Ends the client: requests that were sent are done, later ones and all watchers get
    /// [`Closed`](avout_core::ErrorKind::Closed), the connections are closed and the threads end. Without it the
    /// same happens after the last handle is dropped, but nobody can wait for it.
    ///
    /// # Cancel safety
    /// The end is begun at the first poll and cannot be taken back; a later call waits for it.
    pub async fn close(&self) {
        self.client.close().await;
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.shared.options).finish_non_exhaustive()
    }
}
