//! Scenes, those who act in them, and what they share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::{Error, ErrorKind, Result, Stm};
use tokio::time::{Instant, sleep};

use super::known::NO_FALSE_MISUSE;
use crate::World;
use crate::progress::Progress;

/// Something to be coordinated.
#[async_trait]
pub(super) trait Scene: Send + Sync {
    /// One thing that a client does with it.
    async fn step(&self, actor: &Actor);

    /// Gives those what they wait for who only can have it from others. It begins with the end of all faults, and is stopped when
    /// all clients have done their steps.
    async fn help(&self, _test: &Test, _sure: &Stm) -> Result<()> {
        Ok(())
    }

    /// What must hold when all steps are done and no request is on its way. The clients are still there.
    async fn check(&self, test: &Test, sure: &Stm) -> Result<()>;
}

/// What all clients of one schedule share.
pub(super) struct Test {
    pub(super) world: World,
    pub(super) scenes: Vec<Arc<dyn Scene>>,
    pub(super) lanes: Mutex<Vec<Lane>>,
    pub(super) doing: Mutex<Doings>,
    /// Which clients have done all steps.
    pub(super) done: Progress<Vec<bool>>,
    pub(super) stopped: Progress<bool>,
}

/// What one client does one after the other.
#[derive(Clone)]
pub(super) struct Lane {
    pub(super) client: usize,
    pub(super) scene: Arc<dyn Scene>,
    /// A step in which the client dies is not done again.
    pub(super) steps: u64,
}

/// What everybody is about to do.
#[derive(Default)]
pub(super) struct Doings {
    pub(super) next: u64,
    pub(super) now: BTreeMap<u64, Doing>,
}

/// What somebody is about to do.
pub(super) struct Doing {
    pub(super) client: usize,
    pub(super) what: String,
    pub(super) since: Instant,
    /// How long it may take when no fault happens any more.
    pub(super) limit: Duration,
}

/// Who does a step: one task of a client's process.
pub(super) struct Actor {
    pub(super) test: Arc<Test>,
    pub(super) stm: Stm,
    pub(super) client: usize,
}

impl Test {
    pub(super) fn takes_step(&self, lane: usize) -> bool {
        let steps = &mut lock(&self.lanes)[lane].steps;
        let left = *steps > 0;
        *steps = steps.saturating_sub(1);
        left
    }

    /// Who has waited for too long since all faults were over.
    pub(super) fn stuck(&self, healed: Instant) -> Option<String> {
        let now = Instant::now();
        let doing = lock(&self.doing);
        let late = doing.now.values().find(|doing| now > doing.since.max(healed) + doing.limit)?;
        Some(format!(
            "client {} {} for more than {:?}, and all faults are over",
            late.client + 1,
            late.what,
            late.limit
        ))
    }

    /// How long anybody may wait after the last fault for what others have to let go of or to take over: some of them stand still
    /// for twice a time to live, or died.
    pub(super) fn patience(&self) -> Duration {
        self.world.knobs().session_ttl * 6 + Duration::from_secs(15)
    }
}

impl Actor {
    pub(super) fn world(&self) -> &World {
        &self.test.world
    }

    pub(super) fn tell(&self, line: impl FnOnce() -> String) {
        self.world().tell(|| format!("client {} {}", self.client + 1, line()));
    }

    /// Does nothing for a while of at most so many milliseconds.
    pub(super) async fn rest(&self, longest: u64) {
        sleep(self.draw_millis(longest)).await;
    }

    pub(super) fn draw_millis(&self, longest: u64) -> Duration {
        Duration::from_millis(self.world().draw(longest + 1))
    }

    /// Waits for something, which may take no longer than the schedule's patience once all faults are over.
    pub(super) async fn wait<T>(&self, what: &str, for_it: impl Future<Output = T>) -> T {
        self.wait_longer(what, Duration::ZERO, for_it).await
    }

    /// The same with so much more patience.
    pub(super) async fn wait_longer<T>(&self, what: &str, more: Duration, for_it: impl Future<Output = T>) -> T {
        self.tell(|| what.to_owned());
        let doing = Doing {
            client: self.client,
            what: what.to_owned(),
            since: Instant::now(),
            limit: self.test.patience() + more,
        };
        let number = {
            let mut doings = lock(&self.test.doing);
            doings.next += 1;
            let number = doings.next;
            doings.now.insert(number, doing);
            number
        };
        let _listed = Listed { test: &self.test, number };
        for_it.await
    }

    /// Takes an error that faults explain, or that is one of `allowed`. All else is a failure of the schedule.
    pub(super) fn accept(&self, what: &str, error: &Error, allowed: &[ErrorKind]) {
        let faults = [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown, ErrorKind::Contended];
        let kind = error.kind();
        self.tell(|| format!("{what}: {kind:?}: {error}"));
        let known = kind == ErrorKind::Misuse && !NO_FALSE_MISUSE;
        if !faults.contains(&kind) && !allowed.contains(&kind) && !known {
            self.world().violation(format!("unexpected error: {what}: {kind:?}: {error}"));
        }
    }
}

/// That something is being done. It is not any more when this is dropped, as when the client is killed.
struct Listed<'a> {
    test: &'a Test,
    number: u64,
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.test.doing).now.remove(&self.number);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
