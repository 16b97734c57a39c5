use async_trait::async_trait;
use avout_core::backend::{self, CoordinatorCapabilities, Page, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Realm, Snapshot};
use avout_core::{Key, Point, Result};

use crate::not_written::not_written;

/// Orders the commits of a namespace.
pub struct Coordinator {
    capabilities: CoordinatorCapabilities,
}

impl Coordinator {
    pub(crate) fn new(realm: Realm) -> Self {
        // The least that can be said. Each capability turns a protection of the engine off; limits belong here, too.
        Self { capabilities: CoordinatorCapabilities::new(realm) }
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    async fn read(&self, _keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        not_written("read")
    }

    async fn commit(&self, _commit: &Commit) -> Result<CommitOutcome> {
        not_written("commit")
    }

    async fn watch(&self, _keys: &[Key]) -> Result<Box<dyn Watcher>> {
        not_written("watch")
    }

    async fn list(&self, _prefix: &Key, _after: Option<&Key>) -> Result<Page> {
        not_written("list")
    }
}
