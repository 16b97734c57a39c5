use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::{Action, Attempt, Primed, Seen, Touched, Write};
use super::cell::{Cell, Function, absent};
use super::floor::KnownFloor;
use super::handover::{HandOver, Landed};
use super::options::Isolation;
use crate::backend::Coordinator;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Check, Commit, Committed, Conflict, Entry, Key, Payload, Put, Revision, Shared};

/// What an ended attempt wants to commit.
#[derive(Default)]
pub(super) struct CommitPlan {
    pub(super) checks: Vec<(Key, Option<Entry>)>,
    pub(super) writes: Vec<Planned>,
}

/// One write of a plan.
pub(super) struct Planned {
    pub(super) write: Write,
    /// The record that it replaces, once it is known. `Some(None)`: there is none.
    pub(super) base: Option<Option<Entry>>,
    /// The new value, as long as it holds for `base`; `None` too where the ref is destroyed.
    pub(super) computed: Option<Shared>,
    /// The value does not depend on what the body saw: if only such keys are stale the commit is made again without the body.
    pub(super) soft: bool,
    /// The body came to know what was there.
    read: bool,
    /// `base` was current at the attempt's read point.
    pub(super) seen: bool,
    /// `base` was not read, but is what the last blind write of this client has left.
    assumed: bool,
}

impl CommitPlan {
    /// Takes the plan out of an attempt; `Err` is the key on which it is lost already.
    pub(super) fn of(attempt: &mut Attempt, isolation: Isolation) -> Result<Self, Key> {
        let writes = attempt.keys.iter().filter(|(_, touched)| touched.write.is_some()).count();
        let mut plan = Self { checks: Vec::new(), writes: Vec::with_capacity(writes) };
        if writes == 0 {
            // What only reads took effect at its read point, whatever has changed since.
            return Ok(plan);
        }
        let has_read = attempt.read_point.is_some();
        for (key, touched) in attempt.keys.iter_mut() {
            let checked = touched.ensured || (touched.read && isolation == Isolation::Serializable);
            let Touched { seen, write, read, .. } = touched;
            let historical = seen.as_ref().is_some_and(|seen| seen.past.is_some());
            if let Some(write) = write.take() {
                // Under Snapshot a blind write must not jump over a write that the body did not see.
                let free = isolation == Isolation::Serializable || !has_read;
                let commutes = matches!(write.action, Action::Commute { .. });
                let soft = !*read && !touched.ensured && (commutes || free);
                if historical && !soft {
                    return Err(key.clone());
                }
                let read = *read || touched.ensured;
                plan.writes.push(Planned::new(write, seen.take().filter(|_| !historical), soft, read));
            } else if checked && seen.is_some() {
                if historical {
                    return Err(key.clone());
                }
                plan.checks.push((key.clone(), seen.take().and_then(|seen| seen.entry)));
            }
        }
        Ok(plan)
    }

    /// One write that depends on nothing that was seen.
    pub(super) fn blind(write: Write) -> Self {
        Self { checks: Vec::new(), writes: vec![Planned::new(write, None, true, false)] }
    }

    /// Whether each write's record is known.
    pub(super) fn has_bases(&self) -> bool {
        self.writes.iter().all(|planned| planned.base.is_some())
    }

    /// Whether each write's value is known.
    pub(super) fn has_values(&self) -> bool {
        self.writes.iter().all(|planned| planned.computed.is_some() || matches!(planned.write.action, Action::Destroy))
    }

    /// Has the values of commuted functions made anew.
    pub(super) fn recompute(&mut self) {
        let commuted = |planned: &&mut Planned| matches!(planned.write.action, Action::Commute { .. });
        self.writes.iter_mut().filter(commuted).for_each(|planned| planned.computed = None);
    }

    pub(super) fn keys_without_base(&self) -> Vec<Key> {
        let unknown = self.writes.iter().filter(|planned| planned.base.is_none());
        unknown.map(|planned| planned.write.cell.key.clone()).collect()
    }

    /// Takes what this client's last blind writes have left for the bases that are not known: if it is what is there still, there
    /// is no need to read it. All of them or none, for one read serves for all. Under a later floor than it was left under its
    /// revision may stand for something else; `holds` says under which floors it is of use.
    pub(super) fn assume_bases(&mut self, holds: impl Fn(&KnownFloor, u64) -> bool) {
        let unknown = || self.writes.iter().enumerate().filter(|(_, planned)| planned.base.is_none());
        let left = |(at, planned): (usize, &Planned)| {
            let entry = planned.is_blind_set().then(|| planned.write.cell.take_remembered(&holds)).flatten()?;
            Some((at, entry))
        };
        let Some(left) = unknown().map(left).collect::<Option<Vec<_>>>() else { return };
        for (at, entry) in left {
            self.writes[at].base = Some(Some(entry));
            self.writes[at].assumed = true;
        }
    }

    /// Takes the assumed bases away again, since an error may not rest on them; whether there were any.
    pub(super) fn drop_assumed(&mut self) -> bool {
        let mut any = false;
        for planned in self.writes.iter_mut().filter(|planned| planned.assumed) {
            planned.base = None;
            planned.assumed = false;
            any = true;
        }
        any
    }

    /// Keeps what its blind writes have left, after it was committed, for the next ones.
    pub(super) fn remember(
        &self,
        (floor, history): (&KnownFloor, u64),
        commit: &Commit,
        done: &Committed,
        coordinator: &dyn Coordinator,
    ) {
        let puts = commit.puts.iter().zip(&done.revisions);
        for (planned, (put, revision)) in self.writes.iter().zip(puts).filter(|(planned, _)| planned.is_blind_set()) {
            planned.write.cell.remember(floor, history, entry_of(put, revision, done, coordinator));
        }
    }

    pub(super) fn write_of(&mut self, key: &Key) -> Option<&mut Planned> {
        self.writes.iter_mut().find(|planned| planned.write.cell.key == *key)
    }

    /// The first of these stale keys that the body depended on, but for its own slot, which is not of the plan.
    pub(super) fn lost_on(&self, stale: &[Key], slot: Option<&Key>) -> Option<Key> {
        let soft = |key: &Key| self.writes.iter().any(|planned| planned.soft && planned.write.cell.key == *key);
        stale.iter().find(|key| Some(*key) != slot && !soft(key)).cloned()
    }

    /// Takes in a conflict on keys that the body did not depend on.
    pub(super) fn take_in(&mut self, conflict: Conflict) {
        let mut fresh = conflict.fresh.map(|snapshot| snapshot.entries.into_iter());
        for key in &conflict.stale {
            let entry = fresh.as_mut().and_then(Iterator::next);
            if let Some(planned) = self.write_of(key) {
                match entry {
                    Some(entry) => planned.rebase(entry),
                    None => planned.base = None,
                }
            }
        }
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let revision = |entry: &Option<Entry>| entry.as_ref().map(|entry| entry.revision.clone());
        self.checks.iter().map(|(key, entry)| Check { key: key.clone(), revision: revision(entry) }).collect()
    }

    /// What it does, if that is nothing but to commute one ref.
    pub(super) fn lone_commute(&self) -> Option<(&Arc<Cell>, &[Function])> {
        match (&self.checks[..], &self.writes[..]) {
            ([], [Planned { write: Write { cell, action: Action::Commute { functions, .. } }, soft: true, .. }]) => {
                Some((cell, functions))
            }
            _ => None,
        }
    }

    /// Every key that it checks or writes.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        let written = self.writes.iter().map(|planned| &planned.write.cell.key);
        self.checks.iter().map(|(key, _)| key).chain(written)
    }

    /// Whether a record is not known that must be as the body saw it.
    pub(super) fn lacks_bound_bases(&self) -> bool {
        self.writes.iter().any(|planned| planned.base.is_none() && !planned.soft)
    }

    /// Shows every new value to its ref's validator.
    pub(super) fn validate(&self) -> Result<()> {
        let mut new = self.writes.iter().filter_map(|planned| Some((planned, planned.computed.as_ref()?)));
        new.try_for_each(|(planned, value)| planned.write.cell.validate(value))
    }

    /// Checks that each ref is there, or is not, as its write needs it.
    pub(super) fn check_bases(&self) -> Result<()> {
        self.writes.iter().try_for_each(Planned::check_base)
    }

    /// The records that an error of its commit rests on and that were not seen at the attempt's read point, each as it was.
    pub(super) fn unseen(&self, error: &Error) -> impl Iterator<Item = (&Key, Option<&Entry>)> {
        let rests = |planned: &&Planned| error.key().is_none_or(|key| *key == planned.write.cell.key);
        let unseen = self.writes.iter().filter(|planned| !planned.seen).filter(rests);
        unseen.map(|planned| (&planned.write.cell.key, planned.base()))
    }

    /// Of what the body came to know, what the commit compares, each as it was.
    pub(super) fn known(&self) -> impl Iterator<Item = (&Key, Option<&Entry>)> {
        let checked = self.checks.iter().map(|(key, entry)| (key, entry.as_ref()));
        let read = self.writes.iter().filter(|planned| planned.read && planned.seen);
        checked.chain(read.map(|planned| (&planned.write.cell.key, planned.base())))
    }

    /// The records that it replaces.
    pub(super) fn bases(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.writes.iter().filter_map(|planned| Some((&planned.write.cell.key, planned.base()?)))
    }

    /// Compares with entries that were committed since: the first key on which the plan is lost. Where the body did not
    /// depend on a key, it takes the newer entry as the write's base.
    pub(super) fn stale_by(&mut self, left: &HandOver) -> Option<Key> {
        let differs = |seen: &Option<Entry>, now: &Option<Entry>| {
            seen.as_ref().map(|entry| &entry.revision) != now.as_ref().map(|entry| &entry.revision)
        };
        for (key, now) in &left.entries {
            let checked = self.checks.iter().find(|(other, _)| other == key);
            if checked.is_some_and(|(_, seen)| differs(seen, now)) {
                return Some(key.clone());
            }
            if let Some(planned) = self.write_of(key)
                && planned.base.as_ref().is_none_or(|seen| differs(seen, now))
            {
                if !planned.soft {
                    return Some(key.clone());
                }
                let newer = |seen: &Entry| now.as_ref().is_none_or(|now| seen.point < now.point);
                if planned.base().is_none_or(newer) {
                    planned.rebase(now.clone());
                }
            }
        }
        None
    }

    /// What a commit of this plan has left.
    pub(super) fn hand_over(
        self,
        (sent, history): (Instant, u64),
        floor: KnownFloor,
        landed: Landed,
        coordinator: &dyn Coordinator,
    ) -> HandOver {
        let Landed { commit, done, .. } = landed;
        let put = commit.puts.iter().zip(&done.revisions).map(|(put, revision)| {
            let entry = entry_of(put, revision, &done, coordinator);
            (put.key.clone(), Some(entry))
        });
        let entries = put.filter(|(key, _)| !key.is_bookkeeping()).chain(self.checks).collect();
        HandOver { sent, history, floor: Some(floor), point: done.point, entries }
    }

    /// What the next attempt need not read, after a conflict that gave fresh entries.
    pub(super) fn primed(self, conflict: Conflict, floor: KnownFloor) -> Option<Box<Primed>> {
        let fresh = conflict.fresh?;
        let checked = self.checks.into_iter();
        let written =
            self.writes.into_iter().filter_map(|planned| Some((planned.write.cell.key.clone(), planned.base?)));
        // Of a key that comes twice the later entry counts.
        let entries = checked.chain(written).chain(conflict.stale.into_iter().zip(fresh.entries));
        Some(Primed::new(Some(floor), fresh.point, entries))
    }
}

/// What a put has become.
fn entry_of(put: &Put, revision: &Revision, done: &Committed, coordinator: &dyn Coordinator) -> Entry {
    let point = coordinator.entry_point(revision, done.point);
    Entry { revision: revision.clone(), point, record: Arc::clone(&put.record) }
}

impl Planned {
    fn new(write: Write, seen: Option<Seen>, soft: bool, read: bool) -> Self {
        let computed = match &write.action {
            Action::Set(value) | Action::Create(value) => Some(Arc::clone(value)),
            Action::Commute { provisional, .. } => seen.as_ref().map(|_| Arc::clone(provisional)),
            Action::Destroy => None,
        };
        let (seen, base) = (seen.is_some(), seen.map(|seen| seen.entry));
        Self { write, base, computed, soft, read, seen, assumed: false }
    }

    /// Takes in another base, after the one before was stale.
    pub(super) fn rebase(&mut self, entry: Option<Entry>) {
        self.base = Some(entry);
        self.seen = false;
        self.assumed = false;
        if matches!(self.write.action, Action::Commute { .. }) {
            self.computed = None;
        }
    }

    /// Whether it sets a value, whatever was there.
    fn is_blind_set(&self) -> bool {
        self.soft && matches!(self.write.action, Action::Set(_))
    }

    /// The current entry of a known base.
    pub(super) fn base(&self) -> Option<&Entry> {
        self.base.as_ref().and_then(Option::as_ref)
    }

    /// Checks that the ref is there, or is not, as the write needs it, and that it is of the cell's type.
    pub(super) fn check_base(&self) -> Result<()> {
        let key = &self.write.cell.key;
        let entry = self.base().filter(|entry| !matches!(entry.record.payload, Payload::Deleted));
        match (&self.write.action, entry) {
            (Action::Create(_), None) => Ok(()),
            (Action::Create(_), Some(_)) => {
                Err(Error::new(ErrorKind::AlreadyExists, "there is a ref of this name already: open it").at(key))
            }
            (_, Some(entry)) => self.write.cell.check_meta(&entry.record.meta),
            (_, None) => Err(absent(key)),
        }
    }
}
