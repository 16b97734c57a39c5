//! The MongoDB backend of avout: a coordinator on a replica set, and a store.
//!
//! A namespace is a prefix of collections in a database. Any number of clients on any machines may have it open. The
//! coordinator needs the transactions of a replica set, which may have one node; the store can also lie on a
//! stand-alone server.
//!
//! ```no_run
//! # async fn f() -> avout_core::Result<()> {
//! let backend = avout_mongo::connect("mongodb://db1,db2,db3/shop?replicaSet=rs0&namespace=orders").await?;
//! let (coordinator, store) = (&backend.coordinator, &backend.store);
//! # let _ = (coordinator, store);
//! # Ok(()) }
//! ```
//!
//! # How it works
//! Each key is one document. A commit is one transaction of two requests: an `update` of all its documents, each on the
//! condition of its revision, and `commitTransaction`. No document is part of all commits, so those of different keys run
//! side by side. A check of a key that is not written is an update too, of a counter that is in no revision, since
//! transactions of MongoDB do not notice what others do to a document that they have only read.
//!
//! A client that dies between the two requests leaves its transaction open. Whoever is held up by it ends it a second later.
//!
//! A read is one `find` at snapshot read concern. Points are times in MongoDB's log. Watches share one change stream a
//! client. Values up to 16 KiB lie in the records, larger ones in documents of their own, in chunks from 8 MiB on.
//!
//! Writes wait for a majority and its journals (`w: majority, j: true`), whatever the URL says; one that says less is
//! refused. Each request is sent once and answered, or given up, within [`Options::timeout`].
//!
//! `docs/backends.md` has the layout, and what an operator sees.

#![warn(missing_docs)]

mod abandoned;
mod atom;
mod chunks;
mod client;
mod commit;
mod container;
mod coordinator;
mod documents;
mod error;
mod options;
mod reads;
mod records;
mod schema;
mod values;
mod watch;

use std::fmt;
use std::sync::Arc;

use avout_core::Result;

pub use container::Store;
pub use coordinator::Coordinator;
pub use mongodb;
pub use options::Options;

use client::Client;

/// Opens the namespace that a text names, as [`Options::from_url`] reads it, and makes it if it is not there.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the URL, or its TLS options.
/// [`Denied`](avout_core::ErrorKind::Denied): wrong credentials, or the user may not write there.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no primary answered within the timeout.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a stand-alone server, a sharded cluster, a server before MongoDB
/// 5.0, or a namespace that a newer library made.
///
/// # Cancel safety
/// Safe: a namespace that was made, in part or whole, stays, and the next one to open it goes on from there.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; the connections are closed after the last of them
/// is dropped, in the background.
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
