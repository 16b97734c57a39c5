//! Orders commits.

mod commit;
mod entry;
mod read;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Connection, CoordinatorCapabilities, Page, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Key, Point, Snapshot};

use crate::schema::Opened;
use crate::schema::acl_bytes;
use crate::wire::Client;

pub(crate) use entry::Token;
pub(crate) use watch::{Hub, Registration};

/// The most keys that a commit or a read may name.
const MAX_KEYS: usize = 1000;

/// What a key takes of a request beside itself, its record, its ACL and the namespace's path, in bytes, at most: two operations, and the
/// path again.
const OPERATION_BYTES: usize = 120;

/// Orders commits by ZooKeeper's own order.
///
/// A commit is one `multi`. It sets the clock's znode, so that the clock tells the point of the last commit; a read is a `sync`
/// and one multi-read of the clock and the records, which the server answers between two commits.
pub struct Coordinator {
    client: Arc<Client>,
    hub: Arc<Hub>,
    capabilities: CoordinatorCapabilities,
}

impl Coordinator {
    pub(crate) fn new(client: Arc<Client>, hub: Arc<Hub>, opened: Opened) -> Self {
        let overhead = OPERATION_BYTES + acl_bytes(&client.options) + 2 * client.paths.root.len();
        // At most a half of a request is anything but keys and records.
        let max_keys = MAX_KEYS.min(client.options.max_request / 2 / overhead);
        let mut capabilities = CoordinatorCapabilities::new(opened.realm);
        capabilities.durable = true;
        capabilities.shared_between_processes = true;
        capabilities.max_keys = max_keys;
        capabilities.max_commit = client.options.max_request - max_keys * overhead;
        capabilities.max_record = capabilities.max_commit;
        capabilities.readonly = client.options.readonly;
        Self { client, hub, capabilities }
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.history.losses())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.client.connection)
    }

    async fn read(&self, keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        self.snapshot(keys).await.map_err(|error| error.during("read"))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let outcome = if commit.puts.is_empty() && commit.deletes.is_empty() {
            self.check_alone(commit).await
        } else {
            self.send(commit).await
        };
        outcome.map_err(|error| error.during("commit"))
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let paths = keys.iter().map(|key| self.client.paths.record(key)).collect();
        let registration = Registration::new(&self.client, &self.hub, paths);
        registration.arm().await.map_err(|error| error.during("watch"))?;
        Ok(Box::new(registration))
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let all = self.keys_under(prefix).await.map_err(|error| error.during("list"))?;
        Ok(Page::rest(all, after))
    }
}
