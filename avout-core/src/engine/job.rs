//! A commit as a machine of steps: it decides, and never waits. Whoever drives it does what a step asks for, and tells it
//! what came of that. The steps are those of `docs/protocol.md#committing`.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::attempt::{Attempt, Primed};
use super::floor::KnownFloor;
use super::handover::Landed;
use super::merged::Merged;
use super::options::Isolation;
use super::plan::CommitPlan;
use crate::backend::CoordinatorCapabilities;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Conflict, Floor, Key, Point, Receipt, Snapshot};

/// The commit of one attempt: what it is to write and compare, and how far it has come.
pub(super) struct Job<'a> {
    pub(super) attempt: &'a mut Attempt,
    pub(super) plan: CommitPlan,
    pub(super) deadline: Option<Instant>,
    pub(super) interest: &'a Interest,
    /// How often it was made in vain.
    pub(super) repeated: u32,
    /// What was committed, for the transactions that wait for this one.
    pub(super) landed: Option<Landed>,
    isolation: Isolation,
    capabilities: &'a CoordinatorCapabilities,
    /// The floor under which its records were seen. Should it be raised meanwhile, the commit must not go by a later one.
    floor: Option<KnownFloor>,
    state: State,
    /// The last outage that was in its way.
    outage: Option<Error>,
    /// Its new values were shown to their validators.
    validated: bool,
}

/// How far a commit has come.
enum State {
    /// Something may be in its way.
    Blocked(Obstacle),
    /// It can be made once its records and values are known. `unreserved`: nobody else has reserved those records.
    Free {
        unreserved: bool,
    },
    /// Nothing was sent, for this reason, unless it no longer holds.
    Refused(Error),
    Ended(Ended),
    Over,
}

/// What a commit gives way to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Obstacle {
    /// The queues of its keys, in which others of this process wait.
    Queues,
    /// Those who came first when it was made for the so-many-th time.
    Winners(u32),
    /// Those who have reserved records that it writes.
    Reservations,
    /// The store, which was unavailable when it was made for the so-many-th time: see [`Job::take_outage`].
    Outage(u32),
}

/// What is to be done next.
pub(super) enum Step {
    /// Give way to an obstacle, then call [`Job::go_on`], or [`Job::lose`].
    GiveWay(Obstacle),
    /// Read the records that it replaces, as of a point if there is one, for [`Job::bases`].
    Bases {
        keys: Vec<Key>,
        at: Option<Point>,
    },
    /// Make the values that depend on what is there now, for [`Job::values`].
    Values,
    /// Look whether what its error rests on still holds, and end: see [`Job::take_error`].
    Recheck,
    /// Send it, for [`Job::sent`].
    Send,
    Done(Ended),
}

/// What came of sending a commit.
pub(super) enum Sent {
    Committed(Landed),
    /// It took effect, as the slot told after its reply was lost.
    Resolved(Point),
    /// Another commit came first on these keys. The commit's own slot may be among them.
    Conflict {
        conflict: Conflict,
        slot: Option<Key>,
    },
    /// It did not take effect, for this reason, and the same may be tried again.
    NotCommitted(Error),
    /// It breaks a limit, so it was not sent.
    Refused(Error),
    /// One of the transactions in it has left, so it was not sent, and is to be made anew.
    Deserted,
}

/// How an attempt ended that its body did not give up.
pub(super) enum Ended {
    /// `None`: there was nothing to commit, and it took effect at its read point.
    Committed(Option<Point>),
    /// Another transaction came first.
    Lost { key: Key, primed: Option<Box<Primed>> },
}

/// Who wants a commit, which is asked right before it is sent.
#[derive(Default)]
pub(super) struct Interest {
    /// See [`Options::wanted`](super::Options::wanted).
    pub(super) wanted: Option<watch::Receiver<()>>,
    /// The transactions that are committed together by it.
    pub(super) merged: Option<Arc<Merged>>,
}

impl Interest {
    /// It is about to be sent. `false`: one of those in it has left, so it is to be made anew.
    pub(super) fn begin(&self, receipt: impl FnOnce() -> Option<Receipt>) -> bool {
        self.merged.as_ref().is_none_or(|merged| merged.begin(receipt().as_ref()))
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.has_changed().is_ok())
    }

    /// What was sent did not take effect.
    pub(super) fn undo(&self) {
        self.merged.iter().for_each(|merged| merged.undo());
    }
}

impl<'a> Job<'a> {
    /// A commit of `plan`, which was taken out of the attempt. `floor` is known to the client, and not a later one than its records
    /// were seen under.
    pub(super) fn new(
        attempt: &'a mut Attempt,
        plan: CommitPlan,
        isolation: Isolation,
        capabilities: &'a CoordinatorCapabilities,
        floor: Option<KnownFloor>,
        deadline: Option<Instant>,
        interest: &'a Interest,
    ) -> Self {
        Self {
            attempt,
            plan,
            deadline,
            interest,
            repeated: 0,
            landed: None,
            isolation,
            capabilities,
            floor,
            state: State::Blocked(Obstacle::Queues),
            outage: None,
            validated: false,
        }
    }

    /// What is to be done next: the same again, until it was told what came of that.
    ///
    /// # Panics
    /// After it was [`Done`](Step::Done).
    pub(super) fn step(&mut self) -> Step {
        match &self.state {
            &State::Blocked(obstacle) => Step::GiveWay(obstacle),
            &State::Free { unreserved } => self.prepare(unreserved),
            State::Refused(_) => Step::Recheck,
            State::Ended(_) | State::Over => match std::mem::replace(&mut self.state, State::Over) {
                State::Ended(ended) => Step::Done(ended),
                _ => unreachable!("a step after the last one"),
            },
        }
    }

    fn prepare(&mut self, unreserved: bool) -> Step {
        if !self.plan.has_bases() {
            let keys = self.plan.keys_without_base();
            return Step::Bases { at: self.point_of_bases(), keys };
        }
        if let Err(error) = self.plan.check_bases() {
            return self.refuse(error);
        }
        if !unreserved {
            return Step::GiveWay(Obstacle::Reservations);
        }
        if !self.plan.has_values() {
            return Step::Values;
        }
        if !self.validated {
            if let Err(error) = self.plan.validate() {
                return self.refuse(error);
            }
            self.validated = true;
        }
        Step::Send
    }

    /// Where the records are to be read that it replaces. A base as of the read point is stale at the commit if the key was written
    /// since.
    fn point_of_bases(&self) -> Option<Point> {
        let native = self.capabilities.native_snapshots && self.isolation == Isolation::Snapshot;
        self.attempt.read_point.filter(|_| native && self.plan.lacks_bound_bases())
    }

    /// The obstacle is out of the way.
    pub(super) fn go_on(&mut self, passed: Obstacle) {
        let unreserved = matches!(passed, Obstacle::Reservations);
        if let (Obstacle::Queues, Some(floor)) = (passed, &self.floor) {
            let history = self.attempt.history;
            self.plan.assume_bases(|under, then| under == floor && then == history);
        }
        self.state = State::Free { unreserved };
    }

    /// Another transaction came first.
    pub(super) fn lose(&mut self, key: Key, primed: Option<Box<Primed>>) {
        self.state = State::Ended(Ended::Lost { key, primed });
    }

    /// Nothing was sent, for this reason. An error may not rest on a record that was assumed and not read.
    fn refuse(&mut self, error: Error) -> Step {
        self.state = State::Refused(error);
        Step::Recheck
    }

    /// The records that were asked for.
    pub(super) fn bases(
        &mut self,
        keys: &[Key],
        at: Option<Point>,
        read: Result<(Snapshot, KnownFloor)>,
    ) -> Result<()> {
        let snapshot = match read {
            Ok((snapshot, known)) => {
                self.floor.get_or_insert(known);
                snapshot
            }
            Err(error) if at.is_some() && error.kind() == ErrorKind::TooOld => {
                self.lose(keys[0].clone(), None);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let read_point = self.attempt.read_point.filter(|_| self.isolation == Isolation::Snapshot);
        for (key, entry) in keys.iter().zip(snapshot.entries) {
            let changed =
                entry.as_ref().zip(read_point).is_some_and(|(entry, read)| entry.record.since(entry.point) > read);
            let planned = self.plan.write_of(key).expect("the plan's own keys were read");
            if changed && !planned.soft {
                self.lose(key.clone(), None);
                return Ok(());
            }
            let bound = self.isolation == Isolation::Snapshot && !planned.soft;
            planned.rebase(entry);
            // As of the read point, or not changed since. What is not there may have been removed since.
            planned.seen = bound && (at.is_some() || planned.base().is_some());
        }
        self.validated = false;
        Ok(())
    }

    /// The values were made; or others replace one faster than it can be read, and the attempt is lost on that key.
    pub(super) fn values(&mut self, made: Result<Option<Key>>) {
        self.validated = false;
        match made {
            Ok(None) => {}
            Ok(Some(key)) => self.lose(key, None),
            Err(error) => self.state = State::Refused(error),
        }
    }

    /// The floor that it goes by. A read has brought it along, if nothing before did: at the latest that of the bases.
    pub(super) fn floor(&self) -> &KnownFloor {
        static NONE: KnownFloor = KnownFloor { epoch: 0, revision: None };
        self.floor.as_ref().unwrap_or(&NONE)
    }

    /// A floor under which records were seen that it did not read itself. One that is known already counts.
    pub(super) fn learn_floor(&mut self, floor: Option<&KnownFloor>) {
        self.floor = self.floor.take().or_else(|| floor.cloned());
    }

    /// The error with which it is to end.
    ///
    /// # Panics
    /// If the last step was not [`Recheck`](Step::Recheck).
    pub(super) fn take_error(&mut self) -> Error {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Refused(error) => error,
            _ => unreachable!("it was not refused"),
        }
    }

    /// Why it was not made, if that was because the store was unavailable.
    pub(super) fn take_outage(&mut self) -> Option<Error> {
        self.outage.take()
    }

    /// What came of sending it.
    pub(super) fn sent(&mut self, sent: Sent) {
        match sent {
            Sent::Committed(landed) => {
                self.state = State::Ended(Ended::Committed(Some(landed.done.point)));
                self.landed = Some(landed);
            }
            Sent::Resolved(point) => self.state = State::Ended(Ended::Committed(Some(point))),
            Sent::Conflict { conflict, slot } => {
                // Entries that were seen under an earlier floor are not to be used under the new one.
                if conflict.stale.contains(&Floor::key()) {
                    return self.lose(Floor::key(), None);
                }
                if let Some(key) = self.plan.lost_on(&conflict.stale, slot.as_ref()) {
                    let plan = std::mem::take(&mut self.plan);
                    let primed = self.floor.clone().and_then(|floor| plan.primed(conflict, floor));
                    return self.lose(key, primed);
                }
                self.plan.take_in(conflict);
                self.repeat(Obstacle::Winners(self.repeated));
            }
            Sent::NotCommitted(reason) => {
                self.outage = Some(reason);
                self.repeat(Obstacle::Outage(self.repeated));
            }
            // What is there now may have room for it.
            Sent::Refused(_) if self.plan.drop_assumed() => self.state = State::Free { unreserved: false },
            Sent::Refused(error) => self.state = State::Refused(error),
            Sent::Deserted => {
                self.plan.recompute();
                self.state = State::Free { unreserved: false };
            }
        }
    }

    fn repeat(&mut self, obstacle: Obstacle) {
        self.repeated += 1;
        self.validated = false;
        self.state = State::Blocked(obstacle);
    }
}

#[cfg(test)]
mod tests;
