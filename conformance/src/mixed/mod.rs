//! Group `mixed`: one coordinator, and refs in several stores.

pub(crate) mod laws;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::Store;
use avout_core::{Error, ErrorKind, Result};

use crate::{Backend, Fixture};

/// A backend that coordinates, and the stores of others beside it. The laws of group `mixed` are about this.
///
/// Each store has a part of its own for each namespace, also where it is the same server as another one's.
pub struct Mixed {
    name: String,
    coordinator: Arc<dyn Fixture>,
    stores: Vec<Arc<dyn Fixture>>,
}

impl Mixed {
    /// This coordinator beside these stores.
    pub fn new(name: impl Into<String>, coordinator: Arc<dyn Fixture>, stores: Vec<Arc<dyn Fixture>>) -> Self {
        Self { name: name.into(), coordinator, stores }
    }

    fn parts(&self, namespace: &str) -> impl Iterator<Item = (&Arc<dyn Fixture>, String)> {
        self.stores.iter().enumerate().map(move |(n, store)| (store, format!("{namespace}_s{n}")))
    }
}

impl fmt::Debug for Mixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mixed").field("name", &self.name).finish_non_exhaustive()
    }
}

#[async_trait]
impl Fixture for Mixed {
    fn name(&self) -> &str {
        &self.name
    }

    async fn open(&self, namespace: &str) -> Result<Backend> {
        self.coordinator.open(namespace).await
    }

    async fn beside(&self, namespace: &str) -> Result<Vec<Arc<dyn Store>>> {
        let mut stores = Vec::new();
        for (fixture, part) in self.parts(namespace) {
            let store = fixture.open(&part).await?.store;
            stores.push(store.ok_or_else(|| Error::new(ErrorKind::Unsupported, "the backend is no store"))?);
        }
        Ok(stores)
    }

    async fn available(&self) -> Result<(), String> {
        for fixture in std::iter::once(&self.coordinator).chain(&self.stores) {
            fixture.available().await.map_err(|why| format!("{}: {why}", fixture.name()))?;
        }
        Ok(())
    }

    async fn remove(&self, namespace: &str) {
        for (fixture, part) in self.parts(namespace) {
            fixture.remove(&part).await;
        }
        self.coordinator.remove(namespace).await;
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        let mut any = self.coordinator.cut_connections(namespace).await;
        for (fixture, part) in self.parts(namespace) {
            any |= fixture.cut_connections(&part).await;
        }
        any
    }

    async fn lose_reply(&self, namespace: &str) -> bool {
        let mut any = self.coordinator.lose_reply(namespace).await;
        for (fixture, part) in self.parts(namespace) {
            any |= fixture.lose_reply(&part).await;
        }
        any
    }

    async fn stall(&self, namespace: &str) -> bool {
        let mut any = self.coordinator.stall(namespace).await;
        for (fixture, part) in self.parts(namespace) {
            any |= fixture.stall(&part).await;
        }
        any
    }

    async fn resume(&self, namespace: &str) {
        for (fixture, part) in self.parts(namespace) {
            fixture.resume(&part).await;
        }
        self.coordinator.resume(namespace).await;
    }

    fn patience(&self) -> Duration {
        self.stores.iter().map(|store| store.patience()).fold(self.coordinator.patience(), Duration::max)
    }

    async fn wipe(&self, namespace: &str) -> bool {
        self.coordinator.wipe(namespace).await
    }

    async fn finish(&self) {
        for fixture in std::iter::once(&self.coordinator).chain(&self.stores) {
            fixture.finish().await;
        }
    }

    fn survives_reopen(&self) -> bool {
        self.coordinator.survives_reopen()
    }

    fn hint_delay(&self) -> Duration {
        self.coordinator.hint_delay()
    }

    fn time_limit(&self) -> Duration {
        self.stores.iter().map(|store| store.time_limit()).fold(self.coordinator.time_limit(), Duration::max)
    }
}
