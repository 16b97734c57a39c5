use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{Coordinator, CoordinatorCapabilities, Page, Sessions, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Resolution, Snapshot};
use avout_core::{Error, ErrorKind, Key, Point, Result, Revision};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;

/// What becomes of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Nothing: it is sent and its reply comes.
    None,
    /// The request is lost: it never takes effect.
    BeforeApplied,
    /// The reply is lost: it took effect, or conflicted, and the caller does not know.
    AfterApplied,
    /// The request is late: the caller is told that the outcome is unknown, and it is applied this much later.
    Delayed(Duration),
    /// The request is held back until [`LossyReplies::deliver`].
    Held,
}

/// What becomes of which commit.
#[derive(Debug)]
pub struct LossPlan(Plan);

#[derive(Debug)]
enum Plan {
    Listed(VecDeque<Loss>),
    Drawn { rng: Box<StdRng>, probability: f64, longest_delay: Duration },
}

impl LossPlan {
    /// The first commits fare as listed, and all later ones well.
    pub fn listed(losses: impl IntoIterator<Item = Loss>) -> Self {
        Self(Plan::Listed(losses.into_iter().collect()))
    }

    /// Each commit is lost with this probability, in one of the three ways: before it is applied, after
    /// it, or delayed by at most `longest_delay`. The same seed draws the same.
    pub fn drawn(seed: u64, probability: f64, longest_delay: Duration) -> Self {
        Self(Plan::Drawn { rng: Box::new(StdRng::seed_from_u64(seed)), probability, longest_delay })
    }

    fn next(&mut self) -> Loss {
        match &mut self.0 {
            Plan::Listed(losses) => losses.pop_front().unwrap_or(Loss::None),
            Plan::Drawn { rng, probability, longest_delay } => {
                if !rng.random_bool(*probability) {
                    return Loss::None;
                }
                match rng.random_range(0..3) {
                    0 => Loss::BeforeApplied,
                    1 => Loss::AfterApplied,
                    _ => Loss::Delayed(longest_delay.mul_f64(rng.random())),
                }
            }
        }
    }
}

/// A coordinator whose replies to commits can be lost.
///
/// It claims no `definite_replies`, so that the engine uses slots, and answers a lost commit with
/// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) and no receipt. Reads and all else pass through. Requests that are
/// still late when it is dropped are never applied.
pub struct LossyReplies {
    inner: Arc<dyn Coordinator>,
    capabilities: CoordinatorCapabilities,
    plan: Mutex<LossPlan>,
    held: Mutex<Vec<Commit>>,
    late: Mutex<JoinSet<()>>,
    lost: std::sync::atomic::AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LossyReplies {
    /// Loses replies of `inner` by `plan`.
    pub fn new(inner: Arc<dyn Coordinator>, plan: LossPlan) -> Self {
        let mut capabilities = inner.capabilities().clone();
        capabilities.definite_replies = false;
        Self {
            inner,
            capabilities,
            plan: Mutex::new(plan),
            held: Mutex::default(),
            late: Mutex::default(),
            lost: Default::default(),
        }
    }

    /// How many commits were answered with an unknown outcome.
    pub fn lost(&self) -> u64 {
        self.lost.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Applies the requests that were held back, in the order they were sent, and gives how each one ended.
    ///
    /// # Errors
    /// The first error of the coordinator. The requests behind it are applied too.
    pub async fn deliver(&self) -> Result<Vec<CommitOutcome>> {
        let held = std::mem::take(&mut *lock(&self.held));
        let mut outcomes = Vec::new();
        for commit in &held {
            outcomes.push(self.inner.commit(commit).await);
        }
        outcomes.into_iter().collect()
    }

    /// Waits until no request is late any more.
    pub async fn settle(&self) {
        let mut late = std::mem::take(&mut *lock(&self.late));
        while late.join_next().await.is_some() {}
    }

    fn unknown(&self) -> Error {
        self.lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Error::new(ErrorKind::OutcomeUnknown, "the reply was lost, by plan").during("commit")
    }
}

#[async_trait]
impl Coordinator for LossyReplies {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.inner.read(keys, at).await
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let loss = lock(&self.plan).next();
        match loss {
            Loss::None => return self.inner.commit(commit).await,
            Loss::BeforeApplied => {}
            Loss::AfterApplied => drop(self.inner.commit(commit).await),
            Loss::Held => lock(&self.held).push(commit.clone()),
            Loss::Delayed(delay) => {
                let (inner, commit) = (Arc::clone(&self.inner), commit.clone());
                lock(&self.late).spawn(async move {
                    tokio::time::sleep(delay).await;
                    // Its outcome is nobody's any more.
                    drop(inner.commit(&commit).await);
                });
            }
        }
        Err(self.unknown())
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        self.inner.watch(keys).await
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions()
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.list(prefix, after).await
    }
}
