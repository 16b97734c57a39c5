use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{
    CasOutcome, Kind, Page, StateContainer, Store, StoreCapabilities, VersionedStateContainer, Watcher,
};
use avout_core::protocol::{Realm, State, Version};
use avout_core::{Key, Result, Revision};

use super::coordinator::Watch;
use super::mistake::Mistake;
use super::world::{Client, lock};

pub(super) fn wrap(inner: Arc<dyn Store>, client: Client) -> Arc<dyn Store> {
    let realm = if client.world.is(Mistake::RealmNotKept) { Realm::random() } else { inner.realm() };
    Arc::new(Layer { inner, client, realm })
}

struct Layer {
    inner: Arc<dyn Store>,
    client: Client,
    realm: Realm,
}

#[async_trait]
impl Store for Layer {
    fn realm(&self) -> Realm {
        self.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom { inner: self.inner.state(key), client: self.client.clone(), seen: Mutex::default() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values { inner: self.inner.versioned_state(key), client: self.client.clone() })
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.client
            .read(async {
                if !self.client.world.is(Mistake::ListByText) {
                    return self.inner.keys(kind, prefix, after).await;
                }
                let mut all = self.inner.all_keys(kind, &Key::root()).await?;
                all.retain(|key| key.as_str().starts_with(prefix.as_str()));
                Ok(Page::rest(all, after))
            })
            .await
    }
}

struct Atom {
    inner: Arc<dyn StateContainer>,
    client: Client,
    seen: Mutex<Option<(State, Revision)>>,
}

#[async_trait]
impl StateContainer for Atom {
    async fn init(&self) -> Result<()> {
        self.client.read(self.inner.init()).await
    }

    async fn destroy(&self) -> Result<()> {
        self.client.write(self.inner.destroy()).await
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        if self.client.world.is(Mistake::ReadOfAFollower) && self.client.world.every_other() {
            let seen = lock(&self.seen).clone();
            if seen.is_some() {
                return Ok(seen);
            }
        }
        let found = self.client.read(self.inner.state()).await?;
        lock(&self.seen).clone_from(&found);
        Ok(found)
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        self.client.write(self.inner.set_state(value)).await
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        self.client.write(self.inner.compare_and_set_state(expected, value)).await
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let inner = Arc::clone(&self.inner);
        Watch::begin(&self.client, async move { inner.watch().await }).await
    }
}

struct Values {
    inner: Arc<dyn VersionedStateContainer>,
    client: Client,
}

#[async_trait]
impl VersionedStateContainer for Values {
    async fn init(&self) -> Result<()> {
        self.client.read(self.inner.init()).await
    }

    async fn destroy(&self) -> Result<()> {
        self.client.read(self.inner.destroy()).await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        self.client.read(self.inner.state_at(version)).await
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        if self.client.world.is(Mistake::OverwrittenValue) {
            self.inner.delete_state_at(version).await?;
        }
        self.client.read(self.inner.set_state_at(version, value)).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.client.read(self.inner.delete_state_at(version)).await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        self.client.read(self.inner.versions()).await
    }
}
