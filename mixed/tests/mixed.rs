//! The group `mixed` of the suite: every backend as coordinator beside every one as a store, and beside all of them.

use avout_conformance::{Fixture, Mixed, run_group};

fn main() {
    let all = avout_mixed::backends();
    let mut fixtures: Vec<Box<dyn Fixture>> = Vec::new();
    for coordinator in &all {
        for store in &all {
            // A server that is not there is missed by the backend's own tests, where it is required.
            let name = format!("mixed-{}-{}", coordinator.name(), store.name());
            fixtures.push(Box::new(Mixed::new(name, coordinator.clone(), vec![store.clone()])));
        }
        fixtures.push(Box::new(Mixed::new(
            format!("mixed-{}-all", coordinator.name()),
            coordinator.clone(),
            all.clone(),
        )));
    }
    run_group("mixed", fixtures)
}
