use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use avout_core::backend::{self, CasOutcome, Kind, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Error, ErrorKind, Key, Result, Revision};

use crate::namespace::Namespace;
use crate::shards::Shards;
use crate::watch::{Registry, Waiter};

/// The store's part of a namespace.
pub(crate) struct Values {
    realm: Realm,
    atoms: Shards<(State, Revision)>,
    refs: Shards<BTreeMap<Version, State>>,
    /// The last revision. One counter for all atoms, so that one that is made again has a new one.
    revisions: AtomicU64,
    registry: Arc<Registry>,
}

impl Values {
    pub(crate) fn new(realm: Realm) -> Self {
        Self {
            realm,
            atoms: Shards::default(),
            refs: Shards::default(),
            revisions: AtomicU64::new(0),
            registry: Arc::default(),
        }
    }

    pub(crate) fn realm(&self) -> Realm {
        self.realm
    }

    fn state(&self, key: &Key) -> Option<(State, Revision)> {
        self.atoms.lock(std::iter::once(key)).get(0, key).cloned()
    }

    /// Writes an atom's state if `expected` holds of its current one. What was replaced is dropped after the lock, since
    /// it may be a value whose `drop` is anybody's code.
    fn set_if(
        &self,
        key: &Key,
        value: State,
        expected: impl FnOnce(Option<&Revision>) -> bool,
    ) -> Result<Revision, Option<(State, Revision)>> {
        let mut locked = self.atoms.lock(std::iter::once(key));
        let current = locked.get(0, key);
        if !expected(current.map(|(_, revision)| revision)) {
            return Err(current.cloned());
        }
        let number = self.revisions.fetch_add(1, Ordering::Relaxed) + 1;
        let revision = Revision::number(number.into());
        let replaced = locked.insert(0, key, (value, revision.clone()));
        drop(locked);
        drop(replaced);
        self.registry.wake(std::iter::once(key));
        Ok(revision)
    }

    fn destroy_atom(&self, key: &Key) {
        let removed = self.atoms.lock(std::iter::once(key)).remove(0, key);
        if removed.is_some() {
            self.registry.wake(std::iter::once(key));
        }
    }

    fn set_version(&self, key: &Key, version: &Version, value: State) -> Result<()> {
        let mut locked = self.refs.lock(std::iter::once(key));
        let same = match locked.get_or_default(0, key).entry(*version) {
            Entry::Vacant(slot) => {
                slot.insert(value);
                return Ok(());
            }
            Entry::Occupied(slot) => match (slot.get(), &value) {
                (State::Bytes(old), State::Bytes(new)) => old == new,
                (State::Shared(old), State::Shared(new)) => Arc::ptr_eq(old, new),
                (State::Bytes(_), State::Shared(_)) | (State::Shared(_), State::Bytes(_)) => false,
            },
        };
        drop(locked);
        if same {
            return Ok(());
        }
        Err(Error::new(ErrorKind::AlreadyExists, "this version has another value already, which stays").at(key))
    }

    fn delete_version(&self, key: &Key, version: &Version) {
        let mut locked = self.refs.lock(std::iter::once(key));
        let Some(versions) = locked.get_mut(0, key) else { return };
        let removed = versions.remove(version);
        if versions.is_empty() {
            locked.remove(0, key);
        }
        drop(locked);
        drop(removed);
    }
}

/// The store of a namespace in memory. [`Local::store`](crate::Local::store) makes it.
///
/// Values written again under their version are compared: bytes by content, shared values by being the same one. Another
/// value than the first is refused as [`AlreadyExists`](ErrorKind::AlreadyExists), and the first stays.
pub struct Store {
    namespace: Arc<Namespace>,
}

impl Store {
    pub(crate) fn new(namespace: Arc<Namespace>) -> Self {
        Self { namespace }
    }

    fn container(&self, key: &Key) -> Arc<Container> {
        Arc::new(Container { namespace: Arc::clone(&self.namespace), key: key.clone() })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("realm", &self.namespace.values.realm).finish()
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.namespace.values.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        let mut capabilities = StoreCapabilities::default();
        capabilities.in_process = true;
        capabilities.push = true;
        capabilities
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        self.container(key)
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        self.container(key)
    }

    async fn keys(&self, kind: Kind, prefix: &Key) -> Result<Vec<Key>> {
        let values = &self.namespace.values;
        Ok(match kind {
            Kind::Atom => values.atoms.keys(prefix, |_| true),
            Kind::Ref => values.refs.keys(prefix, |versions| !versions.is_empty()),
        })
    }
}

/// Both containers of a key.
struct Container {
    namespace: Arc<Namespace>,
    key: Key,
}

#[async_trait]
impl StateContainer for Container {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.namespace.values.destroy_atom(&self.key);
        Ok(())
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        Ok(self.namespace.values.state(&self.key))
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        let set = self.namespace.values.set_if(&self.key, value, |_| true);
        Ok(set.expect("a write that expects nothing is not refused"))
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let values = &self.namespace.values;
        Ok(match values.set_if(&self.key, value, |current| current == expected.as_ref()) {
            Ok(revision) => CasOutcome::Set(revision),
            Err(found) => CasOutcome::Stale(found),
        })
    }

    async fn changed(&self, since: Option<Revision>) -> Result<()> {
        let values = &self.namespace.values;
        // Registered before the look at the state: a change after the look is then not missed.
        let waiter = Waiter::new(Arc::clone(&values.registry), std::slice::from_ref(&self.key));
        while values.state(&self.key).map(|(_, revision)| revision) == since {
            waiter.woken().await;
        }
        Ok(())
    }
}

#[async_trait]
impl VersionedStateContainer for Container {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let removed = self.namespace.values.refs.lock(std::iter::once(&self.key)).remove(0, &self.key);
        drop(removed);
        Ok(())
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        let locked = self.namespace.values.refs.lock(std::iter::once(&self.key));
        Ok(locked.get(0, &self.key).and_then(|versions| versions.get(version)).cloned())
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        self.namespace.values.set_version(&self.key, version, value)
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.namespace.values.delete_version(&self.key, version);
        Ok(())
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        let locked = self.namespace.values.refs.lock(std::iter::once(&self.key));
        Ok(locked.get(0, &self.key).map(|versions| versions.keys().copied().collect()).unwrap_or_default())
    }
}
