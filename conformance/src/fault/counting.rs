use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{
    CasOutcome, Coordinator, CoordinatorCapabilities, Kind, Page, Sessions, StateContainer, Store, StoreCapabilities,
    VersionedStateContainer, Watcher,
};
use avout_core::protocol::{Commit, CommitOutcome, Realm, Resolution, Snapshot, State, Version};
use avout_core::{Key, Point, Result, Revision};
use bytes::Bytes;

/// How many requests a coordinator was sent, by kind, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Calls of `read`.
    pub reads: u64,
    /// Calls of `commit`, conflicts among them.
    pub commits: u64,
    /// Commits that ended in a conflict.
    pub conflicts: u64,
    /// Calls of `watch`.
    pub watches: u64,
    /// Calls of `list`.
    pub lists: u64,
    /// Calls of `resolve`.
    pub resolves: u64,
    /// Keys that reads and commits named.
    pub keys: u64,
    /// Bytes of keys and encoded records that were sent.
    pub bytes_sent: u64,
    /// Bytes of encoded records that came back.
    pub bytes_received: u64,
}

impl Counts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.reads + self.commits + self.watches + self.lists + self.resolves
    }
}

macro_rules! tally {
    ($(#[$doc:meta])* $tally:ident -> $counts:ident { $($field:ident),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Default)]
        struct $tally { $($field: AtomicU64),+ }

        impl $tally {
            fn counts(&self) -> $counts {
                $counts { $($field: self.$field.load(Ordering::Relaxed)),+ }
            }

            fn take(&self) -> $counts {
                $counts { $($field: self.$field.swap(0, Ordering::Relaxed)),+ }
            }
        }
    };
}

tally! { Tally -> Counts { reads, commits, conflicts, watches, lists, resolves, keys, bytes_sent, bytes_received } }

fn add(counter: &AtomicU64, number: usize) {
    counter.fetch_add(number as u64, Ordering::Relaxed);
}

/// Counts what a coordinator is asked for.
pub struct Counting {
    inner: Arc<dyn Coordinator>,
    tally: Tally,
}

impl Counting {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Coordinator>) -> Self {
        Self { inner, tally: Tally::default() }
    }

    /// What was counted since it was made or last taken.
    pub fn counts(&self) -> Counts {
        self.tally.counts()
    }

    /// The same, and begins again from zero.
    pub fn take(&self) -> Counts {
        self.tally.take()
    }

    fn received(&self, snapshot: &Snapshot) {
        let records = snapshot.entries.iter().flatten().map(|entry| entry.record.encoded_size());
        add(&self.tally.bytes_received, records.sum());
    }
}

#[async_trait]
impl Coordinator for Counting {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        self.inner.capabilities()
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        add(&self.tally.reads, 1);
        add(&self.tally.keys, keys.len());
        add(&self.tally.bytes_sent, keys.iter().map(|key| key.as_str().len()).sum());
        let snapshot = self.inner.read(keys, at).await?;
        self.received(&snapshot);
        Ok(snapshot)
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        add(&self.tally.commits, 1);
        add(&self.tally.keys, commit.len());
        let keys: usize = commit.expectations().map(|(key, _)| key.as_str().len()).sum();
        let records: usize = commit.puts.iter().map(|put| put.record.encoded_size()).sum();
        add(&self.tally.bytes_sent, keys + records);
        let outcome = self.inner.commit(commit).await?;
        if let CommitOutcome::Conflict(conflict) = &outcome {
            add(&self.tally.conflicts, 1);
            conflict.fresh.iter().for_each(|fresh| self.received(fresh));
        }
        Ok(outcome)
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        add(&self.tally.resolves, 1);
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        add(&self.tally.watches, 1);
        self.inner.watch(keys).await
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions()
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        add(&self.tally.lists, 1);
        self.inner.list(prefix, after).await
    }
}

/// How many requests a store was sent, by kind, and how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreCounts {
    /// Calls of `init`, of either kind of container.
    pub inits: u64,
    /// Calls of `destroy`, of either kind of container.
    pub destroys: u64,
    /// Calls of `state`.
    pub state_reads: u64,
    /// Calls of `set_state` and `compare_and_set_state`.
    pub state_writes: u64,
    /// Calls of `watch`.
    pub watches: u64,
    /// Calls of `state_at`.
    pub value_reads: u64,
    /// Calls of `set_state_at`.
    pub value_writes: u64,
    /// Calls of `delete_state_at`.
    pub value_deletes: u64,
    /// Calls of `versions` and `keys`.
    pub lists: u64,
    /// Bytes of values that were sent.
    pub bytes_sent: u64,
    /// Bytes of values that came back.
    pub bytes_received: u64,
}

tally! { StoreTally -> StoreCounts {
    inits, destroys, state_reads, state_writes, watches, value_reads, value_writes, value_deletes, lists,
    bytes_sent, bytes_received,
} }

/// Counts what a store's containers are asked for.
pub struct CountingStore {
    inner: Arc<dyn Store>,
    tally: Arc<StoreTally>,
}

impl CountingStore {
    /// Counts from zero.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, tally: Arc::default() }
    }

    /// What was counted since it was made or last taken.
    pub fn counts(&self) -> StoreCounts {
        self.tally.counts()
    }

    /// The same, and begins again from zero.
    pub fn take(&self) -> StoreCounts {
        self.tally.take()
    }
}

#[async_trait]
impl Store for CountingStore {
    fn realm(&self) -> Realm {
        self.inner.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Container { inner: self.inner.state(key), tally: Arc::clone(&self.tally) })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Container { inner: self.inner.versioned_state(key), tally: Arc::clone(&self.tally) })
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        add(&self.tally.lists, 1);
        self.inner.keys(kind, prefix, after).await
    }

    async fn delete_states_at(&self, values: &[(Key, Version)]) -> Result<()> {
        add(&self.tally.value_deletes, values.len());
        self.inner.delete_states_at(values).await
    }
}

struct Container<C: ?Sized> {
    inner: Arc<C>,
    tally: Arc<StoreTally>,
}

#[async_trait]
impl StateContainer for Container<dyn StateContainer> {
    async fn init(&self) -> Result<()> {
        add(&self.tally.inits, 1);
        self.inner.init().await
    }

    async fn destroy(&self) -> Result<()> {
        add(&self.tally.destroys, 1);
        self.inner.destroy().await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        add(&self.tally.state_reads, 1);
        let found = self.inner.state().await?;
        add(&self.tally.bytes_received, found.as_ref().map_or(0, |(state, _)| state.size()));
        Ok(found)
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        add(&self.tally.state_writes, 1);
        add(&self.tally.bytes_sent, value.size());
        self.inner.set_state(value).await
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        add(&self.tally.state_writes, 1);
        add(&self.tally.bytes_sent, value.size());
        let outcome = self.inner.compare_and_set_state(expected, value).await?;
        if let CasOutcome::Stale(Some((found, _))) = &outcome {
            add(&self.tally.bytes_received, found.size());
        }
        Ok(outcome)
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        add(&self.tally.watches, 1);
        self.inner.watch().await
    }
}

#[async_trait]
impl VersionedStateContainer for Container<dyn VersionedStateContainer> {
    async fn init(&self) -> Result<()> {
        add(&self.tally.inits, 1);
        self.inner.init().await
    }

    async fn destroy(&self) -> Result<()> {
        add(&self.tally.destroys, 1);
        self.inner.destroy().await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        add(&self.tally.value_reads, 1);
        let found = self.inner.state_at(version).await?;
        add(&self.tally.bytes_received, found.as_ref().map_or(0, State::size));
        Ok(found)
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        add(&self.tally.value_writes, 1);
        add(&self.tally.bytes_sent, value.size());
        self.inner.set_state_at(version, value).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        add(&self.tally.value_deletes, 1);
        self.inner.delete_state_at(version).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        add(&self.tally.lists, 1);
        self.inner.versions().await
    }
}
