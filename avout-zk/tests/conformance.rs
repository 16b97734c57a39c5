//! The laws of `avout-conformance`, on one ZooKeeper server, as a user with the least rights.

mod support;

use avout_conformance::servers::shared;

fn main() {
    avout_conformance::run(support::Zk::new(|| Box::pin(shared::zookeeper())))
}
