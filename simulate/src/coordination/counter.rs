use std::sync::Mutex;

use async_trait::async_trait;
use avout_core::{ErrorKind, Result, Stm};

use super::stage::{Actor, Scene, Test, lock};

/// A counter to which all add.
pub(super) struct Counter {
    key: String,
    sums: Mutex<Sums>,
}

#[derive(Default)]
struct Sums {
    surely: i64,
    /// What was added besides, or not.
    perhaps: i64,
}

impl Counter {
    pub(super) fn make(name: &str) -> Self {
        Self { key: format!("{name}/counter"), sums: Mutex::default() }
    }
}

#[async_trait]
impl Scene for Counter {
    async fn step(&self, actor: &Actor) {
        let what = format!("adds to {}", self.key);
        let counter = match actor.wait(&what, actor.stm.counter(&self.key)).await {
            Ok(counter) => counter,
            Err(error) => return actor.accept(&what, &error, &[]),
        };
        for _ in 0..1 + actor.world().draw(3) {
            let n = 1 + actor.world().draw(5) as i64;
            lock(&self.sums).perhaps += n;
            let added = actor.wait(&what, async {
                match actor.world().chance(0.5) {
                    true => counter.add(n).await,
                    false => actor.stm.dosync(async |tx| counter.add_in(&tx, n).await).await,
                }
            });
            let added = added.await;
            actor.tell(|| format!("{what}: {n} {added:?}"));
            let mut sums = lock(&self.sums);
            match added {
                Ok(()) => {
                    sums.perhaps -= n;
                    sums.surely += n;
                }
                Err(error) => {
                    if error.kind() != ErrorKind::OutcomeUnknown {
                        sums.perhaps -= n;
                    }
                    drop(sums);
                    actor.accept(&what, &error, &[]);
                }
            }
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        let sum = sure.counter(&self.key).await?.get().await?;
        let Sums { surely, perhaps } = *lock(&self.sums);
        if !(surely..=surely + perhaps).contains(&sum) {
            let what = format!("{} is {sum}, and {surely} were added, and perhaps {perhaps}", self.key);
            test.world.violation(format!("sum: {what}"));
        }
        Ok(())
    }
}
