//! The laws of `avout-conformance`, on a replica set of one node.

mod support;

use avout_conformance::servers::shared;

fn main() {
    avout_conformance::run(support::Set::new("mongo", || Box::pin(shared::mongo()), 6))
}
