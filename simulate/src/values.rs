use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use avout_core::backend::CasOutcome;
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Key, Revision};

/// A store's server.
pub(crate) struct Values {
    realm: Realm,
    held: Mutex<Held>,
}

#[derive(Default)]
pub(crate) struct Held {
    pub(crate) revision: u128,
    pub(crate) atoms: BTreeMap<Key, (State, Revision)>,
    pub(crate) refs: BTreeMap<Key, BTreeMap<Version, State>>,
}

impl Values {
    pub(crate) fn new(realm: Realm) -> Self {
        Self { realm, held: Mutex::default() }
    }

    pub(crate) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an atom if its revision is as expected; `None`: whatever it is.
    pub(crate) fn set(&self, key: &Key, expected: Option<Option<&Revision>>, value: State) -> CasOutcome {
        let mut held = self.held();
        let current = held.atoms.get(key);
        if expected.is_some_and(|expected| current.map(|(_, revision)| revision) != expected) {
            return CasOutcome::Stale(current.cloned());
        }
        held.revision += 1;
        let revision = Revision::number(held.revision);
        held.atoms.insert(key.clone(), (value, revision.clone()));
        CasOutcome::Set(revision)
    }

    /// All values of refs.
    pub(crate) fn versions(&self) -> Vec<(Key, Version)> {
        let held = self.held();
        held.refs.iter().flat_map(|(key, values)| values.keys().map(|version| (key.clone(), *version))).collect()
    }

    pub(crate) fn realm(&self) -> Realm {
        self.realm
    }
}
