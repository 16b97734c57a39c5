use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::Realm;

/// The results of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// The epoch of the floor. Values of earlier epochs were examined.
    pub epoch: u64,
    /// The number of deleted values that no record pointed at, for each store that had any.
    pub values: BTreeMap<Realm, u64>,
    /// The number of containers that are empty now, since all their values were deleted.
    pub containers: u64,
    /// The number of retired slots: no commit has used them since the sweep before.
    pub slots: u64,
    /// The number of removed records of dead clients' sessions, including the seats of their waiters.
    pub sessions: u64,
    /// The number of records of destroyed refs that were removed for good.
    pub tombstones: u64,
    /// What was left to the next sweep or to its owner, and why.
    pub skipped: Vec<Skipped>,
    /// How long the sweep took.
    pub elapsed: Duration,
}

/// A key or store that a sweep left as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// A key, or a store with its realm.
    pub what: String,
    /// Why it was left.
    pub why: String,
}

impl SweepReport {
    /// The number of deleted values, in all stores.
    pub fn all_values(&self) -> u64 {
        self.values.values().sum()
    }

    pub(super) fn skip(&mut self, what: impl ToString, why: impl ToString) {
        let skipped = Skipped { what: what.to_string(), why: why.to_string() };
        if !self.skipped.contains(&skipped) {
            self.skipped.push(skipped);
        }
    }
}
