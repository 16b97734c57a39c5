use async_trait::async_trait;
use avout_core::{ErrorKind, LockGuard, Result, Stm};
use tokio::time::timeout;

use super::holds::Holds;
use super::stage::{Actor, Scene, Test};
use crate::World;

/// One lock, which is destroyed now and then.
pub(super) struct Mutex {
    key: String,
    sure: Stm,
    holds: Holds,
}

impl Mutex {
    pub(super) async fn make(world: &World, sure: &Stm, name: &str) -> Result<Self> {
        let key = format!("{name}/lock");
        let orderly = world.knobs().are_calm() && world.chance(0.7);
        let holds = Holds::make(sure, &key, 1, orderly).await?;
        Ok(Self { key, sure: sure.clone(), holds })
    }

    async fn ask(&self, actor: &Actor) -> Result<Option<LockGuard>> {
        let lock = actor.stm.lock(&self.key)?;
        if self.holds.orderly {
            return lock.acquire().await.map(Some);
        }
        match actor.world().draw(6) {
            0 => lock.try_acquire().await,
            1 | 2 => lock.acquire_timeout(actor.draw_millis(2500)).await.map(Some),
            3 => timeout(actor.draw_millis(1500), lock.acquire()).await.ok().transpose(),
            _ => lock.acquire().await.map(Some),
        }
    }
}

#[async_trait]
impl Scene for Mutex {
    async fn step(&self, actor: &Actor) {
        if actor.world().chance(0.15) {
            let what = format!("destroys {}", self.key);
            let destroyed = actor.wait(&what, async { actor.stm.lock(&self.key)?.destroy().await });
            if let Err(error) = destroyed.await {
                actor.accept(&what, &error, &[]);
            }
            return;
        }
        let what = format!("asks for {}", self.key);
        let status = match self.holds.orderly {
            true => self.sure.lock(&self.key).expect("a key").status().await.ok(),
            false => None,
        };
        let request = self.holds.ask(status);
        match actor.wait(&what, self.ask(actor)).await {
            Ok(Some(guard)) => {
                self.holds.granted(actor, request, &guard, 1);
                self.holds.hold(actor, guard, 1).await;
            }
            Ok(None) => actor.tell(|| "does without".to_owned()),
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        match sure.lock(&self.key)?.acquire_timeout(test.patience()).await {
            Ok(guard) => guard.release().await?,
            Err(error) if error.kind() == ErrorKind::Timeout => {
                test.world.violation(format!("left: {} is held, and all have let go of it", self.key));
            }
            Err(error) => return Err(error),
        }
        self.holds.check(test, sure).await
    }
}
