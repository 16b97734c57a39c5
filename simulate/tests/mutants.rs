//! The schedules find mistakes of the engine: `mutants/*.patch` are such, and `scripts/mutants` runs them.

use std::time::Duration;

use avout_core::Result;
use avout_simulate::{Failure, Simulation, World, coordination, coordination_of, workload};

/// What `name` says must be set.
fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is to be set"))
}

fn number(name: &str) -> u64 {
    variable(name).parse().unwrap_or_else(|_| panic!("{name} is a number"))
}

/// Looks for a failure whose message begins with `AVOUT_KIND` in `AVOUT_SCHEDULES` schedules of `AVOUT_TEST`, from the seed
/// `AVOUT_FIRST` on: `transactions`, `coordination`, one of its primitives, or `one ref`.
#[test]
#[ignore = "run by scripts/mutants"]
fn judge() {
    let (test, kind) = (variable("AVOUT_TEST"), variable("AVOUT_KIND"));
    let first = number("AVOUT_FIRST");
    let simulation = Simulation::new(number("AVOUT_SCHEDULES")).first_seed(first).only(&*kind);
    let found = match &*test {
        "transactions" => simulation.find(workload),
        "coordination" => simulation.find(coordination),
        "one ref" => simulation.find(one_ref_again_and_again),
        primitive => simulation.find(|world| coordination_of(world, primitive)),
    };
    match found {
        None => println!("judged held"),
        Some(Failure { seed, message, shortest, story }) => {
            println!("schedule {seed}: {message}");
            println!("the shortest, in {} lines: {shortest}\n{}", story.len(), story.join("\n"));
            println!("judged found after {}", seed - first + 1);
        }
    }
}

/// Removals that take turns break nothing.
#[test]
fn removals_with_turns() {
    assert!(Simulation::new(5_000).find(one_ref_again_and_again).is_none());
}

/// One client makes a ref, changes it and destroys it, again and again, and three sweep.
async fn one_ref_again_and_again(world: World) -> Result<()> {
    let pause = async |world: &World| tokio::time::sleep(Duration::from_millis(world.draw(30))).await;
    for _ in 0..3 {
        let own = world.clone();
        world.spawn(move |stm| {
            let world = own.clone();
            async move {
                for _ in 0..10 {
                    pause(&world).await;
                    let _ = stm.sweep().await;
                }
            }
        });
    }
    let own = world.clone();
    world.spawn(move |stm| {
        let world = own.clone();
        async move {
            for n in 0..16_u64 {
                // What fails is made up for by the next round.
                let Ok(r) = stm.create_or_open_ref("/v", n).await else { continue };
                for _ in 0..world.draw(3) {
                    pause(&world).await;
                    let _ = r.alter(|n| n + 1).await;
                }
                pause(&world).await;
                let _ = r.destroy().await;
            }
        }
    });
    world.finish().await;
    Ok(())
}
