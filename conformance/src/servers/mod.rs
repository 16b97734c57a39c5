//! Real servers for tests, benchmarks and examples.
//!
//! Each is started on free ports of 127.0.0.1 with a temporary folder. When the call returns it answers. It can be stopped, killed,
//! paused, started again with its data, and ends with its value, at the latest with this process, whatever happens to that.
//!
//! This module needs the feature `servers` and a Unix.

mod bson;
mod error;
mod find;
mod group;
mod janitor;
mod mongo;
mod node;
mod port;
mod redis;
mod tests;
mod wire;
mod zookeeper;

pub use error::Error;
pub use mongo::{Mongo, MongoBuilder};
pub use node::Node;
pub use port::free_port;
pub use redis::{Redis, RedisBuilder};
pub use tests::{ServerTest, run_tests};
pub use zookeeper::{ZooKeeper, ZooKeeperBuilder};

fn addresses(nodes: &[Node]) -> String {
    nodes.iter().map(|node| node.address().to_string()).collect::<Vec<_>>().join(",")
}
