//! Holds the values.

mod atom;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Connection, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm};

use crate::coordinator::Hub;
use crate::schema::mark;
use crate::wire::Client;

use atom::Atom;
use values::Values;

/// The largest value of an atom or of a ref, in bytes. The server takes 512 MiB in one argument, and holds up
/// everybody else meanwhile.
const MAX_VALUE: usize = 256 << 20;

/// Keeps the states of atoms beside the records, and the values of refs in a hash each.
#[derive(Clone)]
pub struct Store {
    client: Arc<Client>,
    hub: Arc<Hub>,
    capabilities: StoreCapabilities,
}

impl Store {
    pub(crate) fn new(client: Arc<Client>, hub: Arc<Hub>) -> Self {
        let mut capabilities = StoreCapabilities::default();
        capabilities.max_value = MAX_VALUE;
        capabilities.durable = client.found().durable;
        capabilities.shared_between_processes = true;
        capabilities.push = true;
        capabilities.readonly = client.options.readonly;
        Self { client, hub, capabilities }
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.client.found().realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.capabilities.clone()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom::new(&self.client, &self.hub, &self.capabilities, key))
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values::new(&self.client, &self.capabilities, key))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.history.losses())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.client.connection)
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.client.list(mark(Some(kind)), prefix, after).await.map_err(|error| error.during("keys"))
    }
}
