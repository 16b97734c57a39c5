//! Hints of changes, from one change stream a client, which runs while anything is watched.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::backend::{Bell, Bells, tasks};
use avout_core::protocol::Key;
use avout_core::{Error, Result};
use futures_util::StreamExt as _;
use mongodb::Database;
use mongodb::bson::{Document, doc, rawdoc};
use mongodb::change_stream::ChangeStream;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::current::linearizable;
use crate::progress::Progress;
use crate::schema::Names;
use crate::wire::error::classify;
use crate::wire::request::{Failure, Requests};

/// How long a stream that nobody needs is kept.
const LINGER: Duration = Duration::from_secs(10);

/// The pauses between attempts to open the stream again.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(20), Duration::from_millis(100), Duration::from_millis(500), Duration::from_secs(1)];

/// Where a key that is watched lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Table {
    Refs,
    Atoms,
}

pub(crate) type Spot = (Table, Key);

/// Whether the stream runs.
#[derive(Clone)]
enum Status {
    Closed,
    Open,
    /// The number of attempts that failed, and the last one's error.
    Failed(u64, Error),
}

/// The change stream of a client, and those who listen.
pub(crate) struct Hub {
    database: Database,
    refs: String,
    atoms: String,
    meta: String,
    progress: Arc<Progress>,
    timeout: Duration,
    status: watch::Sender<Status>,
    bells: Arc<Bells<Spot>>,
    /// Set while there is a task.
    task: Mutex<Option<AbortHandle>>,
    failures: AtomicU64,
}

impl Hub {
    pub(crate) fn new(database: &Database, names: &Names, progress: &Arc<Progress>, timeout: Duration) -> Self {
        Self {
            database: database.clone(),
            refs: names.refs.clone(),
            atoms: names.atoms.clone(),
            meta: names.meta.clone(),
            progress: Arc::clone(progress),
            timeout,
            status: watch::Sender::new(Status::Closed),
            bells: Bells::new(),
            task: Mutex::default(),
            failures: AtomicU64::new(0),
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what has changed from now on.
    pub(crate) async fn listen(self: &Arc<Self>, spots: Vec<Spot>, timeout: Duration) -> Result<Bell<Spot>> {
        let mut status = self.status.subscribe();
        let failures = self.failures.load(Ordering::Acquire);
        let bell = {
            let mut task = self.task();
            let bell = self.bells.register(spots);
            // It may have panicked.
            if task.as_ref().is_none_or(AbortHandle::is_finished) {
                self.status.send_replace(Status::Closed);
                *task = Some(tasks::connections().spawn(Arc::clone(self).run()).abort_handle());
            }
            bell
        };
        let settled = |status: &Status| match status {
            Status::Closed => false,
            Status::Open => true,
            Status::Failed(number, _) => *number > failures,
        };
        match tasks::request(async { tokio::time::timeout(timeout, status.wait_for(settled)).await }).await {
            Err(_) | Ok(Err(_)) => Err(Failure::Late.unapplied()),
            Ok(Ok(status)) => match &*status {
                Status::Failed(_, error) => Err(error.clone()),
                Status::Open | Status::Closed => Ok(bell),
            },
        }
    }

    /// Runs the stream for as long as anybody listens, and a little longer.
    async fn run(self: Arc<Self>) {
        let mut opened_before = false;
        let mut failed = 0;
        loop {
            match self.open().await {
                Ok(mut stream) => {
                    failed = 0;
                    self.status.send_replace(Status::Open);
                    if std::mem::replace(&mut opened_before, true) {
                        self.bells.ring_lost();
                    }
                    loop {
                        match tokio::time::timeout(LINGER, stream.next()).await {
                            Err(_) => {}
                            Ok(Some(Ok(event))) => self.dispatch(&event),
                            Ok(Some(Err(error))) => {
                                tracing::debug!(kind = %error.kind, "the change stream ended, opening another one");
                                break;
                            }
                            Ok(None) => break,
                        }
                        if self.retire() {
                            return;
                        }
                    }
                    self.status.send_replace(Status::Closed);
                }
                Err(error) => {
                    let number = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
                    self.status.send_replace(Status::Failed(number, error));
                    tokio::time::sleep(PAUSES[usize::min(failed, PAUSES.len() - 1)]).await;
                    failed += 1;
                }
            }
            if self.retire() {
                return;
            }
        }
    }

    /// Ends the task if nobody listens.
    fn retire(&self) -> bool {
        let mut task = self.task();
        if !self.bells.is_empty() {
            return false;
        }
        *task = None;
        self.status.send_replace(Status::Closed);
        true
    }

    async fn open(&self) -> Result<ChangeStream<Document>> {
        // A commit that only checked a key is no change of it.
        let changes = doc! { "$match": {
            "ns.coll": { "$in": [&self.refs, &self.atoms] },
            "$or": [
                { "operationType": { "$ne": "update" } },
                { "updateDescription.updatedFields.r": { "$exists": true } },
                { "updateDescription.removedFields": "r" },
            ],
        } };
        let fields = doc! { "$project": { "ns.coll": 1, "documentKey": 1 } };
        let stream = self.database.watch().pipeline([changes, fields]).await.map_err(classify)?;
        let requests = Requests { database: &self.database, timeout: self.timeout };
        let known = linearizable(&requests, &self.progress, &self.meta, rawdoc! {}).await;
        known.map_err(|failure| failure.unapplied())?;
        Ok(stream.with_type())
    }

    fn dispatch(&self, event: &Document) {
        let id = event.get_document("documentKey").and_then(|key| key.get_str("_id"));
        let name = event.get_document("ns").and_then(|ns| ns.get_str("coll"));
        let (Ok(id), Ok(name)) = (id, name) else {
            // A collection was dropped or renamed, or a copy of the floor was written.
            if !event.contains_key("documentKey") {
                self.bells.ring_lost();
            }
            return;
        };
        let table = if name == self.atoms { Table::Atoms } else { Table::Refs };
        if let Ok(key) = Key::from_stored(id) {
            self.bells.ring(&(table, key));
        }
    }
}
