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
//! No znode is ephemeral, so sessions hold nothing. One task for each connection makes a new session when one expired, and no handle
//! knows of it. A request that was under way when its connection broke is never sent again: its outcome is open, and the
//! engine decides it by the commit's slot.
//!
//! # The client
//! It is the crate `zookeeper-client`, re-exported as [`zookeeper`]. The crate that is named `zookeeper` has no `multi`, no `sync`
//! and no async interface, and without `multi` there is no atomic commit.
//!
//! Two things that it does not do are made up for here. It does not renew persistent watches after a reconnection, so the
//! backend makes them again. And it leaves Nagle's algorithm on, with which a request that follows another one at once
//! leaves only when the first is acknowledged. On Linux the backend turns it off; elsewhere, and in containers
//! that do not allow it, a read takes two round trips of time.

#![warn(missing_docs)]

mod atom;
mod client;
mod container;
mod coordinator;
mod error;
mod nodelay;
mod options;
mod parts;
mod paths;
mod schema;
mod watch;

use std::fmt;
use std::sync::Arc;

use avout_core::Result;

pub use container::Store;
pub use coordinator::Coordinator;
pub use options::{Acl, Auth, Options, Reads};
pub use zookeeper;

use client::Client;
use schema::Opened;
use watch::Hub;

/// Opens what a text names, as [`Options::from_url`] reads it.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the text, or a file that it names.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no server answered within the timeout.
/// [`Denied`](avout_core::ErrorKind::Denied): the servers refuse the user.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): the namespace belongs to another application.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a newer library made it, or the servers are older than ZooKeeper 3.6.
/// [`Full`](avout_core::ErrorKind::Full): a quota leaves no room for the namespace.
///
/// # Cancel safety
/// Safe: a namespace that was made stays, and a client that nobody got ends.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the client's sessions end, in
/// the background.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<Coordinator>,
    /// Holds the values.
    pub store: Arc<Store>,
    client: Arc<Client>,
}

impl Backend {
    fn new(client: Arc<Client>, opened: Opened) -> Self {
        let hub = Hub::new(&client);
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client), Arc::clone(&hub), opened));
        let store = Arc::new(Store::new(Arc::clone(&client), hub, opened));
        Self { coordinator, store, client }
    }

    /// Ends the client's sessions: later requests and all watchers get [`Closed`](avout_core::ErrorKind::Closed), and those under way
    /// end as they would with a lost connection.
    pub fn close(&self) {
        self.client.close();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.options).finish_non_exhaustive()
    }
}
