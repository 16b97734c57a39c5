//! The laws of `avout-conformance`, on a replica set of three nodes.

mod support;

use avout_conformance::servers::shared;

fn main() {
    avout_conformance::run(support::Set::new("mongo-replica-set", || Box::pin(shared::mongo_replica_set()), 3))
}
