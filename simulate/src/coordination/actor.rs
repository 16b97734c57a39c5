use std::sync::Arc;
use std::time::Duration;

use avout_core::{Error, ErrorKind, Stm};
use tokio::time::{Instant, sleep};

use super::known::NO_FALSE_MISUSE;
use super::{Test, lock};
use crate::World;

/// Who does a step: one task of a client's process.
pub(super) struct Actor {
    pub(super) test: Arc<Test>,
    pub(super) stm: Stm,
    pub(super) client: usize,
}

/// What somebody is about to do.
pub(super) struct Doing {
    pub(super) client: usize,
    pub(super) what: String,
    pub(super) since: Instant,
    /// How long it may take when no fault happens any more.
    pub(super) limit: Duration,
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
