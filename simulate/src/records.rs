use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Entry, Record, Resolution, Snapshot};
use avout_core::{Error, ErrorKind, Key, Point, Result, Revision};
use tokio::sync::Notify;

/// How far back reads as of an earlier point go.
const OLDEST: u64 = 20;

/// The coordinator's server: every key's records over time, in one total order.
pub(crate) struct Records {
    unique_revisions: bool,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    clock: u64,
    revision: u128,
    keys: BTreeMap<Key, Vec<Version>>,
    watchers: BTreeMap<u64, (Vec<Key>, Arc<Notify>)>,
    rulings: HashMap<u64, Ruling>,
}

/// A key's record from a point on.
#[derive(Clone)]
struct Version {
    point: Point,
    revision: u128,
    /// `None`: it was removed for good.
    record: Option<Arc<Record>>,
}

/// What became of a commit that had a number.
#[derive(Clone, Copy)]
enum Ruling {
    Judged(Resolution),
    /// Somebody asked before it arrived.
    Fenced,
}

impl Version {
    fn entry(&self) -> Option<Entry> {
        let record = Arc::clone(self.record.as_ref()?);
        Some(Entry { revision: Revision::number(self.revision), point: self.point, record })
    }
}

impl Held {
    fn current(&self, key: &Key) -> Option<&Version> {
        self.keys.get(key)?.last().filter(|version| version.record.is_some())
    }

    fn judge(&self, commit: &Commit) -> Result<(), Conflict> {
        let mut stale = Vec::new();
        let mut entries = Vec::new();
        for (key, expected) in commit.expectations() {
            let current = self.current(key);
            let revision = current.map(|version| version.revision);
            if revision != expected.and_then(Revision::as_number) {
                stale.push(key.clone());
                entries.push(current.and_then(Version::entry));
            }
        }
        if stale.is_empty() {
            return Ok(());
        }
        Err(Conflict { stale, fresh: Some(Snapshot { point: Point::new(self.clock), entries }) })
    }
}

impl Records {
    pub(crate) fn new(unique_revisions: bool) -> Self {
        Self { unique_revisions, held: Mutex::default() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entries as of a point, or the current ones.
    pub(crate) fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        let held = self.held();
        let point = at.unwrap_or(Point::new(held.clock));
        if point.number() + OLDEST < held.clock || point.number() > held.clock {
            return Err(Error::new(ErrorKind::TooOld, "this point is no longer held, or not there yet"));
        }
        let entry = |key: &Key| {
            let versions = held.keys.get(key)?;
            versions.iter().rev().find(|version| version.point <= point).and_then(Version::entry)
        };
        Ok(Snapshot { point, entries: keys.iter().map(entry).collect() })
    }

    /// Judges a commit by its expectations and carries it out, or not. With a number it is judged once.
    pub(crate) fn commit(&self, number: Option<u64>, commit: &Commit) -> CommitOutcome {
        let mut held = self.held();
        if number.is_some_and(|number| held.rulings.contains_key(&number)) {
            // Nobody waits for this answer: it was given already, or the commit was fenced off.
            return CommitOutcome::Conflict(Conflict { stale: Vec::new(), fresh: None });
        }
        let outcome = match held.judge(commit) {
            Err(conflict) => CommitOutcome::Conflict(conflict),
            Ok(()) => CommitOutcome::Committed(self.carry_out(&mut held, commit)),
        };
        if let Some(number) = number {
            let resolution = match &outcome {
                CommitOutcome::Committed(done) => Resolution::Committed(done.point),
                CommitOutcome::Conflict(_) => Resolution::NotCommitted,
            };
            held.rulings.insert(number, Ruling::Judged(resolution));
        }
        outcome
    }

    fn carry_out(&self, held: &mut Held, commit: &Commit) -> Committed {
        held.clock += 1;
        let point = Point::new(held.clock);
        let mut revisions = Vec::with_capacity(commit.puts.len());
        for put in &commit.puts {
            let revision = if self.unique_revisions {
                held.revision += 1;
                held.revision
            } else {
                // As a znode's version, which begins anew when the node is made again.
                held.current(&put.key).map_or(0, |version| version.revision + 1)
            };
            let version = Version { point, revision, record: Some(Arc::clone(&put.record)) };
            held.keys.entry(put.key.clone()).or_default().push(version);
            revisions.push(Revision::number(revision));
        }
        for delete in &commit.deletes {
            let version = Version { point, revision: 0, record: None };
            held.keys.entry(delete.key.clone()).or_default().push(version);
        }
        let changed = |key: &Key| {
            commit.puts.iter().any(|put| put.key == *key) || commit.deletes.iter().any(|delete| delete.key == *key)
        };
        for (keys, notify) in held.watchers.values() {
            if keys.iter().any(changed) {
                notify.notify_one();
            }
        }
        Committed { point, revisions }
    }

    /// Tells how a numbered commit ended. One that has not arrived never will.
    pub(crate) fn resolve(&self, number: u64) -> Resolution {
        match self.held().rulings.entry(number).or_insert(Ruling::Fenced) {
            Ruling::Judged(resolution) => *resolution,
            Ruling::Fenced => Resolution::NotCommitted,
        }
    }

    pub(crate) fn watch(&self, number: u64, keys: &[Key]) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        self.held().watchers.insert(number, (keys.to_vec(), Arc::clone(&notify)));
        notify
    }

    pub(crate) fn unwatch(&self, number: u64) {
        self.held().watchers.remove(&number);
    }

    /// The keys that have a record and lie under `prefix`.
    pub(crate) fn keys(&self, prefix: &Key) -> Vec<Key> {
        let held = self.held();
        held.keys.keys().filter(|key| key.is_under(prefix) && held.current(key).is_some()).cloned().collect()
    }

    /// All points at which a key's value changed. A reservation changes none.
    pub(crate) fn points(&self, key: &Key) -> Vec<Point> {
        let reserved = |record: &Arc<Record>| record.reservation.is_some();
        let changed = |version: &&Version| !version.record.as_ref().is_some_and(reserved);
        let held = self.held();
        let versions = held.keys.get(key).into_iter().flatten();
        versions.filter(changed).map(|version| version.point).collect()
    }
}
