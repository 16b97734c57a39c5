//! Locks and the like under random faults, on simulated time.
//!
//! 20,000 schedules run each time. A million: `AVOUT_SCHEDULES=1000000 cargo test -p avout-simulate --test coordination`.
//! `AVOUT_SEED=17` runs schedule 17 alone, and prints its story if it fails.

use std::time::Duration;

use avout_core::Result;
use avout_simulate::{Simulation, World, coordination};

fn simulation(schedules: u64) -> Simulation {
    Simulation::new(schedules).threads(2).clocks_ahead()
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

/// A client whose clock runs ahead takes one for dead that lives, and without such clocks nobody does.
#[test]
fn clocks_ahead_take_the_living_for_dead() {
    assert!(Simulation::new(300).clocks_ahead().find(a_living_holder).is_some());
    assert!(Simulation::new(300).find(a_living_holder).is_none());
}

/// One client holds a lock and lives, without faults, and another one wants it. The first must not lose it.
async fn a_living_holder(world: World) -> Result<()> {
    let guard = world.stm().lock("/lock")?.acquire().await?;
    world.spawn(|stm| async move {
        // What becomes of it is of no importance.
        let _ = stm.lock("/lock").expect("a name").acquire_timeout(Duration::from_secs(5)).await;
    });
    world.finish().await;
    assert!(guard.is_held(), "it was taken for dead");
    Ok(())
}
