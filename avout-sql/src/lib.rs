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
//! An older copy that is restored into the open file is reported to [`losses`](avout_core::backend::Coordinator::losses) by each client that has
//! seen what is gone.
//!
//! # Forks
//! A client is of the process that opened it. After a fork without exec the child gets [`Misuse`](avout_core::ErrorKind::Misuse), and opens
//! the file itself.

#![warn(missing_docs)]

mod client;
mod coordinator;
mod open;
mod options;
mod schema;
mod store;
mod watch;
mod wire;
mod writer;

pub use coordinator::Coordinator;
pub use open::{Backend, connect, open};
pub use options::{Options, Synchronous};
pub use rusqlite;
pub use store::Store;
