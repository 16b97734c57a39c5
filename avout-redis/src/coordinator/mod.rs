//! Orders commits.

mod commit;
mod read;
mod sessions;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Connection, CoordinatorCapabilities, Page, Sessions, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Key, Point, Snapshot};

use crate::schema::mark;
use crate::wire::Client;

pub(crate) use watch::Hub;

/// The largest record, and the most keys of a commit.
const MAX_RECORD: usize = 32 << 20;
const MAX_KEYS: usize = 65_536;

/// Orders commits with a script on the server, and reads with one `HMGET`.
///
/// A revision is the point of the write and a number by chance, and so is like no other, whatever the server loses.
#[derive(Clone)]
pub struct Coordinator {
    client: Arc<Client>,
    hub: Arc<Hub>,
    capabilities: CoordinatorCapabilities,
}

impl Coordinator {
    pub(crate) fn new(client: Arc<Client>, hub: Arc<Hub>) -> Self {
        let found = client.found();
        let mut capabilities = CoordinatorCapabilities::new(found.realm);
        capabilities.durable = found.durable;
        capabilities.shared_between_processes = true;
        // Each write draws a number.
        capabilities.unique_revisions = true;
        capabilities.max_record = MAX_RECORD;
        capabilities.max_commit = commit::MAX_BYTES;
        capabilities.max_keys = MAX_KEYS;
        capabilities.readonly = client.options.readonly;
        Self { client, hub, capabilities }
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    async fn read(&self, keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        let read = async {
            let (clock, cells) = self.client.read(keys.iter().map(Key::as_str)).await?;
            read::snapshot(&self.client, &clock, keys.iter().zip(cells))
        };
        read.await.map_err(|error| error.during("read"))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        commit::send(&self.client, commit).await.map_err(|error| error.during("commit"))
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let channels = keys.iter().map(|key| self.client.names.channel(key.as_str())).collect();
        let watch = self.hub.watch(channels).await.map_err(|error| error.during("watch"))?;
        Ok(Box::new(watch))
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        Some(self)
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.history.losses())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.client.connection)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.client.list(mark(None), prefix, after).await.map_err(|error| error.during("list"))
    }
}
