//! Real servers for tests, benchmarks and examples.
//!
//! [`ZooKeeper`], [`Redis`] and [`Mongo`] are started on free ports of 127.0.0.1 with a temporary folder each. When the call
//! returns they answer. Their [`Node`]s can be stopped, killed, paused and started again with their data.
//!
//! A server ends with the last clone of its value, and at the latest with this process, whatever happens to that. It
//! does not depend on the async runtime in which it was started. [`shared`] has servers for a whole test program.
//!
//! A server that is not installed is an [`Error`] that says how to get it. Tests made with
//! [`server_tests!`](crate::server_tests) are ignored then, unless `AVOUT_TEST_REQUIRE` names the server.
//!
//! [`Proxy`] breaks the connections between clients and a server at a chosen moment, and [`Proxies`] are what a fixture of the
//! laws needs of them.
//!
//! [`Certificates`] are for tests of TLS.
//!
//! A server of another kind is a [`Node`] that is made from a [`Spec`].
//!
//! # Examples
//! ```no_run
//! use avout_conformance::servers::{Error, Mongo};
//!
//! # async fn f() -> Result<(), Error> {
//! let mongo = Mongo::replica_set(3).await?;
//! println!("{}", mongo.url("shop"));
//! let primary = mongo.primary().await?;
//! mongo.node(primary).pause().await?;
//! let next = mongo.primary().await?;
//! mongo.node(primary).resume().await?;
//! # Ok(()) }
//! ```
//!
//! This module needs the feature `servers` and a Unix.

mod bson;
mod certificates;
mod error;
mod find;
mod frame;
mod group;
mod janitor;
mod link;
mod mongo;
mod node;
mod partition;
mod port;
mod proxies;
mod proxy;
mod redis;
pub mod shared;
mod spec;
mod tests;
mod wire;
mod zookeeper;

pub use certificates::Certificates;
pub use error::Error;
pub use frame::{Framing, Protocol};
pub use group::Servers;
pub use link::{Action, Direction};
pub use mongo::{Mongo, MongoBuilder};
pub use node::Node;
pub use port::free_port;
pub use proxies::Proxies;
pub use proxy::Proxy;
pub use redis::{Redis, RedisBuilder, SENTINEL_SERVICE};
pub use spec::Spec;
pub use tests::{ServerTest, run_tests};
pub use zookeeper::{ZooKeeper, ZooKeeperBuilder};
