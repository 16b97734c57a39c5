use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{
    self, CasOutcome, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer, Watcher,
};
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Key, Result, Revision};

use crate::not_written::not_written;

/// Holds atoms, and the values of refs that are too large for the coordinator.
pub struct Store {
    realm: Realm,
}

impl Store {
    pub(crate) fn new(realm: Realm) -> Self {
        Self { realm }
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities::default()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Container { _key: key.clone() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Container { _key: key.clone() })
    }

    async fn keys(&self, _kind: Kind, _prefix: &Key, _after: Option<&Key>) -> Result<Page> {
        not_written("keys")
    }
}

/// What one key names: an atom's state, or a ref's values. It holds nothing by itself.
struct Container {
    _key: Key,
}

#[async_trait]
impl StateContainer for Container {
    async fn init(&self) -> Result<()> {
        not_written("init of an atom")
    }

    async fn destroy(&self) -> Result<()> {
        not_written("destroy of an atom")
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        not_written("state")
    }

    async fn set_state(&self, _value: State) -> Result<Revision> {
        not_written("set_state")
    }

    async fn compare_and_set_state(&self, _expected: Option<Revision>, _value: State) -> Result<CasOutcome> {
        not_written("compare_and_set_state")
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        not_written("watch of an atom")
    }
}

#[async_trait]
impl VersionedStateContainer for Container {
    async fn init(&self) -> Result<()> {
        not_written("init of a ref's values")
    }

    async fn destroy(&self) -> Result<()> {
        not_written("destroy of a ref's values")
    }

    async fn state_at(&self, _version: &Version) -> Result<Option<State>> {
        not_written("state_at")
    }

    async fn set_state_at(&self, _version: &Version, _value: State) -> Result<()> {
        not_written("set_state_at")
    }

    async fn delete_state_at(&self, _version: &Version) -> Result<()> {
        not_written("delete_state_at")
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        not_written("versions")
    }
}
