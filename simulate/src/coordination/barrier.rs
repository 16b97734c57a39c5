use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{ErrorKind, Passed, Result, Stm};
use futures_util::future::try_join_all;
use tokio::time::{sleep, timeout};

use super::known::ROUNDS_ARE_EXACT;
use super::stage::{Actor, Scene, Test, lock};
use crate::World;

/// How long those wait at most, again and again, who are there for the others only.
const FILLING: Duration = Duration::from_secs(10);
/// How long they pause in between.
const PAUSE: Duration = Duration::from_millis(1);

/// One barrier.
pub(super) struct Barrier {
    key: String,
    parties: u32,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// How many waits there were.
    waits: u64,
    /// How many passed in each round, and how many of them as the last.
    rounds: BTreeMap<u64, (u32, u32)>,
}

impl Barrier {
    pub(super) fn make(world: &World, name: &str) -> Self {
        Self { key: format!("{name}/barrier"), parties: 1 + world.draw(4) as u32, seen: Mutex::default() }
    }

    /// Notes that somebody begins to wait, and gives the last round that is known to be over.
    fn begin(&self) -> u64 {
        let mut seen = lock(&self.seen);
        seen.waits += 1;
        seen.rounds.keys().next_back().copied().unwrap_or(0)
    }

    /// Waits once for the others' sake. Whether it passed. Any error but that of the time ends it: one that comes at once, again and
    /// again, would come for ever, as no simulated time passes.
    async fn wait(&self, world: &World, barrier: &avout_core::Barrier) -> Result<bool> {
        let before = self.begin();
        match barrier.wait_timeout(FILLING).await {
            Ok(passed) => self.pass(world, before, passed),
            Err(error) if error.kind() == ErrorKind::Timeout => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }

    fn pass(&self, world: &World, before: u64, passed: Passed) {
        let Passed { round, is_last, .. } = passed;
        let mut seen = lock(&self.seen);
        let waits = seen.waits;
        let (all, last) = seen.rounds.entry(round).or_default();
        *all += 1;
        *last += u32::from(is_last);
        let (key, parties) = (&self.key, self.parties);
        if round <= before {
            world.violation(format!("barrier: a wait at {key} passes round {round}, and began after round {before}"));
        }
        if (*all > parties && ROUNDS_ARE_EXACT) || *last > 1 {
            let what = format!("{all} pass round {round} of {key}, {last} of them as the last, and {parties} are to");
            world.violation(format!("barrier: {what}"));
        }
        if waits < round * u64::from(parties) {
            world.violation(format!("barrier: {waits} waits pass {round} rounds of {parties} at {key}"));
        }
    }
}

#[async_trait]
impl Scene for Barrier {
    async fn step(&self, actor: &Actor) {
        let what = format!("waits at {} for {}", self.key, self.parties);
        let before = self.begin();
        let passed = actor.wait(&what, async {
            let barrier = actor.stm.barrier(&self.key, self.parties)?;
            match actor.world().draw(4) {
                0 => barrier.wait_timeout(actor.draw_millis(3000)).await.map(Some),
                1 => timeout(actor.draw_millis(2000), barrier.wait()).await.ok().transpose(),
                _ => barrier.wait().await.map(Some),
            }
        });
        match Box::pin(passed).await {
            Ok(Some(passed)) => {
                actor.tell(|| format!("passes round {} of {}", passed.round, self.key));
                self.pass(actor.world(), before, passed);
            }
            Ok(None) => actor.tell(|| format!("goes away from {}", self.key)),
            Err(error) => actor.accept(&what, &error, &[]),
        }
    }

    /// As many wait with the others as it takes for one of them to pass.
    async fn help(&self, test: &Test, sure: &Stm) -> Result<()> {
        let barrier = sure.barrier(&self.key, self.parties)?;
        let fill = || async {
            loop {
                self.wait(&test.world, &barrier).await?;
                sleep(PAUSE).await;
            }
        };
        try_join_all((1..self.parties).map(|_| fill())).await.map(drop::<Vec<()>>)
    }

    /// With all gone, as many as it takes pass. The first of them may still meet some who are about to go away, or have died.
    async fn check(&self, test: &Test, sure: &Stm) -> Result<()> {
        let barrier = sure.barrier(&self.key, self.parties)?;
        let passed = AtomicU32::new(0);
        let pass = || async {
            let mut own = false;
            while passed.load(Ordering::Relaxed) < self.parties {
                if self.wait(&test.world, &barrier).await? && !own {
                    own = true;
                    passed.fetch_add(1, Ordering::Relaxed);
                }
                // Where all pass at once, time would stand still for those who wait for it.
                sleep(PAUSE).await;
            }
            Ok(())
        };
        match timeout(test.patience() + FILLING, try_join_all((0..self.parties).map(|_| pass()))).await {
            Ok(done) => done.map(drop::<Vec<()>>),
            Err(_) => {
                test.world.violation(format!("left: {} does not open for {}", self.key, self.parties));
                Ok(())
            }
        }
    }
}
