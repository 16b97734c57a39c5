//! The Redis backend of avout: store and coordinator on one server, on a replicated one, or in a cluster.
//!
//! A namespace is a few keys with one hash tag, so that one script can use them all. Redis 7.0 or later, or Valkey, is needed: of a
//! script that is declared to write an older server does not check before its first write that it has memory for it.
//!
//! ```no_run
//! # async fn f() -> avout_core::Result<()> {
//! let backend = avout_redis::connect("redis://user:password@redis.example/shop").await?;
//! let (coordinator, store) = (&backend.coordinator, &backend.store);
//! # let _ = (coordinator, store);
//! # Ok(()) }
//! ```
//!
//! # How it works
//! A read is one `HMGET`, which brings along the clock; reads that tasks make at once go together in one. A commit is one script,
//! called by its SHA: it compares the revisions of all keys and then writes, or answers with the keys that are stale and their
//! records. One connection carries the requests of all tasks; a second one, made with the first watch, is told of changes by the
//! scripts (sharded pub/sub).
//!
//! The driver is the crate `redis`, and of it only the multiplexed connection, which sends each request once. Its connection manager
//! and its cluster connection are not used: the latter sends a request again whose reply was lost.
//!
//! # What a server may lose
//! Replication is asynchronous, and the log is synced once a second unless the server is told otherwise. So a restart or a
//! failover may lose commits that were acknowledged. This is noticed, told once as [`StoreLost`](avout_core::ErrorKind::StoreLost)
//! with [`LostCommits`] as its source, and the client goes on with what there is. No transaction is lost in part, and none sees
//! two histories. `docs/guarantees.md` tells how to lose nothing.

#![warn(missing_docs)]

mod coordinator;
mod open;
mod options;
mod schema;
mod store;
mod wire;

pub use avout_core::LostCommits;
pub use avout_tls::{Roots, Tls};
pub use coordinator::Coordinator;
pub use open::{Backend, connect};
pub use options::Options;
pub use redis;
pub use store::Store;
