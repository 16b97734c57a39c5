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

mod cell;
mod client;
mod cluster;
mod confirm;
mod container;
mod coordinator;
mod dial;
mod enter;
mod error;
mod find;
mod gather;
mod lanes;
mod link;
mod lookout;
mod names;
mod options;
mod pace;
mod pulse;
mod requests;
mod scripts;
mod sentinel;
mod server;
mod sessions;
mod tls;
mod verdict;
mod watch;

use std::fmt;
use std::sync::Arc;

use avout_core::Result;

pub use avout_core::LostCommits;
pub use container::Store;
pub use coordinator::Coordinator;
pub use options::Options;
pub use redis;

use client::Client;

/// Opens the namespace that a text names, as [`Options::from_url`] reads it, and makes it if it is not there.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the text.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no server answers, or it is a replica.
/// [`Denied`](avout_core::ErrorKind::Denied): the server refuses the user, or the user may not do what avout needs.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): the server is too old, may evict keys, or does not keep what the options
/// ask for; or a newer library made the namespace.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): something else lies under the namespace's names.
///
/// # Cancel safety
/// Safe: a namespace that was made stays, and a client that nobody got ends.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the connections are closed.
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
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.options).finish_non_exhaustive()
    }
}
