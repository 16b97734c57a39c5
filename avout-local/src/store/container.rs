use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{CasOutcome, StateContainer, VersionedStateContainer, Watcher};
use avout_core::protocol::{State, Version};
use avout_core::{Key, Result, Revision};

use crate::namespace::Namespace;
use crate::watch::Waiter;

/// Both containers of a key.
pub(super) struct Container {
    pub(super) namespace: Arc<Namespace>,
    pub(super) key: Key,
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

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(Waiter::new(Arc::clone(&self.namespace.values.registry), std::slice::from_ref(&self.key))))
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
