//! Points of a commit at which a client process dies, stops or waits: wrappers around the coordinator and the stores.
//!
//! Each commit passes the four points in turn, and each write of an atom those that it has: it is its own value write and commit, so it
//! does not pass [`BetweenValueWriteAndCommit`](Failpoint::BetweenValueWriteAndCommit).

use std::fmt;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use avout::backend::history::Losses;
use avout::backend::{
    CasOutcome, Connection, Coordinator, CoordinatorCapabilities, Kind, Page, Sessions, StateContainer, Store,
    StoreCapabilities, VersionedStateContainer, Watcher,
};
use avout::protocol::{Commit, CommitOutcome, Put, Realm, Resolution, Snapshot, State, Version};
use avout::{Key, Payload, Point, Result, Revision};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

/// For how long a request may have been under way when something happens to it: most replies come sooner.
const IN_FLIGHT: Duration = Duration::from_millis(3);

/// A point of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failpoint {
    /// Nothing has been written.
    BeforeValueWrite,
    /// Values are in their stores, and nothing points at them.
    BetweenValueWriteAndCommit,
    /// The request to commit is under way, or done, and the client has not taken notice of a reply.
    CommitInFlight,
    /// The commit took effect. Nothing is removed before the client goes on.
    BetweenCommitAndCleanUp,
}

impl Failpoint {
    /// All of them, in the order in which a transaction passes them.
    pub(crate) const ALL: [Self; 4] =
        [Self::BeforeValueWrite, Self::BetweenValueWriteAndCommit, Self::CommitInFlight, Self::BetweenCommitAndCleanUp];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::BeforeValueWrite => "before-value-write",
            Self::BetweenValueWriteAndCommit => "between-value-write-and-commit",
            Self::CommitInFlight => "commit-in-flight",
            Self::BetweenCommitAndCleanUp => "between-commit-and-clean-up",
        }
    }
}

impl fmt::Display for Failpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Failpoint {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|point| point.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{name}` is no failpoint: there are {names}")
        })
    }
}

/// What the request that came to a point waits for.
pub(crate) type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Asked at each point: `Some` is waited for there, and `None` lets the request pass.
pub(crate) type Hook = Arc<dyn Fn(Failpoint) -> Option<Wait> + Send + Sync>;

/// Where a client can be stopped.
#[derive(Clone)]
struct Points(Hook);

impl Points {
    async fn reach(&self, point: Failpoint) {
        if let Some(wait) = (self.0)(point) {
            wait.await;
        }
    }

    /// Sends a request, which is its first poll, with the point [`Failpoint::CommitInFlight`] after a random short while. Nobody
    /// looks at the reply as long as the request waits there.
    async fn in_flight<T>(&self, request: impl Future<Output = T>) -> T {
        let Some(wait) = (self.0)(Failpoint::CommitInFlight) else {
            return request.await;
        };
        let mut request = pin!(request);
        let early = timeout(IN_FLIGHT.mul_f64(rand::random()), &mut request).await.ok();
        wait.await;
        match early {
            Some(reply) => reply,
            None => request.await,
        }
    }
}

/// A coordinator whose commits pass the points.
pub(crate) struct Failing {
    inner: Arc<dyn Coordinator>,
    points: Points,
}

impl Failing {
    pub(crate) fn new(inner: Arc<dyn Coordinator>, hook: &Hook) -> Self {
        Self { inner, points: Points(Arc::clone(hook)) }
    }
}

#[async_trait]
impl Coordinator for Failing {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        self.inner.capabilities()
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.inner.read(keys, at).await
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        // Reservations, slots and what a sweep removes are no commits of a transaction.
        let is_write = |put: &Put| !put.key.as_str().starts_with("/.avout/") && put.record.reservation.is_none();
        if !commit.puts.iter().any(is_write) {
            return self.inner.commit(commit).await;
        }
        // Where a value lies in a store, its own write has passed the first point.
        if !commit.puts.iter().any(|put| matches!(put.record.payload, Payload::Stored { .. })) {
            self.points.reach(Failpoint::BeforeValueWrite).await;
        }
        self.points.reach(Failpoint::BetweenValueWriteAndCommit).await;
        let done = self.points.in_flight(self.inner.commit(commit)).await;
        if matches!(done, Ok(CommitOutcome::Committed(_))) {
            self.points.reach(Failpoint::BetweenCommitAndCleanUp).await;
        }
        done
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        self.inner.watch(keys).await
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions()
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.inner.connection()
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.list(prefix, after).await
    }
}

/// A store whose writes pass the points.
pub(crate) struct FailingStore {
    inner: Arc<dyn Store>,
    points: Points,
}

impl FailingStore {
    pub(crate) fn new(inner: Arc<dyn Store>, hook: &Hook) -> Self {
        Self { inner, points: Points(Arc::clone(hook)) }
    }
}

#[async_trait]
impl Store for FailingStore {
    fn realm(&self) -> Realm {
        self.inner.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Container { inner: self.inner.state(key), points: self.points.clone() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Container { inner: self.inner.versioned_state(key), points: self.points.clone() })
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.inner.connection()
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.keys(kind, prefix, after).await
    }

    async fn delete_states_at(&self, values: &[(Key, Version)]) -> Result<()> {
        self.inner.delete_states_at(values).await
    }
}

struct Container<C: ?Sized> {
    inner: Arc<C>,
    points: Points,
}

#[async_trait]
impl StateContainer for Container<dyn StateContainer> {
    async fn init(&self) -> Result<()> {
        self.inner.init().await
    }

    async fn destroy(&self) -> Result<()> {
        self.inner.destroy().await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.inner.state().await
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        self.inner.set_state(value).await
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        self.points.reach(Failpoint::BeforeValueWrite).await;
        let done = self.points.in_flight(self.inner.compare_and_set_state(expected, value)).await;
        if matches!(done, Ok(CasOutcome::Set(_))) {
            self.points.reach(Failpoint::BetweenCommitAndCleanUp).await;
        }
        done
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        self.inner.watch().await
    }
}

#[async_trait]
impl VersionedStateContainer for Container<dyn VersionedStateContainer> {
    async fn init(&self) -> Result<()> {
        self.inner.init().await
    }

    async fn destroy(&self) -> Result<()> {
        self.inner.destroy().await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        self.inner.state_at(version).await
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        self.points.reach(Failpoint::BeforeValueWrite).await;
        self.inner.set_state_at(version, value).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.inner.delete_state_at(version).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        self.inner.versions().await
    }
}
