//! Locks and the like under random faults, on simulated time.
//!
//! 20,000 schedules run each time. A million: `AVOUT_SCHEDULES=1000000 cargo test -p avout-simulate --test coordination`.
//! `AVOUT_SEED=17` runs schedule 17 alone, and prints its story if it fails.

use avout_core::Bug;
use avout_simulate::{Simulation, coordination};

fn simulation(schedules: u64) -> Simulation {
    // One whose clock runs ahead takes whomever it looks at for dead.
    Simulation::new(schedules).threads(2).clocks_ahead(|stm| stm.planted(Bug::LivingTakenForDead))
}

/// Whatever is lost, late, doubled, stopped or killed: what one may hold alone is held by one, nothing is written under a guard that was
/// lost, nothing is lost or comes twice, and nobody waits for ever.
#[test]
fn schedules() {
    simulation(20_000).run(coordination);
}

/// A seed decides everything: the same schedule has the same story, request by request.
#[test]
fn seeds_repeat() {
    for seed in 0..100 {
        let simulation = simulation(1);
        let (first, second) = (simulation.story(seed, coordination), simulation.story(seed, coordination));
        let differs = first.iter().zip(&second).find(|(first, second)| first != second);
        assert!(differs.is_none() && first.len() == second.len(), "schedule {seed} took two courses: {differs:?}");
    }
}
