use async_trait::async_trait;
use avout_core::{ErrorKind, ReadGuard, Result, Stm, WriteGuard};
use tokio::time::timeout;

use super::holds::Holds;
use super::stage::{Actor, Scene, Test};
use crate::World;

/// What a writer takes.
const ALL: u64 = u32::MAX as u64;

/// One lock for readers and writers.
pub(super) struct RwLock {
    key: String,
    sure: Stm,
    holds: Holds,
}

impl RwLock {
    pub(super) async fn make(world: &World, sure: &Stm, name: &str) -> Result<Self> {
        let key = format!("{name}/rw");
        let orderly = world.knobs().are_calm() && world.chance(0.7);
        let holds = Holds::make(sure, &key, ALL, orderly).await?;
        Ok(Self { key, sure: sure.clone(), holds })
    }

    async fn read(&self, actor: &Actor) -> Result<Option<ReadGuard>> {
        let lock = actor.stm.rw_lock(&self.key)?;
        if self.holds.orderly {
            return lock.read().await.map(Some);
        }
        match actor.world().draw(6) {
            0 => lock.try_read().await,
            1 => lock.read_timeout(actor.draw_millis(2500)).await.map(Some),
            2 => timeout(actor.draw_millis(1500), lock.read()).await.ok().transpose(),
            _ => lock.read().await.map(Some),
        }
    }

    async fn write(&self, actor: &Actor) -> Result<Option<WriteGuard>> {
        let lock = actor.stm.rw_lock(&self.key)?;
        if self.holds.orderly {
            return lock.write().await.map(Some);
        }
        match actor.world().draw(6) {
            0 => lock.try_write().await,
            1 => lock.write_timeout(actor.draw_millis(2500)).await.map(Some),
            2 => timeout(actor.draw_millis(1500), lock.write()).await.ok().transpose(),
            _ => lock.write().await.map(Some),
        }
    }

    async fn downgrade(&self, actor: &Actor, guard: WriteGuard) {
        let what = format!("downgrades {}", self.key);
        match actor.wait(&what, guard.downgrade()).await {
            Ok(guard) => self.holds.hold(actor, guard, 1).await,
            Err(error) => actor.accept(&what, &error, &[ErrorKind::Lost]),
        }
    }
}

#[async_trait]
impl Scene for RwLock {
    async fn step(&self, actor: &Actor) {
        let status = match self.holds.orderly {
            true => self.sure.rw_lock(&self.key).expect("a key").status().await.ok(),
            false => None,
        };
        let request = self.holds.ask(status);
        if actor.world().chance(0.5) {
            let what = format!("asks to read {}", self.key);
            match actor.wait(&what, self.read(actor)).await {
                Ok(Some(guard)) => {
                    self.holds.granted(actor, request, &guard, 1);
                    self.holds.hold(actor, guard, 1).await;
                }
                Ok(None) => actor.tell(|| "does without".to_owned()),
                Err(error) => actor.accept(&what, &error, &[]),
            }
            return;
        }
        let what = format!("asks to write {}", self.key);
        match actor.wait(&what, self.write(actor)).await {
            Ok(Some(guard)) => {
                self.holds.granted(actor, request, &guard, ALL);
                let Some(guard) = self.holds.keep(actor, guard, ALL).await else {
                    return;
                };
                match actor.world().chance(0.3) {
                    true => self.downgrade(actor, guard).await,
                    false => self.holds.let_go(actor, guard).await,
                }
            }
            Ok(None) => actor.tell(|| "does without".to_owned()),
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        match sure.rw_lock(&self.key)?.write_timeout(test.patience()).await {
            Ok(guard) => guard.release().await?,
            Err(error) if error.kind() == ErrorKind::Timeout => {
                test.world.violation(format!("left: {} is held, and all have let go of it", self.key));
            }
            Err(error) => return Err(error),
        }
        self.holds.check(test, sure).await
    }
}
