//! The simulation finds mistakes of what is between the engine and its coordinator: each of these is made, and found in time. Mistakes
//! of the engine are beside, in `mutants.rs`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{Coordinator, CoordinatorCapabilities, Page, Sessions, Wake, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Entry, Floor, Record, Resolution, Snapshot};
use avout_core::{Error, ErrorKind, Key, Point, Result, Revision};
use avout_simulate::{Failure, Simulation, workload};
use bytes::Bytes;
use tokio::sync::Notify;

/// Within how many schedules a mistake must be found.
const SCHEDULES: u64 = 5_000;

/// Looks for a mistake, which must be told as this, whatever else it may be told as before.
fn found(simulation: Simulation, kind: &str) {
    let first = simulation.find(workload).unwrap_or_else(|| panic!("it was not found"));
    let found = simulation.only(kind).find(workload).unwrap_or_else(|| panic!("it was not found as {kind}"));
    let Failure { seed, message, shortest, story } = found;
    println!("schedule {}: {}", first.seed, first.message);
    println!("schedule {seed}: {message}");
    println!("the shortest, in {} lines: {shortest}\n{}", story.len(), story.join("\n"));
    assert!(shortest.starts_with(kind), "{shortest}");
}

fn wrapped<C: Coordinator>(wrapper: impl Fn(Arc<dyn Coordinator>) -> C + Send + Sync + 'static) -> Simulation {
    Simulation::new(SCHEDULES).wrap(move |inner| Arc::new(wrapper(inner)))
}

/// A commit without its checks: what was read and not written may have changed.
#[test]
fn checks_dropped_from_the_commit() {
    let simulation = wrapped(|inner| Changed { inner, change: |commit| commit.checks.clear(), known: false });
    found(simulation, "G2");
}

/// A lost reply taken for a commit that did not happen: it is made again.
#[test]
fn lost_reply_retried_without_the_slot() {
    let simulation = wrapped(|inner| Changed { inner, change: |_| {}, known: true });
    found(simulation, "duplicate element");
}

/// A history with a gap at its newest end: an earlier value is shown at points inside it.
#[test]
fn history_with_a_gap() {
    let gap: fn(&mut Commit) = |commit| {
        for put in &mut commit.puts {
            if put.record.history.len() > 1 {
                let mut record = Record::clone(&put.record);
                record.history =
                    record.history.iter().skip(1).map(|(point, payload)| (point, payload.clone())).collect();
                put.record = Arc::new(record);
            }
        }
    };
    let simulation = wrapped(move |inner| Changed { inner, change: gap, known: false });
    found(simulation, "G-single in an attempt");
}

/// A watch that is told of a commit before it is made: it tells what is never committed, or forgets what is.
#[test]
fn watch_told_before_the_commit() {
    found(wrapped(EarlyWatch::new), "watch: it told");
}

/// A commit that does not check the floor: a sweeper deletes a value, and a record then points at it.
#[test]
fn floor_unchecked() {
    let unchecked: fn(&mut Commit) = |commit| commit.checks.retain(|check| check.key != Floor::key());
    found(wrapped(move |inner| Changed { inner, change: unchecked, known: false }), "dangling");
}

/// Changes commits on their way, and may claim to know how a commit ended whose reply was lost.
struct Changed {
    inner: Arc<dyn Coordinator>,
    change: fn(&mut Commit),
    known: bool,
}

#[async_trait]
impl Coordinator for Changed {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        self.inner.capabilities()
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.inner.read(keys, at).await
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let mut changed = commit.clone();
        (self.change)(&mut changed);
        match self.inner.commit(&changed).await {
            Err(error) if self.known && error.kind() == ErrorKind::OutcomeUnknown => {
                Err(Error::new(ErrorKind::Unavailable, "taken for a commit that did not happen"))
            }
            done => done,
        }
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        self.inner.watch(keys).await
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions()
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.list(prefix, after).await
    }
}

/// Tells its own client's watches of a commit when it is sent.
struct EarlyWatch {
    inner: Arc<dyn Coordinator>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    sent: Notify,
    /// A watch was told, and has not looked yet.
    told: AtomicBool,
    /// What is sent and not answered.
    early: Mutex<BTreeMap<Key, Arc<Record>>>,
}

impl Shared {
    fn early(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Arc<Record>>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EarlyWatch {
    fn new(inner: Arc<dyn Coordinator>) -> Self {
        Self { inner, shared: Arc::default() }
    }
}

#[async_trait]
impl Coordinator for EarlyWatch {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        self.inner.capabilities()
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    /// A watch looks at one key, and finds there what it was told of.
    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        let mut snapshot = self.inner.read(keys, at).await?;
        if let ([key], [Some(entry)]) = (keys, &mut snapshot.entries[..])
            && self.shared.told.swap(false, Ordering::Relaxed)
            && let Some(record) = self.shared.early().remove(key)
        {
            let point = Point::new(snapshot.point.number() + 1);
            *entry = Entry { revision: Revision::number(u128::MAX), point, record };
        }
        Ok(snapshot)
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        for put in &commit.puts {
            self.shared.early().insert(put.key.clone(), Arc::clone(&put.record));
        }
        self.shared.sent.notify_waiters();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let done = self.inner.commit(commit).await;
        self.shared.early().clear();
        done
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        Ok(Box::new(Early { inner: self.inner.watch(keys).await?, shared: Arc::clone(&self.shared) }))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.inner.sessions()
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.inner.list(prefix, after).await
    }
}

struct Early {
    inner: Box<dyn Watcher>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Watcher for Early {
    async fn changed(&mut self) -> Result<Wake> {
        tokio::select! {
            biased;
            () = self.shared.sent.notified() => {
                self.shared.told.store(true, Ordering::Relaxed);
                Ok(Wake::Changed)
            }
            wake = self.inner.changed() => wake,
        }
    }
}
