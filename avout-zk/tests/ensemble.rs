//! The laws of `avout-conformance`, on an ensemble of three, as a user with the least rights.

mod support;

use avout_conformance::servers::shared;

fn main() {
    avout_conformance::run(support::Zk::new(|| Box::pin(shared::zookeeper_ensemble())))
}
