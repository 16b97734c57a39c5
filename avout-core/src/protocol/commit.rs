use std::sync::Arc;

use super::{Key, Point, Record, Revision};

/// One key's current record, with its revision and the point where it took effect.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The token that a commit compares.
    pub revision: Revision,
    /// Where the record took effect.
    pub point: Point,
    /// The record.
    pub record: Arc<Record>,
}

/// Several keys' entries, all current together.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// A point at which all entries were current.
    pub point: Point,
    /// In the order of the keys that were asked for; `None` where there is no record.
    pub entries: Vec<Option<Entry>>,
}

/// What a transaction asks its coordinator to do, all or nothing.
///
/// A key occurs in at most one of the three lists, once.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Keys that must be as they were seen.
    pub checks: Vec<Check>,
    /// Keys that get a new record, if they are as expected.
    pub puts: Vec<Put>,
    /// Keys whose record is removed for good, if they are as expected.
    pub deletes: Vec<Delete>,
}

/// A key that must still have this revision.
#[derive(Clone, Debug)]
pub struct Check {
    /// The key.
    pub key: Key,
    /// Its revision; `None`: it must be absent.
    pub revision: Option<Revision>,
}

/// A record that takes the place of one with this revision.
#[derive(Clone, Debug)]
pub struct Put {
    /// The key.
    pub key: Key,
    /// The revision of the record that it replaces; `None`: the key must be absent.
    pub revision: Option<Revision>,
    /// The new record.
    pub record: Arc<Record>,
}

/// A record with this revision that is removed.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The key.
    pub key: Key,
    /// The revision of the record.
    pub revision: Revision,
}

impl Commit {
    /// Every key with its expected revision: checks, puts, deletes.
    pub fn expectations(&self) -> impl Iterator<Item = (&Key, Option<&Revision>)> {
        let checks = self.checks.iter().map(|check| (&check.key, check.revision.as_ref()));
        let puts = self.puts.iter().map(|put| (&put.key, put.revision.as_ref()));
        let deletes = self.deletes.iter().map(|delete| (&delete.key, Some(&delete.revision)));
        checks.chain(puts).chain(deletes)
    }

    /// The keys that are not as the commit expects in `now`, a snapshot of all its keys in the order of
    /// [`expectations`](Self::expectations); `None` if all are. A commit that writes nothing took effect at such a snapshot.
    pub fn conflict_with(&self, now: Snapshot) -> Option<Conflict> {
        let (mut stale, mut entries) = (Vec::new(), Vec::new());
        for ((key, expected), entry) in self.expectations().zip(now.entries) {
            if entry.as_ref().map(|entry| &entry.revision) != expected {
                stale.push(key.clone());
                entries.push(entry);
            }
        }
        let fresh = Some(Snapshot { point: now.point, entries });
        (!stale.is_empty()).then_some(Conflict { stale, fresh })
    }

    /// How many keys it names.
    pub fn len(&self) -> usize {
        self.checks.len() + self.puts.len() + self.deletes.len()
    }

    /// Whether it names no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How a commit ended, when that is known.
#[derive(Clone, Debug)]
pub enum CommitOutcome {
    /// All of it took effect.
    Committed(Committed),
    /// Nothing of it took effect, since some keys were not as expected.
    Conflict(Conflict),
}

/// A commit that took effect.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Where.
    pub point: Point,
    /// The new revisions, in the order of the commit's puts.
    pub revisions: Vec<Revision>,
}

/// A commit that did not.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// The keys that were not as expected: all of them if `fresh` is given, else at least one.
    pub stale: Vec<Key>,
    /// Where it costs no request of its own: the entries of `stale`, in its order, at a point where all other
    /// keys of the commit were as expected.
    pub fresh: Option<Snapshot>,
}
