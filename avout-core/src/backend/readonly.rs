//! Keeps a client that was opened to read only from writing: no write gets past this layer, whatever part of the
//! library asks for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::history::Losses;
use super::{
    CasOutcome, Connection, Coordinator, CoordinatorCapabilities, Kind, Page, Sessions, StateContainer, Store,
    StoreCapabilities, VersionedStateContainer, Watcher,
};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{
    Commit, CommitOutcome, Key, Point, Realm, Resolution, Revision, SessionId, Snapshot, State, Version,
};

/// The error of a write in a client that only reads. Nothing was sent.
pub(crate) fn refuse<T>() -> Result<T> {
    let message = "this client only reads (readonly=true): nothing was sent; write by one that was opened without";
    Err(Error::new(ErrorKind::Denied, message))
}

/// A coordinator, a store or a container, without its writing methods.
pub(crate) struct ReadOnly<T: ?Sized>(pub(crate) Arc<T>);

impl ReadOnly<dyn Store> {
    /// The store without its writing methods.
    pub(crate) fn store(store: Arc<dyn Store>) -> Arc<dyn Store> {
        Arc::new(Self(store))
    }
}

#[async_trait]
impl Coordinator for ReadOnly<dyn Coordinator> {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        self.0.capabilities()
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.0.read(keys, at).await
    }

    fn read_now(&self, keys: &[Key]) -> Option<Snapshot> {
        self.0.read_now(keys)
    }

    async fn commit(&self, _commit: &Commit) -> Result<CommitOutcome> {
        refuse()
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.0.entry_point(revision, committed)
    }

    /// Resolving is refused too: it may write, so that the answer stays.
    async fn resolve(&self, _receipt: &Bytes) -> Result<Resolution> {
        refuse()
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        self.0.watch(keys).await
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.0.sessions().map(|_| self as &dyn Sessions)
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.0.losses()
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.0.connection()
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.0.list(prefix, after).await
    }
}

#[async_trait]
impl Sessions for ReadOnly<dyn Coordinator> {
    fn min_ttl(&self) -> Duration {
        self.0.sessions().map_or(Duration::ZERO, Sessions::min_ttl)
    }

    async fn renew(&self, _session: SessionId, _ttl: Duration) -> Result<bool> {
        refuse()
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        match self.0.sessions() {
            Some(native) => native.alive(sessions).await,
            None => Ok(vec![false; sessions.len()]),
        }
    }

    async fn end(&self, _session: SessionId) -> Result<()> {
        refuse()
    }
}

#[async_trait]
impl Store for ReadOnly<dyn Store> {
    fn realm(&self) -> Realm {
        self.0.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.0.capabilities()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(ReadOnly(self.0.state(key)))
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(ReadOnly(self.0.versioned_state(key)))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.0.losses()
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        self.0.connection()
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.0.keys(kind, prefix, after).await
    }

    async fn delete_states_at(&self, _values: &[(Key, Version)]) -> Result<()> {
        refuse()
    }
}

#[async_trait]
impl StateContainer for ReadOnly<dyn StateContainer> {
    async fn init(&self) -> Result<()> {
        refuse()
    }

    async fn destroy(&self) -> Result<()> {
        refuse()
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.0.state().await
    }

    async fn set_state(&self, _value: State) -> Result<Revision> {
        refuse()
    }

    async fn compare_and_set_state(&self, _expected: Option<Revision>, _value: State) -> Result<CasOutcome> {
        refuse()
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        self.0.watch().await
    }
}

#[async_trait]
impl VersionedStateContainer for ReadOnly<dyn VersionedStateContainer> {
    async fn init(&self) -> Result<()> {
        refuse()
    }

    async fn destroy(&self) -> Result<()> {
        refuse()
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        self.0.state_at(version).await
    }

    async fn set_state_at(&self, _version: &Version, _value: State) -> Result<()> {
        refuse()
    }

    async fn delete_state_at(&self, _version: &Version) -> Result<()> {
        refuse()
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        self.0.versions().await
    }
}
