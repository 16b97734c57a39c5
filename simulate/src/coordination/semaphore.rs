use async_trait::async_trait;
use avout_core::{ErrorKind, Permit, Result, Stm};
use tokio::time::timeout;

use super::holds::Holds;
use super::stage::{Actor, Scene, Test};
use crate::World;

/// One semaphore. Some ask for several permits at once.
pub(super) struct Semaphore {
    key: String,
    permits: u32,
    sure: Stm,
    holds: Holds,
}

impl Semaphore {
    pub(super) async fn make(world: &World, sure: &Stm, name: &str) -> Result<Self> {
        let key = format!("{name}/semaphore");
        let permits = 1 + world.draw(4) as u32;
        let orderly = world.knobs().are_calm() && world.chance(0.7);
        let holds = Holds::make(sure, &key, u64::from(permits), orderly).await?;
        Ok(Self { key, permits, sure: sure.clone(), holds })
    }

    async fn ask(&self, actor: &Actor, take: u32) -> Result<Option<Permit>> {
        let semaphore = actor.stm.semaphore(&self.key, self.permits)?;
        if self.holds.orderly {
            return semaphore.acquire_many(take).await.map(Some);
        }
        match actor.world().draw(6) {
            0 => semaphore.try_acquire_many(take).await,
            1 | 2 => semaphore.acquire_timeout(take, actor.draw_millis(2500)).await.map(Some),
            3 => timeout(actor.draw_millis(1500), semaphore.acquire_many(take)).await.ok().transpose(),
            _ => semaphore.acquire_many(take).await.map(Some),
        }
    }
}

#[async_trait]
impl Scene for Semaphore {
    async fn step(&self, actor: &Actor) {
        let take = 1 + actor.world().draw(u64::from(self.permits)) as u32;
        let what = format!("asks for {take} of {} permits of {}", self.permits, self.key);
        let status = match self.holds.orderly {
            true => self.sure.semaphore(&self.key, self.permits).expect("a key").status().await.ok(),
            false => None,
        };
        let request = self.holds.ask(status);
        match actor.wait(&what, self.ask(actor, take)).await {
            Ok(Some(permit)) => {
                self.holds.granted(actor, request, &permit, u64::from(take));
                self.holds.hold(actor, permit, u64::from(take)).await;
            }
            Ok(None) => actor.tell(|| "does without".to_owned()),
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        match sure.semaphore(&self.key, self.permits)?.acquire_timeout(self.permits, test.patience()).await {
            Ok(permit) => permit.release().await?,
            Err(error) if error.kind() == ErrorKind::Timeout => {
                test.world.violation(format!("left: {} is held, and all have let go of it", self.key));
            }
            Err(error) => return Err(error),
        }
        self.holds.check(test, sure).await
    }
}
