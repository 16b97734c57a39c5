//! Holds the states of atoms and the values of refs.

mod container;
pub(crate) mod values;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{self, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::Realm;
use avout_core::{Key, Result};

use crate::namespace::Namespace;
use container::Container;

/// The store of a namespace in memory. [`Local::store`](crate::Local::store) makes it.
///
/// Values written again under their version are compared: bytes by content, shared values by being the same one. Another
/// value than the first is refused as [`AlreadyExists`](avout_core::ErrorKind::AlreadyExists), and the first stays.
pub struct Store {
    namespace: Arc<Namespace>,
    readonly: bool,
}

impl Store {
    pub(crate) fn new(namespace: Arc<Namespace>, readonly: bool) -> Self {
        Self { namespace, readonly }
    }

    fn container(&self, key: &Key) -> Arc<Container> {
        Arc::new(Container { namespace: Arc::clone(&self.namespace), key: key.clone() })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("realm", &self.namespace.values.realm()).finish()
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.namespace.values.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        let mut capabilities = StoreCapabilities::default();
        capabilities.in_process = true;
        capabilities.push = true;
        capabilities.readonly = self.readonly;
        capabilities
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        self.container(key)
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        self.container(key)
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let values = &self.namespace.values;
        let all = match kind {
            Kind::Atom => values.atoms.keys(prefix, |_| true),
            Kind::Ref => values.refs.keys(prefix, |versions| !versions.is_empty()),
        };
        Ok(Page::rest(all, after))
    }
}
