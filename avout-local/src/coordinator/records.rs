use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avout_core::backend::CoordinatorCapabilities;
use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Entry, Realm, Record, Snapshot};
use avout_core::{Key, Point, Revision};
use smallvec::SmallVec;

use crate::shards::Shards;
use crate::watch::Registry;

/// A key's current record. Its revision is the number of its point, which no other commit has.
struct Current {
    point: Point,
    record: Arc<Record>,
}

impl Current {
    fn revision(&self) -> Revision {
        Revision::number(self.point.number().into())
    }

    fn is_expected(current: Option<&Self>, expected: Option<&Revision>) -> bool {
        match (current, expected) {
            (Some(current), Some(expected)) => expected.as_number() == Some(current.point.number().into()),
            (None, None) => true,
            _ => false,
        }
    }

    fn entry(&self) -> Entry {
        Entry { revision: self.revision(), point: self.point, record: Arc::clone(&self.record) }
    }
}

/// The point of the last commit. Every commit changes it, so it lies apart from what they only read.
#[derive(Default)]
#[repr(align(128))]
struct Clock(AtomicU64);

/// The coordinator's part of a namespace.
pub(crate) struct Records {
    pub(super) capabilities: CoordinatorCapabilities,
    current: Shards<Current>,
    clock: Clock,
    pub(super) registry: Arc<Registry>,
}

impl Records {
    pub(crate) fn new(realm: Realm) -> Self {
        let mut capabilities = CoordinatorCapabilities::new(realm);
        capabilities.in_process = true;
        capabilities.max_inline = usize::MAX;
        capabilities.definite_replies = true;
        capabilities.unique_revisions = true;
        Self { capabilities, current: Shards::default(), clock: Clock::default(), registry: Arc::default() }
    }

    /// The clock is read while all keys are locked. A commit of one of them takes its point under
    /// the same locks. So each one is either before this moment, is applied and has at most this point, or is after it and
    /// will have a greater one: the entries are all current at the point. Commits of other keys may have
    /// taken a point up to this one and not be applied yet; who reads those keys waits for their locks.
    pub(super) fn read(&self, keys: &[Key]) -> Snapshot {
        let locked = self.current.lock(keys.iter());
        let point = self.now();
        let entries = keys.iter().enumerate().map(|(place, key)| locked.get(place, key).map(Current::entry)).collect();
        Snapshot { point, entries }
    }

    fn now(&self) -> Point {
        Point::new(self.clock.0.load(Ordering::SeqCst))
    }

    pub(super) fn commit(&self, commit: &Commit) -> CommitOutcome {
        let mut locked = self.current.lock(commit.expectations().map(|(key, _)| key));
        let mut stale = Vec::new();
        let mut entries = Vec::new();
        for (place, (key, expected)) in commit.expectations().enumerate() {
            let current = locked.get(place, key);
            if !Current::is_expected(current, expected) {
                stale.push(key.clone());
                entries.push(current.map(Current::entry));
            }
        }
        if !stale.is_empty() {
            return CommitOutcome::Conflict(Conflict { stale, fresh: Some(Snapshot { point: self.now(), entries }) });
        }
        if commit.puts.is_empty() && commit.deletes.is_empty() {
            return CommitOutcome::Committed(Committed { point: self.now(), revisions: Vec::new() });
        }

        let point = Point::new(self.clock.0.fetch_add(1, Ordering::SeqCst) + 1);
        // What is replaced is dropped after the locks: it may hold values whose `drop` is anybody's code.
        let mut replaced: SmallVec<[Current; 4]> = SmallVec::new();
        let mut place = commit.checks.len();
        for put in &commit.puts {
            let current = Current { point, record: Arc::clone(&put.record) };
            replaced.extend(locked.insert(place, &put.key, current));
            place += 1;
        }
        for delete in &commit.deletes {
            replaced.extend(locked.remove(place, &delete.key));
            place += 1;
        }
        drop(locked);
        let puts = commit.puts.iter().map(|put| &put.key);
        self.registry.wake(puts.chain(commit.deletes.iter().map(|delete| &delete.key)));
        let revision = Revision::number(point.number().into());
        CommitOutcome::Committed(Committed { point, revisions: vec![revision; commit.puts.len()] })
    }

    /// The keys under `prefix` that have a record, sorted.
    pub(super) fn keys(&self, prefix: &Key) -> Vec<Key> {
        self.current.keys(prefix, |_| true)
    }
}
