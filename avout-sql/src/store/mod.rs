//! Atoms, and the values of refs that are too large for their records.

mod atoms;
mod bytes;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm};

use crate::client::Client;
use crate::coordinator::read::Keys;
use atoms::Atom;
use values::Values;

/// Keeps the states of atoms and the values of refs in tables of the file.
///
/// An atom's revision is a point of the coordinator's clock. A client is told of its own changes at once, and
/// of those by others within about 10 ms.
#[derive(Clone)]
pub struct Store {
    client: Arc<Client>,
}

impl Store {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.client.shared.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.client.stores.clone()
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.client.losses()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom { client: Arc::clone(&self.client), key: key.clone() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values { client: Arc::clone(&self.client), key: key.clone() })
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let of = match kind {
            Kind::Atom => Keys::Atoms,
            Kind::Ref => Keys::Values,
        };
        self.client.keys(of, prefix, after).await.map_err(|error| error.during("keys"))
    }
}
