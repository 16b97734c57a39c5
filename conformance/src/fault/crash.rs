use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{
    CasOutcome, Coordinator, CoordinatorCapabilities, Kind, Page, Sessions, StateContainer, Store, StoreCapabilities,
    VersionedStateContainer, Wake, Watcher,
};
use avout_core::protocol::{Commit, CommitOutcome, Realm, Resolution, SessionId, Snapshot, State, Version};
use avout_core::{Error, ErrorKind, Key, Point, Result, Revision};
use bytes::Bytes;
use tokio::sync::watch;

/// On which side of the fatal call's effect the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The call has no effect.
    Before,
    /// The call has its effect, and no one learns of it.
    After,
}

/// What the caller sees of the death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// The call, and each one after it, never returns.
    Hang,
    /// They answer with an error of this kind.
    Fail(ErrorKind),
}

/// The call at which a process dies. All wrappers that share it are one process.
#[derive(Clone, Debug)]
pub struct CrashPoint(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    at: u64,
    moment: Moment,
    death: Death,
    calls: AtomicU64,
    crashed: watch::Sender<bool>,
}

impl CrashPoint {
    /// Dies at call number `at`, counted from 1 over all wrappers that share this.
    pub fn new(at: u64, moment: Moment, death: Death) -> Self {
        Self(Arc::new(Inner { at, moment, death, calls: AtomicU64::new(0), crashed: watch::Sender::new(false) }))
    }

    /// Never dies, and only counts. A first run with this tells which calls there are to die at.
    pub fn never() -> Self {
        Self::new(0, Moment::Before, Death::Hang)
    }

    /// How many calls were made. Those after the death count too.
    pub fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// Whether the process is dead.
    pub fn has_crashed(&self) -> bool {
        *self.0.crashed.borrow()
    }

    /// Waits until the process is dead. With [`Moment::After`] the fatal call has had its effect then.
    pub async fn crashed(&self) {
        let mut crashed = self.0.crashed.subscribe();
        // The sender lives as long as this does.
        let _ = crashed.wait_for(|crashed| *crashed).await;
    }

    async fn die<T>(&self) -> Result<T> {
        self.0.crashed.send_replace(true);
        match self.0.death {
            Death::Hang => std::future::pending().await,
            Death::Fail(kind) => Err(Error::new(kind, "the process died here, by plan")),
        }
    }

    /// Makes a call, or dies at it.
    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if self.0.at == 0 || number < self.0.at {
            return call.await;
        }
        if number == self.0.at && self.0.moment == Moment::After {
            drop(call.await);
        }
        self.die().await
    }
}

/// A coordinator of a process that dies at a chosen call.
pub struct CrashAt {
    inner: Arc<dyn Coordinator>,
    point: CrashPoint,
}

impl CrashAt {
    /// The coordinator of the process that dies at `point`.
    pub fn new(inner: Arc<dyn Coordinator>, point: CrashPoint) -> Self {
        Self { inner, point }
    }
}

#[async_trait]
impl Coordinator for CrashAt {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        self.inner.capabilities()
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.point.call(self.inner.read(keys, at)).await
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        self.point.call(self.inner.commit(commit)).await
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.point.call(self.inner.resolve(receipt)).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let inner = self.point.call(self.inner.watch(keys)).await?;
        Ok(Box::new(CrashingWatcher { inner, point: self.point.clone() }))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions().map(|_| self as &dyn Sessions)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.point.call(self.inner.list(prefix, after)).await
    }
}

#[async_trait]
impl Sessions for CrashAt {
    fn min_ttl(&self) -> Duration {
        self.inner.sessions().map_or(Duration::ZERO, Sessions::min_ttl)
    }

    async fn begin(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.point.call(async { native(&self.inner)?.begin(session, ttl).await }).await
    }

    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.point.call(async { native(&self.inner)?.renew(session, ttl).await }).await
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        self.point.call(async { native(&self.inner)?.alive(sessions).await }).await
    }

    async fn end(&self, session: SessionId) -> Result<()> {
        self.point.call(async { native(&self.inner)?.end(session).await }).await
    }
}

/// The sessions of a coordinator that was asked before whether it has any.
pub(crate) fn native(coordinator: &Arc<dyn Coordinator>) -> Result<&dyn Sessions> {
    coordinator.sessions().ok_or_else(|| Error::new(ErrorKind::Unsupported, "it has no sessions of its own"))
}

/// A watcher of a process that dies. Waiting is no call, and so not counted, but ends with the process.
struct CrashingWatcher {
    inner: Box<dyn Watcher>,
    point: CrashPoint,
}

#[async_trait]
impl Watcher for CrashingWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        tokio::select! {
            biased;
            () = self.point.crashed() => self.point.die().await,
            wake = self.inner.changed() => wake,
        }
    }
}

/// A store of a process that dies at a chosen call.
pub struct CrashAtStore {
    inner: Arc<dyn Store>,
    point: CrashPoint,
}

impl CrashAtStore {
    /// The store of the process that dies at `point`.
    pub fn new(inner: Arc<dyn Store>, point: CrashPoint) -> Self {
        Self { inner, point }
    }
}

#[async_trait]
impl Store for CrashAtStore {
    fn realm(&self) -> Realm {
        self.inner.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Container { inner: self.inner.state(key), point: self.point.clone() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Container { inner: self.inner.versioned_state(key), point: self.point.clone() })
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.point.call(self.inner.keys(kind, prefix, after)).await
    }

    async fn delete_states_at(&self, values: &[(Key, Version)]) -> Result<()> {
        self.point.call(self.inner.delete_states_at(values)).await
    }
}

struct Container<C: ?Sized> {
    inner: Arc<C>,
    point: CrashPoint,
}

#[async_trait]
impl StateContainer for Container<dyn StateContainer> {
    async fn init(&self) -> Result<()> {
        self.point.call(self.inner.init()).await
    }

    async fn destroy(&self) -> Result<()> {
        self.point.call(self.inner.destroy()).await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.point.call(self.inner.state()).await
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        self.point.call(self.inner.set_state(value)).await
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        self.point.call(self.inner.compare_and_set_state(expected, value)).await
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let inner = self.point.call(self.inner.watch()).await?;
        Ok(Box::new(CrashingWatcher { inner, point: self.point.clone() }))
    }
}

#[async_trait]
impl VersionedStateContainer for Container<dyn VersionedStateContainer> {
    async fn init(&self) -> Result<()> {
        self.point.call(self.inner.init()).await
    }

    async fn destroy(&self) -> Result<()> {
        self.point.call(self.inner.destroy()).await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        self.point.call(self.inner.state_at(version)).await
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        self.point.call(self.inner.set_state_at(version, value)).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.point.call(self.inner.delete_state_at(version)).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        self.point.call(self.inner.versions()).await
    }
}
