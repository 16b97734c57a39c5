//! Random transactions under random faults, on simulated time.
//!
//! 50,000 schedules run each time. A million, in a few minutes: `AVOUT_SCHEDULES=1000000 cargo test -p avout-conformance
//! --test schedules`. `AVOUT_SEED=17` runs schedule 17 alone, and prints its story if it fails.

use avout_conformance::simulate::{Simulation, workload};

/// Whatever is lost, late, doubled, stopped or killed: histories are strictly serializable, everything acknowledged happened
/// once, every body saw one moment, nobody is stuck, and watches tell the truth.
#[test]
fn schedules() {
    Simulation::new(50_000).threads(2).run(workload);
}

/// A seed decides everything: the same schedule has the same story, request by request.
#[test]
fn seeds_repeat() {
    for seed in 0..100 {
        let simulation = Simulation::new(1);
        let (first, second) = (simulation.story(seed, workload), simulation.story(seed, workload));
        let differs = first.iter().zip(&second).find(|(first, second)| first != second);
        assert!(differs.is_none() && first.len() == second.len(), "schedule {seed} took two courses: {differs:?}");
    }
}
