//! Real servers for tests, benchmarks and examples.
//!
//! Each is started on free ports of 127.0.0.1 with a temporary folder. When the call returns it answers. It can be stopped, killed,
//! paused, started again with its data, and ends with its value, at the latest with this process, whatever happens to that.
//!
//! This module needs the feature `servers` and a Unix.

mod bson;
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
mod proxy;
mod redis;
pub mod shared;
mod tests;
mod wire;
mod zookeeper;

pub use error::Error;
pub use frame::Protocol;
pub use group::Servers;
pub use link::{Action, Direction};
pub use mongo::{Mongo, MongoBuilder};
pub use node::Node;
pub use port::free_port;
pub use proxy::Proxy;
pub use redis::{Redis, RedisBuilder, SENTINEL_SERVICE};
pub use tests::{ServerTest, run_tests};
pub use zookeeper::{ZooKeeper, ZooKeeperBuilder};
