use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avout_core::protocol::{Realm, State, Version};
use avout_core::{Error, ErrorKind, Key, Result, Revision};

use crate::shards::Shards;
use crate::watch::Registry;

/// The store's part of a namespace.
pub(crate) struct Values {
    realm: Realm,
    pub(super) atoms: Shards<(State, Revision)>,
    pub(super) refs: Shards<BTreeMap<Version, State>>,
    /// The last revision. One counter for all atoms, so that one that is made again has a new one.
    revisions: AtomicU64,
    pub(super) registry: Arc<Registry>,
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

    pub(super) fn state(&self, key: &Key) -> Option<(State, Revision)> {
        self.atoms.lock(std::iter::once(key)).get(0, key).cloned()
    }

    /// Writes an atom's state if `expected` holds of its current one. What was replaced is dropped after the lock, since
    /// it may be a value whose `drop` is anybody's code.
    pub(super) fn set_if(
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

    pub(super) fn destroy_atom(&self, key: &Key) {
        let removed = self.atoms.lock(std::iter::once(key)).remove(0, key);
        if removed.is_some() {
            self.registry.wake(std::iter::once(key));
        }
    }

    pub(super) fn set_version(&self, key: &Key, version: &Version, value: State) -> Result<()> {
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

    pub(super) fn delete_version(&self, key: &Key, version: &Version) {
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
