//! Orders commits.

pub(crate) mod records;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{self, CoordinatorCapabilities, Page, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Snapshot};
use avout_core::{Key, Point, Result};

use crate::namespace::Namespace;
use crate::watch::Waiter;

/// The coordinator of a namespace in memory. [`Local::coordinator`](crate::Local::coordinator) makes it.
pub struct Coordinator {
    namespace: Arc<Namespace>,
    capabilities: CoordinatorCapabilities,
}

impl Coordinator {
    pub(crate) fn new(namespace: Arc<Namespace>, readonly: bool) -> Self {
        let mut capabilities = namespace.records.capabilities.clone();
        capabilities.readonly = readonly;
        Self { namespace, capabilities }
    }
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("realm", &self.namespace.records.capabilities.realm).finish()
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    async fn read(&self, keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        Ok(self.namespace.records.read(keys))
    }

    fn read_now(&self, keys: &[Key]) -> Option<Snapshot> {
        Some(self.namespace.records.read(keys))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        Ok(self.namespace.records.commit(commit))
    }

    fn commit_now(&self, commit: &Commit) -> Option<CommitOutcome> {
        Some(self.namespace.records.commit(commit))
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(Waiter::new(Arc::clone(&self.namespace.records.registry), keys)))
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        Ok(Page::rest(self.namespace.records.keys(prefix), after))
    }
}
