use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{ErrorKind, Result, Stm};
use tokio::time::{sleep, timeout};

use super::stage::{Actor, Scene, Test, lock};
use crate::World;

/// One latch: some count it down, some wait.
pub(super) struct Latch {
    key: String,
    from: u64,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How often it was counted down, surely and at most.
    surely: u64,
    at_most: u64,
    /// What was left each time.
    left: BTreeSet<u64>,
}

impl Latch {
    pub(super) fn make(world: &World, name: &str) -> Self {
        Self { key: format!("{name}/latch"), from: 1 + world.draw(6), seen: Mutex::default() }
    }

    async fn count_down(&self, actor: &Actor) {
        let what = format!("counts {} down", self.key);
        lock(&self.seen).at_most += 1;
        let left = actor.wait(&what, async { actor.stm.latch(&self.key, self.from)?.count_down().await }).await;
        actor.tell(|| format!("{what}: {left:?}"));
        let mut seen = lock(&self.seen);
        match left {
            Ok(left) => {
                seen.surely += 1;
                if left > 0 && !seen.left.insert(left) {
                    actor.world().violation(format!("latch: {} was counted down to {left} twice", self.key));
                }
            }
            Err(error) => {
                if error.kind() != ErrorKind::OutcomeUnknown {
                    seen.at_most -= 1;
                }
                drop(seen);
                actor.accept(&what, &error, &[]);
            }
        }
    }

    async fn wait(&self, actor: &Actor) {
        let what = format!("waits for {}", self.key);
        let waited = actor.wait(&what, async {
            let latch = actor.stm.latch(&self.key, self.from)?;
            match actor.world().draw(4) {
                0 => latch.wait_timeout(actor.draw_millis(2000)).await.map(|()| true),
                1 => timeout(actor.draw_millis(2000), latch.wait()).await.unwrap_or(Ok(())).map(|()| false),
                _ => latch.wait().await.map(|()| true),
            }
        });
        match waited.await {
            Ok(true) => {
                actor.tell(|| format!("{} is open", self.key));
                let at_most = lock(&self.seen).at_most;
                if at_most < self.from {
                    let what = format!("{} opens after {at_most} of {} steps", self.key, self.from);
                    actor.world().violation(format!("latch: {what}"));
                }
            }
            Ok(false) => {}
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }
}

#[async_trait]
impl Scene for Latch {
    async fn step(&self, actor: &Actor) {
        match actor.world().chance(0.5) {
            true => self.count_down(actor).await,
            false => self.wait(actor).await,
        }
    }

    async fn help(&self, test: &Test, sure: &Stm) -> Result<()> {
        sleep(Duration::from_millis(test.world.draw(3000))).await;
        let latch = sure.latch(&self.key, self.from)?;
        for _ in 0..self.from {
            lock(&self.seen).at_most += 1;
            latch.count_down().await?;
            lock(&self.seen).surely += 1;
        }
        Ok(())
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        let latch = sure.latch(&self.key, self.from)?;
        let counted = self.from - latch.left().await?;
        let (surely, at_most) = {
            let seen = lock(&self.seen);
            (seen.surely, seen.at_most)
        };
        if !(surely.min(self.from)..=at_most).contains(&counted) {
            let what =
                format!("{} was counted down {counted} times, and {surely} to {at_most} were asked for", self.key);
            test.world.violation(format!("latch: {what}"));
        }
        if counted == self.from && latch.wait_timeout(test.patience()).await.is_err() {
            test.world.violation(format!("latch: {} is at zero, and not open", self.key));
        }
        Ok(())
    }
}
