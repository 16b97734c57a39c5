//! Orders commits, and reads records.

mod commit;
pub(crate) mod history;
pub(crate) mod known;
pub(crate) mod outcome;
pub(crate) mod read;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, CoordinatorCapabilities, Page, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Key, Point, Resolution, Snapshot};
use bytes::Bytes;
use rusqlite::Connection;

use crate::client::Client;
use crate::watch::Registration;
use crate::watch::hub::Table;
use outcome::Receipt;
use read::{Keys, SMALL_READ};

/// Orders commits with SQLite's write lock.
///
/// A commit is one part of a SQLite transaction that it shares with those that wait at the same time; a read is one
/// SQLite snapshot, and never waits for a writer. A record's revision is the point where it took effect.
///
/// Changes by this client are seen by its watchers at once, those by others within about 10 ms.
#[derive(Clone)]
pub struct Coordinator {
    client: Arc<Client>,
}

impl Coordinator {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// SQLite transactions that were committed so far, and commits in them.
    #[doc(hidden)]
    pub fn stats(&self) -> (u64, u64) {
        self.client.shared.stats.read()
    }

    /// Requests to write that wait or are being done.
    #[doc(hidden)]
    pub fn under_way(&self) -> usize {
        self.client.shared.open.count()
    }

    #[cfg(test)]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.client.coordinates
    }

    async fn read(&self, keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        let (owned, shared) = (keys.to_vec(), Arc::clone(&self.client.shared));
        // The next batch would tell if what is known of the file has been changed by another program.
        let find = if shared.open.count() > 0 { read::current } else { read::read };
        let read = move |c: &Connection, _| {
            let known = shared.history.known();
            let raw = find(c, &owned, &shared.known)?;
            shared.follow(c, known, &raw.clock)?;
            Ok(Some(raw))
        };
        let read = self.client.read(keys.len() <= SMALL_READ, read);
        read.await.and_then(|raw| raw.decode(keys, &self.client.shared.known)).map_err(|error| error.during("read"))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        commit::send(&self.client, commit).await.map_err(|error| error.during("commit"))
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        let resolve = async { self.client.resolve(Receipt::decode(receipt)?).await };
        resolve.await.map_err(|error| error.during("resolve"))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.client.losses()
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let spots = keys.iter().map(|key| (Table::Refs, key.clone())).collect();
        Ok(Box::new(Registration::begin(&self.client, spots).await.map_err(|error| error.during("watch"))?))
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.client.keys(Keys::Refs, prefix, after).await.map_err(|error| error.during("list"))
    }
}
