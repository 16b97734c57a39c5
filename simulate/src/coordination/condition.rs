use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{ErrorKind, Lock, LockGuard, Ref, Result, Stm};
use tokio::time::{sleep, timeout};

use super::known::HANDS_ON_WHAT_IT_HAS;
use super::stage::{Actor, Scene, Test, lock};
use crate::World;

/// A lock with a condition: some put things in and notify, others wait until there is one.
pub(super) struct Condition {
    name: String,
    seen: Mutex<Seen>,
    /// Nobody gives up waiting.
    patient: bool,
    /// Those who wait for others only are helped late, so that one is seen whose wait should have ended by then.
    late: bool,
}

#[derive(Default)]
struct Seen {
    /// How many were notified surely.
    notified: u64,
    /// A notification may have taken effect, and it is not known how many it was for.
    unclear: bool,
    /// How many waits ended with a notification.
    woken: u64,
    /// How many ended in another way: with the loss of the lock, or since they were given up.
    others: u64,
}

/// A wait or a notification under way. What is not told of it when this is dropped is not known.
struct Open<'a> {
    seen: &'a Mutex<Seen>,
    end: fn(&mut Seen),
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        (self.end)(&mut lock(self.seen));
    }
}

impl Condition {
    pub(super) async fn make(world: &World, sure: &Stm, name: &str) -> Result<Self> {
        sure.create_ref(format!("{name}/things"), 0_u64).history(0).await?;
        Ok(Self { name: name.to_owned(), seen: Mutex::default(), patient: world.chance(0.4), late: world.chance(0.25) })
    }

    fn gate(&self, stm: &Stm) -> Result<Lock> {
        stm.lock(format!("{}/lock", self.name))
    }

    async fn things(&self, stm: &Stm) -> Result<Ref<u64>> {
        stm.open_ref(format!("{}/things", self.name)).await
    }

    /// Puts something in, and notifies one or all.
    async fn put(&self, actor: &Actor) -> Result<()> {
        let (gate, things) = (self.gate(&actor.stm)?, self.things(&actor.stm).await?);
        let condition = gate.condition("changed")?;
        let guard = actor.wait(&format!("asks for the lock of {}", self.name), gate.acquire()).await?;
        let put = actor.stm.dosync(async |tx| {
            tx.require(&guard).await?;
            tx.update(&things, |things| *things += 1).await
        });
        actor.wait("puts something in", put).await?;
        let what = format!("notifies at {}", self.name);
        let mut open = Open { seen: &self.seen, end: |seen| seen.unclear = true };
        let notified = match actor.world().chance(0.3) {
            true => actor.wait(&what, condition.notify_all(&guard)).await,
            false => actor.wait(&what, condition.notify_one(&guard)).await.map(usize::from),
        };
        actor.tell(|| format!("{what}: {notified:?}"));
        if !matches!(&notified, Err(error) if error.kind() == ErrorKind::OutcomeUnknown) {
            open.end = |_| {};
        }
        lock(&self.seen).notified += *notified.as_ref().unwrap_or(&0) as u64;
        drop(open);
        notified?;
        actor.wait("releases the lock", guard.release()).await
    }

    /// Takes something out, and waits until there is something.
    async fn take(&self, actor: &Actor) -> Result<()> {
        let (gate, things) = (self.gate(&actor.stm)?, self.things(&actor.stm).await?);
        let condition = gate.condition("changed")?;
        let mut guard = actor.wait(&format!("asks for the lock of {}", self.name), gate.acquire()).await?;
        loop {
            let take = actor.stm.dosync(async |tx| {
                tx.require(&guard).await?;
                let there = tx.get(&things).await?;
                if there > 0 {
                    tx.set(&things, there - 1).await?;
                }
                Ok(there > 0)
            });
            if actor.wait("takes something out", take).await? {
                return actor.wait("releases the lock", guard.release()).await;
            }
            guard = match self.wait(actor, &condition, guard).await? {
                Some(guard) => guard,
                None => return Ok(()),
            };
        }
    }

    /// Waits once. `None`: it gave up.
    async fn wait(
        &self,
        actor: &Actor,
        condition: &avout_core::Condition,
        guard: LockGuard,
    ) -> Result<Option<LockGuard>> {
        let mut open = Open { seen: &self.seen, end: |seen| seen.others += 1 };
        let what = format!("waits at {}", self.name);
        let helped = self.helped_after(actor.test.patience());
        let waited = match actor.world().draw(4) {
            0 if !self.patient => {
                let longest = actor.draw_millis(2000);
                actor.wait_longer(&what, longest, condition.wait_timeout(guard, longest)).await.map(Some)
            }
            1 if !self.patient => {
                let longest = actor.draw_millis(2000);
                let waited = timeout(longest, actor.wait_longer(&what, longest, condition.wait(guard))).await;
                waited.ok().transpose().map(|waited| waited.map(|guard| (guard, false)))
            }
            _ => actor.wait_longer(&what, helped, condition.wait(guard)).await.map(|guard| Some((guard, false))),
        };
        match &waited {
            Ok(Some((_, false))) => open.end = |seen| seen.woken += 1,
            Ok(Some((_, true))) => open.end = |_| {},
            Ok(None) | Err(_) => {}
        }
        drop(open);
        actor.tell(|| format!("{what}: {waited:?}"));
        Ok(waited?.map(|(guard, _)| guard))
    }

    /// When those who wait for others only are helped first.
    fn helped_after(&self, patience: Duration) -> Duration {
        Duration::from_secs(4) + if self.late { patience } else { Duration::ZERO }
    }
}

#[async_trait]
impl Scene for Condition {
    async fn step(&self, actor: &Actor) {
        let (what, done) = match actor.world().chance(0.5) {
            true => ("put", self.put(actor).await),
            false => ("take", Box::pin(self.take(actor)).await),
        };
        if let Err(error) = done {
            actor.accept(what, &error, &[ErrorKind::Lost]);
        }
    }

    /// Whoever was notified died, or there is nobody to notify.
    async fn help(&self, test: &Test, sure: &Stm) -> Result<()> {
        sleep(self.helped_after(test.patience())).await;
        let (gate, things) = (self.gate(sure)?, self.things(sure).await?);
        let condition = gate.condition("changed")?;
        loop {
            let guard = gate.acquire().await?;
            let notified = condition.notify_all(&guard).await? as u64;
            lock(&self.seen).notified += notified;
            things.update(move |things| *things += notified).await?;
            guard.release().await?;
            sleep(test.patience() / 16).await;
        }
    }

    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        match self.gate(sure)?.acquire_timeout(test.patience()).await {
            Ok(guard) => guard.release().await?,
            Err(_) => test.world.violation(format!("left: the lock of {} is held", self.name)),
        }
        let seen = lock(&self.seen);
        let Seen { notified, unclear, woken, others } = *seen;
        let told = format!("at {}: {notified} notified, {woken} woken, {others} ended otherwise", self.name);
        if woken > notified && !unclear && (self.patient || HANDS_ON_WHAT_IT_HAS) {
            test.world.violation(format!("condition: woken without a notification {told}"));
        }
        if woken + others < notified {
            test.world.violation(format!("condition: a notification was lost {told}"));
        }
        Ok(())
    }
}
