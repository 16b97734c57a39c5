//! The coordinator.

mod abandoned;
mod commit;
mod read;
mod work;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Connection, CoordinatorCapabilities, Page, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Committed, Key, Point, Revision, Snapshot};

use self::read::read;
use crate::client::Client;
use crate::hub::Table;
use crate::listing;
use crate::revisions::bound;
use crate::watch::Watch;

/// Orders commits by MongoDB's log.
///
/// A commit is one multi-document transaction of two requests, an `update` of all documents and the
/// `commitTransaction`, and no document is in all of them, so commits of different keys run side by side. A read is one
/// `find` at snapshot read concern. The point of a snapshot and of a commit is its time in MongoDB's log.
///
/// The time of a commit is known only after it, when its documents are written. So an entry's point is a bound: before
/// the point of its commit, and after that of the commit before it to the same key. [`read`](backend::Coordinator::read)
/// answers as of any point within the servers' window (`minSnapshotHistoryWindowInSeconds`, five minutes by default),
/// and needs no points of entries for it.
#[derive(Clone)]
pub struct Coordinator {
    client: Arc<Client>,
}

impl Coordinator {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.client.coordinates
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        read(&self.client, keys, at).await.map_err(|error| error.during("read"))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let outcome = if commit.puts.is_empty() && commit.deletes.is_empty() {
            check_alone(&self.client, commit).await
        } else {
            commit::send(&self.client, commit).await
        };
        outcome.map_err(|error| error.during("commit"))
    }

    fn entry_point(&self, revision: &Revision, _committed: Point) -> Point {
        bound(revision).unwrap_or(Point::ZERO)
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let spots = keys.iter().map(|key| (Table::Refs, key.clone())).collect();
        Ok(Box::new(Watch::begin(&self.client, spots).await.map_err(|error| error.during("watch"))?))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.progress.history.losses())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.client.progress.signs.connection)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        listing::list(&self.client, prefix, after).await.map_err(|error| error.during("list"))
    }
}

/// A snapshot in which all is as expected is the moment of a commit that writes nothing.
async fn check_alone(client: &Client, commit: &Commit) -> Result<CommitOutcome> {
    let keys: Vec<Key> = commit.checks.iter().map(|check| check.key.clone()).collect();
    let now = read(client, &keys, None).await?;
    let point = now.point;
    Ok(match commit.conflict_with(now) {
        Some(conflict) => CommitOutcome::Conflict(conflict),
        None => CommitOutcome::Committed(Committed { point, revisions: Vec::new() }),
    })
}
