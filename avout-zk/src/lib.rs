//! The ZooKeeper backend of avout: store and coordinator under one znode, for the processes of any number of machines.
//!
//! A znode is a namespace. Any number of processes may have it open, and each may open it more than once. It needs
//! ZooKeeper 3.6 or later, for multi-reads and persistent watches.
//!
//! ```no_run
//! # async fn f() -> avout_core::Result<()> {
//! let backend = avout_zk::connect("zk://zk1:2181,zk2:2181,zk3:2181/app/state").await?;
//! let (coordinator, store) = (&backend.coordinator, &backend.store);
//! # let _ = (coordinator, store);
//! # Ok(()) }
//! ```
//!
//! # How it works
//! A key's record is one znode, whose version is what commits compare. A commit is one `multi` of checks, sets and creates, and
//! it sets the znode `clock`, whose mzxid is thus the point of the last commit. A read is a `sync` and one multi-read of
//! the clock and the records. The server answers a session's requests in their order, and makes no change while it
//! answers one, so the entries were current together at the clock's point, and no commit that was acknowledged before is
//! missing. Both requests leave together.
//!
//! `docs/backends.md` has the layout as a table, and what an operator sees.
//!
//! # Sessions
//! No znode is ephemeral, so sessions hold nothing. Each connection is a session of its own: when it is lost, one task
//! makes another, and no handle knows of it. A request that was under way when its connection broke is never sent again: its outcome
//! is open, and the engine decides it by the commit's slot.
//!
//! # Eras
//! Versions repeat when an older copy of the data is put in place. So a namespace is in an *era*, a znode whose path is drawn by
//! chance, and each commit checks that it is there. Each connection looks at the eras before its first request, and begins
//! another one where it cannot tell that the history has gone on.
//!
//! # The client
//! It is the crate `zookeeper-client`, re-exported as [`zookeeper`]. The crate that is named `zookeeper` has no `multi`, no `sync`
//! and no async interface, and without `multi` there is no atomic commit.
//!
//! Three things are made up for here. It sends what it was asked without a connection by the next one, so it is
//! never allowed to make a second one. It does not renew persistent watches after a reconnection, so the
//! backend makes them again. And it leaves Nagle's algorithm on, with which a request that follows another one at once
//! leaves only when the first is acknowledged. On Linux the backend turns it off; elsewhere, and in containers
//! that do not allow it, a read takes two round trips of time.

#![warn(missing_docs)]

mod coordinator;
mod open;
mod options;
mod schema;
mod store;
mod wire;

pub use avout_tls::{Roots, Tls};
pub use coordinator::Coordinator;
pub use open::{Backend, connect};
pub use options::{Acl, Auth, Options, Reads};
pub use store::Store;
pub use zookeeper;
