use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{Coordinator, CoordinatorCapabilities, LostCommits, Page, Sessions, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Resolution, SessionId, Snapshot};
use avout_core::{Key, Point, Result, Revision};
use bytes::Bytes;

/// A coordinator that says, when it is told to, that it has lost commits. What is there stays as it is: of interest is what the
/// engine does with the news.
pub struct Losing {
    inner: Arc<dyn Coordinator>,
    capabilities: CoordinatorCapabilities,
    losses: Arc<Losses>,
    sessions: Option<Arc<SessionTable>>,
}

/// The sessions of several clients, as a server keeps them, which may forget them.
#[derive(Debug, Default)]
pub struct SessionTable(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    alive: HashSet<SessionId>,
    ended: HashSet<SessionId>,
}

impl SessionTable {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None of them is alive any more.
    pub fn forget(&self) {
        let mut table = self.lock();
        let alive = std::mem::take(&mut table.alive);
        table.ended.extend(alive);
    }
}

impl Losing {
    /// Loses nothing yet. To the engine it is outside the process.
    pub fn new(inner: Arc<dyn Coordinator>) -> Self {
        let mut capabilities = inner.capabilities().clone();
        capabilities.in_process = false;
        Self { inner, capabilities, losses: Arc::default(), sessions: None }
    }

    /// Has sessions of its own, in this table.
    pub fn with_sessions(mut self, table: &Arc<SessionTable>) -> Self {
        self.sessions = Some(Arc::clone(table));
        self
    }

    /// Says that commits are lost; gives what it said.
    pub fn lose(&self) -> LostCommits {
        let seen = 1000 + self.losses.count();
        let lost = LostCommits::new(Point::new(seen), Some(Point::new(7)));
        self.losses.report(lost);
        lost
    }

    /// Says that another server has taken over.
    pub fn turn(&self) {
        self.losses.turn();
    }
}

#[async_trait]
impl Coordinator for Losing {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.inner.read(keys, at).await
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        self.inner.commit(commit).await
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        self.inner.watch(keys).await
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(&self.losses)
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        match self.sessions {
            Some(_) => Some(self),
            None => self.inner.sessions(),
        }
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.list(prefix, after).await
    }
}

#[async_trait]
impl Sessions for Losing {
    async fn renew(&self, session: SessionId, _: Duration) -> Result<bool> {
        let mut table = self.table().lock();
        let ended = table.ended.contains(&session);
        if !ended {
            table.alive.insert(session);
        }
        Ok(!ended)
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        let table = self.table().lock();
        Ok(sessions.iter().map(|session| table.alive.contains(session)).collect())
    }

    async fn end(&self, session: SessionId) -> Result<()> {
        let mut table = self.table().lock();
        table.alive.remove(&session);
        table.ended.insert(session);
        Ok(())
    }
}

impl Losing {
    fn table(&self) -> &SessionTable {
        self.sessions.as_ref().expect("it is asked only where it has sessions")
    }
}
