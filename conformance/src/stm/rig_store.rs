use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{
    CasOutcome, Kind, Page, StateContainer, Store, StoreCapabilities, VersionedStateContainer, Wake, Watcher,
};
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Key, Result, Revision};
use futures_util::future::BoxFuture;
use tokio::sync::Barrier;

use super::rig::{Then, cut, lock};

/// A store as if outside the process, whose calls a law can hold up or refuse.
pub(crate) struct RiggedStore {
    inner: Arc<dyn Store>,
    capabilities: StoreCapabilities,
    yields: bool,
    read_time: Duration,
    rules: Arc<Mutex<Rules>>,
    before_write: Once,
    after_value: Once,
    meets: Option<Arc<Barrier>>,
    deaf: bool,
}

/// What is done at the next call of a kind.
type Once = Arc<Mutex<Option<BoxFuture<'static, ()>>>>;

#[derive(Clone, Copy, Default)]
struct Rules {
    value_reads: Then,
    value_writes: Then,
    atom_reads: Then,
    atom_writes: Then,
}

impl RiggedStore {
    /// Takes values as bytes and lists keys in small pages, and changes nothing else yet.
    pub(crate) fn new(inner: Arc<dyn Store>) -> Self {
        let mut capabilities = inner.capabilities();
        capabilities.in_process = false;
        let (yields, read_time, rules) = (false, Duration::ZERO, Arc::default());
        let (before_write, after_value) = (Arc::default(), Arc::default());
        Self { inner, capabilities, yields, read_time, rules, before_write, after_value, meets: None, deaf: false }
    }

    fn container<C: ?Sized>(&self, inner: Arc<C>) -> Container<C> {
        let (before_write, after_value) = (Arc::clone(&self.before_write), Arc::clone(&self.after_value));
        let (rules, meets) = (Arc::clone(&self.rules), self.meets.clone());
        let (yields, read_time) = (self.yields, self.read_time);
        Container { inner, rules, before_write, after_value, yields, read_time, meets, deaf: self.deaf }
    }

    /// Who waits for a change of an atom hears of none.
    pub(crate) fn deaf(mut self) -> Self {
        self.deaf = true;
        self
    }

    /// As if it took values of at most this many bytes.
    pub(crate) fn limited(mut self, max_value: usize) -> Self {
        self.capabilities.max_value = max_value;
        self
    }

    /// Yields before and after each call for a ref's value.
    pub(crate) fn yielding(mut self) -> Self {
        self.yields = true;
        self
    }

    /// Each read of a ref's value takes this long before it is made.
    pub(crate) fn slow(mut self, read_time: Duration) -> Self {
        self.read_time = read_time;
        self
    }

    /// Writes of a ref's value wait for as many others as meet here.
    pub(crate) fn meeting(mut self, others: Arc<Barrier>) -> Self {
        self.meets = Some(others);
        self
    }

    pub(crate) fn value_reads(&self, then: Then) {
        lock(&self.rules).value_reads = then;
    }

    pub(crate) fn value_writes(&self, then: Then) {
        lock(&self.rules).value_writes = then;
    }

    pub(crate) fn atom_reads(&self, then: Then) {
        lock(&self.rules).atom_reads = then;
    }

    pub(crate) fn atom_writes(&self, then: Then) {
        lock(&self.rules).atom_writes = then;
    }

    /// Does this when the next compare-and-set of an atom is sent, before it is made.
    pub(crate) fn before_atom_write(&self, then: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.before_write) = Some(Box::pin(then));
    }

    /// Does this when the next value of a ref was written, before the reply.
    pub(crate) fn after_value_write(&self, then: impl Future<Output = ()> + Send + 'static) {
        *lock(&self.after_value) = Some(Box::pin(then));
    }
}

#[async_trait]
impl Store for RiggedStore {
    fn realm(&self) -> Realm {
        self.inner.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.capabilities.clone()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(self.container(self.inner.state(key)))
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(self.container(self.inner.versioned_state(key)))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        Ok(cut(self.inner.keys(kind, prefix, after).await?))
    }

    async fn delete_states_at(&self, values: &[(Key, Version)]) -> Result<()> {
        self.inner.delete_states_at(values).await
    }
}

struct Container<C: ?Sized> {
    inner: Arc<C>,
    rules: Arc<Mutex<Rules>>,
    before_write: Once,
    after_value: Once,
    yields: bool,
    read_time: Duration,
    meets: Option<Arc<Barrier>>,
    deaf: bool,
}

impl<C: ?Sized> Container<C> {
    async fn call<T>(&self, then: Then, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.yields {
            tokio::task::yield_now().await;
        }
        then.allow().await?;
        let done = call.await;
        if self.yields {
            tokio::task::yield_now().await;
        }
        done
    }

    fn rules(&self) -> Rules {
        *lock(&self.rules)
    }
}

#[async_trait]
impl StateContainer for Container<dyn StateContainer> {
    async fn init(&self) -> Result<()> {
        self.inner.init().await
    }

    async fn destroy(&self) -> Result<()> {
        self.call(self.rules().atom_writes, self.inner.destroy()).await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.call(self.rules().atom_reads, self.inner.state()).await
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        self.call(self.rules().atom_writes, self.inner.set_state(value)).await
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let before = lock(&self.before_write).take();
        if let Some(before) = before {
            before.await;
        }
        self.call(self.rules().atom_writes, self.inner.compare_and_set_state(expected, value)).await
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        if self.deaf { Ok(Box::new(Deaf)) } else { self.inner.watch().await }
    }
}

/// A watcher that hears of nothing.
struct Deaf;

#[async_trait]
impl Watcher for Deaf {
    async fn changed(&mut self) -> Result<Wake> {
        std::future::pending().await
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
        if !self.read_time.is_zero() {
            tokio::time::sleep(self.read_time).await;
        }
        self.call(self.rules().value_reads, self.inner.state_at(version)).await
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        if let Some(meets) = &self.meets {
            meets.wait().await;
        }
        let written = self.call(self.rules().value_writes, self.inner.set_state_at(version, value)).await;
        let after = lock(&self.after_value).take();
        if let Some(after) = after {
            after.await;
        }
        written
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.inner.delete_state_at(version).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        self.inner.versions().await
    }
}
