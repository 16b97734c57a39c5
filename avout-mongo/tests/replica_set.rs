//! The laws of `avout-conformance`, on a replica set of three nodes.

mod support;

use async_trait::async_trait;
use avout_conformance::servers::{Error, Mongo, shared};

struct Plain;

#[async_trait]
impl support::Access for Plain {
    async fn set(&self) -> Result<&'static Mongo, Error> {
        shared::mongo_replica_set().await
    }
}

fn main() {
    avout_conformance::run(support::Set::new("mongo-replica-set", Plain, 3))
}
