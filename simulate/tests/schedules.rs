//! Random transactions under random faults, on simulated time.
//!
//! 50,000 schedules run each time. A million, in a few minutes: `AVOUT_SCHEDULES=1000000 cargo test -p avout-simulate
//! --test schedules`. `AVOUT_SEED=17` runs schedule 17 alone, and prints its story if it fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avout_core::{Error, Stm};
use avout_simulate::{Simulation, World, workload};

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

/// A mistake in a user's own code is found, with a story short enough to read, and its seed repeats it.
#[test]
fn a_users_mistake_is_found() {
    let test = |world: World| async move {
        let stm = world.stm();
        let count = stm.create_ref("/count", 0_u64).await?;
        let acknowledged = Arc::new(AtomicU64::new(0));
        for _ in 0..2 {
            let acknowledged = Arc::clone(&acknowledged);
            world.spawn(move |stm| increment_wrongly(stm, Arc::clone(&acknowledged)));
        }
        world.finish().await;
        if count.get().await? < acknowledged.load(Ordering::Relaxed) {
            return Err(Error::abort("an increment was lost"));
        }
        Ok(())
    };
    let simulation = Simulation::new(1000);
    let failure = simulation.find(test).expect("it is a mistake that any two clients show");
    assert!(failure.message.contains("an increment was lost"), "{failure}");
    assert!(failure.story.len() < 20, "{failure}");
    assert_eq!(simulation.story(failure.seed, test).last(), Some(&failure.message));
}

/// Reads in one transaction and writes in another.
async fn increment_wrongly(stm: Stm, acknowledged: Arc<AtomicU64>) {
    let Ok(count) = stm.open_ref::<u64>("/count").await else { return };
    let Ok(n) = count.get().await else { return };
    if count.set(n + 1).await.is_ok() {
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}
