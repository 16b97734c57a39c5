use std::collections::BTreeMap;
use std::time::Duration;

use crate::protocol::Realm;

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// The floor's epoch: values of earlier ones were looked at.
    pub epoch: u64,
    /// How many values were deleted that no record points at, for each store in which there were any.
    pub values: BTreeMap<Realm, u64>,
    /// How many containers hold nothing any more, because all their values were among those.
    pub containers: u64,
    /// How many slots were retired: those that no commit has used since the sweep before.
    pub slots: u64,
    /// How many records were removed that sessions of dead clients had left: their own, and their waiters' seats.
    pub sessions: u64,
    /// How many records of destroyed refs were removed for good.
    pub tombstones: u64,
    /// What was left for the next sweep, or to its owner, and why.
    pub skipped: Vec<Skipped>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What a sweep left as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Skipped {
    /// A key, or a store with its realm.
    pub what: String,
    /// Why.
    pub why: String,
}

impl SweepReport {
    /// How many values were deleted, in all stores.
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
