use tokio::time::Instant;

use super::attempt::Primed;
use super::floor::KnownFloor;
use crate::protocol::{Commit, Committed, Entry, Key, Point};

/// Entries that were all current at one point, which one transaction hands over to those that wait for it.
pub(super) struct HandOver {
    /// Before this the commit that left them had not been sent.
    pub(super) sent: Instant,
    /// How many losses there had been when the attempt began that was committed.
    pub(super) history: u64,
    /// The floor that the commit was made under, or an earlier one.
    pub(super) floor: Option<KnownFloor>,
    pub(super) point: Point,
    pub(super) entries: Vec<(Key, Option<Entry>)>,
}

impl HandOver {
    pub(super) fn primed(&self) -> Box<Primed> {
        Primed::new(self.floor.clone(), self.point, self.entries.iter().cloned())
    }
}

/// What a commit has put, and when.
pub(super) struct Landed {
    /// Before this it had not been sent.
    pub(super) sent: Option<Instant>,
    pub(super) commit: Commit,
    pub(super) done: Committed,
}

/// On which key an attempt was lost while it waited, and what the next one need not read.
pub(super) type Lost = (Key, Option<Box<Primed>>);
