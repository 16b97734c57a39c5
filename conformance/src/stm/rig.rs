use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{Coordinator, CoordinatorCapabilities, Page, Sessions, Wake, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Conflict, Resolution, SessionId, Snapshot};
use avout_core::{Error, ErrorKind, Key, Point, Result, Revision};
use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::fault::native;

/// What becomes of calls of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Then {
    /// They are made.
    #[default]
    Pass,
    /// They answer with an error of this kind and are not made.
    Fail(ErrorKind),
    /// They never return and are not made.
    Hang,
}

impl Then {
    pub(super) async fn allow(self) -> Result<()> {
        match self {
            Self::Pass => Ok(()),
            Self::Fail(kind) => Err(Error::new(kind, "refused, by plan")),
            Self::Hang => std::future::pending().await,
        }
    }
}

#[derive(Default)]
struct Rules {
    reads: Then,
    commits: Then,
    reservations: Then,
    watches: Then,
    hints: Then,
    poisoned: Option<Key>,
    after_read: Option<BoxFuture<'static, ()>>,
    before_commit: Option<BoxFuture<'static, ()>>,
    copied: Option<BoxFuture<'static, ()>>,
    after_lost: Option<BoxFuture<'static, ()>>,
}

/// A coordinator whose calls a law can hold up, refuse or interrupt, and whose capabilities it can lessen.
pub(crate) struct Rigged {
    inner: Arc<dyn Coordinator>,
    capabilities: CoordinatorCapabilities,
    fresh: bool,
    yields: bool,
    commit_time: Duration,
    /// Watchers lose every event, and say so when this is set.
    deaf: bool,
    lost: Arc<tokio::sync::Notify>,
    rules: Arc<Mutex<Rules>>,
    calls: Arc<AtomicU64>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A page as it would be if lists were read a few keys at a time.
pub(super) fn cut(mut page: Page) -> Page {
    const KEYS: usize = 5;
    page.more |= page.keys.len() > KEYS;
    page.keys.truncate(KEYS);
    page
}

impl Rigged {
    /// Changes nothing yet, but that lists come in small pages.
    pub(crate) fn new(inner: Arc<dyn Coordinator>) -> Self {
        Self {
            capabilities: inner.capabilities().clone(),
            inner,
            fresh: true,
            yields: false,
            commit_time: Duration::ZERO,
            deaf: false,
            lost: Arc::default(),
            rules: Arc::default(),
            calls: Arc::default(),
        }
    }

    /// As if it were outside the process, and took values of at most `max_inline` bytes into its records.
    pub(crate) fn small(mut self, max_inline: usize) -> Self {
        self.capabilities.in_process = false;
        self.capabilities.max_inline = max_inline.min(self.capabilities.max_inline);
        self
    }

    /// As if it took at most these many keys and bytes.
    pub(crate) fn limited(mut self, max_keys: usize, max_record: usize, max_commit: usize) -> Self {
        self.capabilities.in_process = false;
        self.capabilities.max_keys = max_keys;
        self.capabilities.max_record = max_record;
        self.capabilities.max_commit = max_commit;
        self
    }

    /// As if it could not tell the outcome of a lost reply, nor a revision from an older one.
    pub(crate) fn plain(mut self) -> Self {
        self.capabilities.definite_replies = false;
        self.capabilities.unique_revisions = false;
        self
    }

    /// Conflicts carry no fresh entries.
    pub(crate) fn stale(mut self) -> Self {
        self.fresh = false;
        self
    }

    /// Yields before and after each call, so that there are moments in between to be dropped at.
    pub(crate) fn yielding(mut self) -> Self {
        self.yields = true;
        self
    }

    /// Each commit takes this long, at least.
    pub(crate) fn slow(mut self, commit_time: Duration) -> Self {
        self.commit_time = commit_time;
        self
    }

    /// Its watchers hear of no change until [`say_lost`](Self::say_lost).
    pub(crate) fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// Tells a watcher that changes may have gone by unseen.
    pub(crate) fn say_lost(&self) {
        self.lost.notify_one();
    }

    pub(crate) fn reads(&self, then: Then) {
        lock(&self.rules).reads = then;
    }

    pub(crate) fn commits(&self, then: Then) {
        lock(&self.rules).commits = then;
    }

    /// What becomes of commits that make or end reservations; others are made.
    pub(crate) fn reservations(&self, then: Then) {
        lock(&self.rules).reservations = then;
    }

    pub(crate) fn watches(&self, then: Then) {
        lock(&self.rules).watches = then;
    }

    /// What becomes of all calls, as if the process were paused or cut off.
    pub(crate) fn all(&self, then: Then) {
        let mut rules = lock(&self.rules);
        (rules.reads, rules.commits, rules.watches, rules.hints) = (then, then, then, then);
    }

    /// What becomes of a watcher's wait for its next hint.
    pub(crate) fn hints(&self, then: Then) {
        lock(&self.rules).hints = then;
    }

    /// Reads of this key, together with others or alone, say that its record is corrupt.
    pub(crate) fn poison(&self, key: Option<Key>) {
        lock(&self.rules).poisoned = key;
    }

    /// Does this when the next read was made, before its reply.
    pub(crate) fn after_read(&self, then: impl Future<Output = ()> + Send + 'static) {
        lock(&self.rules).after_read = Some(Box::pin(then));
    }

    /// Does this when the next commit is sent, before it is made.
    pub(crate) fn before_commit(&self, then: impl Future<Output = ()> + Send + 'static) {
        lock(&self.rules).before_commit = Some(Box::pin(then));
    }

    /// Makes the next commit twice, with this in between, and gives the second answer.
    pub(crate) fn copied(&self, then: impl Future<Output = ()> + Send + 'static) {
        lock(&self.rules).copied = Some(Box::pin(then));
    }

    /// Does this when the next commit's outcome is unknown, before that is told.
    pub(crate) fn after_lost(&self, then: impl Future<Output = ()> + Send + 'static) {
        lock(&self.rules).after_lost = Some(Box::pin(then));
    }

    /// How many calls were made so far.
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn step(&self) {
        if self.yields {
            tokio::task::yield_now().await;
        }
    }

    async fn call<T>(&self, then: Then, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.step().await;
        then.allow().await?;
        let done = call.await;
        self.step().await;
        done
    }
}

#[async_trait]
impl Coordinator for Rigged {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        let (then, poisoned, after) = {
            let mut rules = lock(&self.rules);
            (rules.reads, rules.poisoned.clone(), rules.after_read.take())
        };
        if let Some(key) = poisoned.filter(|key| keys.contains(key)) {
            self.calls.fetch_add(1, Ordering::SeqCst);
            return Err(Error::new(ErrorKind::Corrupt, "a record that cannot be read, by plan").at(&key));
        }
        let read = self.call(then, self.inner.read(keys, at)).await;
        if let Some(after) = after {
            after.await;
        }
        read
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let reserves = commit.puts.iter().any(|put| put.record.reservation.is_some());
        let (then, before, copied) = {
            let mut rules = lock(&self.rules);
            let then = if reserves && rules.commits == Then::Pass { rules.reservations } else { rules.commits };
            (then, rules.before_commit.take(), rules.copied.take())
        };
        if let Some(before) = before {
            before.await;
        }
        if !self.commit_time.is_zero() {
            tokio::time::sleep(self.commit_time).await;
        }
        if let Some(between) = copied {
            self.inner.commit(commit).await?;
            between.await;
            self.inner.commit(commit).await?;
            let stale = commit.puts.iter().map(|put| put.key.clone()).collect();
            return Ok(CommitOutcome::Conflict(Conflict { stale, fresh: None }));
        }
        let done = self.call(then, self.inner.commit(commit)).await;
        let lost = done.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown);
        let after = if lost { lock(&self.rules).after_lost.take() } else { None };
        if let Some(after) = after {
            after.await;
        }
        let mut outcome = done?;
        if let CommitOutcome::Conflict(conflict) = &mut outcome
            && !self.fresh
        {
            conflict.fresh = None;
        }
        Ok(outcome)
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.call(Then::Pass, self.inner.resolve(receipt)).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let then = lock(&self.rules).watches;
        let inner = self.call(then, self.inner.watch(keys)).await?;
        let (rules, lost) = (Arc::clone(&self.rules), Arc::clone(&self.lost));
        Ok(Box::new(RiggedWatcher { inner, rules, lost: self.deaf.then_some(lost) }))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions().map(|_| self as &dyn Sessions)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let then = lock(&self.rules).reads;
        Ok(cut(self.call(then, self.inner.list(prefix, after)).await?))
    }
}

/// A sign of life fares as a commit does.
#[async_trait]
impl Sessions for Rigged {
    fn min_ttl(&self) -> Duration {
        self.inner.sessions().map_or(Duration::ZERO, Sessions::min_ttl)
    }

    async fn begin(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        let then = lock(&self.rules).commits;
        self.call(then, async { native(&self.inner)?.begin(session, ttl).await }).await
    }

    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        let then = lock(&self.rules).commits;
        self.call(then, async { native(&self.inner)?.renew(session, ttl).await }).await
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        let then = lock(&self.rules).reads;
        self.call(then, async { native(&self.inner)?.alive(sessions).await }).await
    }

    async fn end(&self, session: SessionId) -> Result<()> {
        let then = lock(&self.rules).commits;
        self.call(then, async { native(&self.inner)?.end(session).await }).await
    }
}

struct RiggedWatcher {
    inner: Box<dyn Watcher>,
    rules: Arc<Mutex<Rules>>,
    /// Set for one that hears nothing else.
    lost: Option<Arc<tokio::sync::Notify>>,
}

#[async_trait]
impl Watcher for RiggedWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        let then = lock(&self.rules).hints;
        then.allow().await?;
        match &self.lost {
            None => self.inner.changed().await,
            Some(lost) => {
                lost.notified().await;
                Ok(Wake::Lost)
            }
        }
    }
}
