use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use avout_core::{Error, ErrorKind, Receipt};

use crate::history::{Attempt, History, Operation, Outcome, Transaction};

/// Writes down what clients do. What a killed client leaves behind stays as it was, of unknown outcome.
#[derive(Default)]
pub(super) struct Recorder {
    clock: AtomicU64,
    entries: Mutex<Vec<Entry>>,
}

struct Entry {
    process: u64,
    invoked: u64,
    completed: Option<u64>,
    outcome: Outcome,
    point: Option<u64>,
    receipt: Option<Receipt>,
    attempts: Vec<Attempt>,
}

/// A transaction in the record.
#[derive(Clone, Copy)]
pub(super) struct Handle(usize);

impl fmt::Display for Handle {
    /// As the history's anomalies name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transaction {}", self.0)
    }
}

impl Recorder {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction is called.
    pub(super) fn invoke(&self, process: u64) -> Handle {
        let invoked = self.tick();
        let mut entries = self.entries();
        let (completed, outcome) = (None, Outcome::Unknown);
        entries.push(Entry { process, invoked, completed, outcome, point: None, receipt: None, attempts: Vec::new() });
        Handle(entries.len() - 1)
    }

    /// An attempt of its body begins.
    pub(super) fn begin(&self, Handle(at): Handle) {
        let ended = self.tick();
        self.entries()[at].attempts.push(Attempt { ended, operations: Vec::new() });
    }

    /// Its body did this.
    pub(super) fn push(&self, Handle(at): Handle, operations: impl IntoIterator<Item = Operation>) {
        let ended = self.tick();
        let mut entries = self.entries();
        let attempt = entries[at].attempts.last_mut().expect("an attempt has begun");
        attempt.ended = ended;
        attempt.operations.extend(operations);
    }

    /// How much its body did so far.
    pub(super) fn mark(&self, Handle(at): Handle) -> usize {
        self.entries()[at].attempts.last().map_or(0, |attempt| attempt.operations.len())
    }

    /// What its body wrote since the mark is undone; what it read was there all the same.
    pub(super) fn undo(&self, Handle(at): Handle, mark: usize) {
        let mut entries = self.entries();
        let attempt = entries[at].attempts.last_mut().expect("an attempt has begun");
        let undone = attempt.operations.split_off(mark);
        let own = |key: &str, element: u64| undone.contains(&Operation::append(key, element));
        let reads = undone.iter().filter(|operation| !operation.is_write()).cloned().map(|mut read| {
            if let Operation::ReadList { key, elements } = &mut read {
                elements.retain(|element| !own(key, *element));
            }
            read
        });
        attempt.operations.extend(reads);
    }

    pub(super) fn at_point(&self, Handle(at): Handle, point: u64) {
        self.entries()[at].point = Some(point);
    }

    /// It committed.
    pub(super) fn committed(&self, Handle(at): Handle) {
        let now = self.tick();
        let mut entries = self.entries();
        (entries[at].completed, entries[at].outcome) = (Some(now), Outcome::Committed);
    }

    pub(super) fn has_committed(&self, Handle(at): Handle) -> bool {
        self.entries()[at].outcome == Outcome::Committed
    }

    /// How many ended without having committed, or not at all.
    pub(super) fn uncommitted(&self) -> usize {
        self.entries().iter().filter(|entry| entry.outcome != Outcome::Committed).count()
    }

    /// It ended with an error.
    pub(super) fn failed(&self, Handle(at): Handle, error: &Error) {
        let now = self.tick();
        let mut entries = self.entries();
        let entry = &mut entries[at];
        entry.completed = Some(now);
        if error.kind() == ErrorKind::OutcomeUnknown {
            entry.receipt = error.receipt().cloned();
        } else {
            entry.outcome = Outcome::Aborted;
        }
    }

    /// What can still be found out.
    pub(super) fn receipts(&self) -> Vec<(Handle, Receipt)> {
        let entries = self.entries();
        entries.iter().enumerate().filter_map(|(at, entry)| Some((Handle(at), entry.receipt.clone()?))).collect()
    }

    /// It was found out: it committed at this point, or not at all.
    pub(super) fn resolved(&self, Handle(at): Handle, point: Option<u64>) {
        let now = self.tick();
        let mut entries = self.entries();
        let entry = &mut entries[at];
        entry.outcome = if point.is_some() { Outcome::Committed } else { Outcome::Aborted };
        (entry.point, entry.completed) = (point, Some(now));
    }

    pub(super) fn history(&self) -> History {
        let mut entries = self.entries();
        let transaction = |entry: &mut Entry| {
            let operations = entry.attempts.pop().map(|attempt| attempt.operations).unwrap_or_default();
            Transaction {
                process: entry.process,
                invoked: entry.invoked,
                completed: entry.completed,
                outcome: entry.outcome,
                point: entry.point,
                operations,
                attempts: std::mem::take(&mut entry.attempts),
            }
        };
        entries.iter_mut().map(transaction).collect()
    }
}
