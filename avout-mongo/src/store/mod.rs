//! The store.

mod atoms;
mod chunks;
pub(crate) mod documents;
mod ready;
mod unfinished;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Connection, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm, Version};

use self::atoms::Atom;
use self::values::Values;
use crate::client::Client;
use crate::listing;

/// Keeps the states of atoms and the values of refs in documents, in chunks where they are large.
///
/// A replica set tells of changes by a change stream. A stand-alone server, which will do for a store, does not, and is
/// asked again and again.
#[derive(Clone)]
pub struct Store {
    client: Arc<Client>,
}

impl Store {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("options", &self.client.options).finish_non_exhaustive()
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.client.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.client.stores.clone()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom::new(&self.client, key))
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values::new(&self.client, key))
    }

    /// It is the coordinator's, where there is one.
    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.progress.history.losses())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.client.progress.signs.connection)
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let keys = match kind {
            Kind::Atom => listing::keys(&self.client, &self.client.names.atoms, prefix, after).await,
            Kind::Ref => values::keys(&self.client, prefix, after).await,
        };
        // Whoever lists all values sweeps, if it may write.
        let sweeps = kind == Kind::Ref && *prefix == Key::root() && !self.client.options.readonly;
        if sweeps && keys.is_ok() {
            unfinished::sweep(&self.client).await;
        }
        keys.map_err(|error| error.during("keys"))
    }

    async fn delete_states_at(&self, values: &[(Key, Version)]) -> Result<()> {
        values::delete_all(&self.client, values).await.map_err(|error| error.during("delete states at"))
    }
}
