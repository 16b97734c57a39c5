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

mod client;
mod coordinator;
mod current;
mod eras;
mod find;
mod hub;
mod listing;
mod marks;
mod open;
mod options;
mod progress;
mod revisions;
mod schema;
mod sessions;
mod store;
mod watch;
mod wire;

pub use coordinator::Coordinator;
pub use mongodb;
pub use open::{Backend, connect};
pub use options::Options;
pub use store::Store;
