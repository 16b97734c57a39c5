use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Engine;
use super::attempt::{Attempt, Primed};
use super::failpoints::{self, Failpoint};
use super::floor::KnownFloor;
use super::merge::{Entered, Merged, Told};
use super::options::Isolation;
use super::plan::Plan;
use super::precedence::First;
use super::prepare::{Prewritten, validate};
use super::queue::{Ticket, leave};
use super::reserve::Reserved;
use super::send::Sent;
use super::slots::Lease;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Check, Commit, CommitOutcome, Conflict, Floor, Holder, Key, Point, Version};

/// How an attempt ended that its body did not give up.
pub(super) enum Ended {
    /// `None`: there was nothing to commit, and it took effect at its read point.
    Committed(Option<Point>),
    /// Another transaction came first.
    Lost { key: Key, primed: Option<Box<Primed>> },
}

/// What a transaction brings along from attempt to attempt.
pub(super) struct Standing {
    pub(super) begun: Instant,
    pub(super) deadline: Option<Instant>,
    /// Its places in the queues of keys that it lost on.
    pub(super) tickets: Vec<Ticket>,
    /// Who it is in reservations of its own.
    pub(super) holder: Option<Holder>,
    /// What it has reserved.
    pub(super) reserved: Vec<Reserved>,
    /// In memory: that others hold their commits back for it.
    pub(super) first: Option<First>,
    /// See [`Options::wanted`](super::Options::wanted).
    pub(super) wanted: Option<watch::Receiver<()>>,
    /// The transactions that this one commits together.
    pub(super) merged: Option<Arc<Merged>>,
}

impl Standing {
    pub(super) fn new(deadline: Option<Instant>) -> Self {
        Self {
            begun: Instant::now(),
            deadline,
            tickets: Vec::new(),
            holder: None,
            reserved: Vec::new(),
            first: None,
            wanted: None,
            merged: None,
        }
    }

    /// What was sent did not take effect.
    fn undo(&self) {
        self.merged.iter().for_each(|merged| merged.undo());
    }

    fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.has_changed().is_ok())
    }
}

impl Engine {
    /// Commits what an attempt wrote.
    ///
    /// # Cancel safety
    /// Dropped before the request is sent, nothing happens, and values in stores are deleted in the background. Dropped
    /// after, the commit takes effect or not as a whole; its slot is settled before it is used again.
    pub(super) async fn commit(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        isolation: Isolation,
        run: &mut Standing,
    ) -> Result<Ended> {
        let plan = match Plan::of(attempt, isolation) {
            Ok(plan) if plan.writes.is_empty() => return Ok(Ended::Committed(None)),
            Ok(plan) => self.check_writes().map(|()| plan)?,
            Err(key) => return Ok(Ended::Lost { key, primed: None }),
        };
        match self.commit_at_once(plan, attempt, run) {
            Ok(ended) => Ok(ended),
            Err(plan) => self.commit_merged_or_alone(plan, attempt, isolation, run).await,
        }
    }

    /// Commits a plan in memory, where there is nothing to wait for: the same as [`commit_plan`](Self::commit_plan) without
    /// what that may have to do. `Err` gives the plan back: there is something to wait for, to work out or to refuse.
    fn commit_at_once(&self, mut plan: Plan, attempt: &Attempt, run: &Standing) -> Result<Ended, Plan> {
        let capabilities = &self.capabilities;
        if capabilities.in_process && run.first.is_none() {
            self.precedence.wait();
        }
        let is_ready = capabilities.in_process
            && capabilities.definite_replies
            && capabilities.unique_revisions
            && run.tickets.is_empty()
            && !self.queues.any()
            && plan.writes.iter().all(|planned| planned.write.cell.inline)
            && plan.has_bases()
            && plan.has_values()
            && plan.check_bases().is_ok()
            && !self.reserved_by_others(&plan, run)
            && validate(&plan).is_ok();
        let no_version = &mut || unreachable!("an inline value has no version in memory");
        let Some(Ok(prepared)) = is_ready.then(|| self.prepare(&plan, no_version)) else {
            return Err(plan);
        };
        let commit = Commit { checks: plan.checks(), puts: prepared.puts, deletes: Vec::new() };
        if self.check_commit(&commit).is_err() {
            return Err(plan);
        }
        match self.send_now(&commit) {
            Some(CommitOutcome::Committed(done)) => {
                self.forget(&prepared.trimmed);
                self.janitor.delete(&self.config.tasks, prepared.trimmed);
                Ok(Ended::Committed(Some(done.point)))
            }
            Some(CommitOutcome::Conflict(conflict)) => match plan.lost_on(&conflict.stale, None) {
                Some(key) => {
                    let floor = attempt.floor.clone().or_else(|| self.floor.get());
                    let primed = floor.and_then(|floor| plan.primed(conflict, floor));
                    Ok(Ended::Lost { key, primed })
                }
                None => {
                    plan.take_in(conflict);
                    self.stats.reapplied();
                    Err(plan)
                }
            },
            None => Err(plan),
        }
    }

    /// Commits a plan, together with others where that can be.
    ///
    /// In a box of the size that each case needs: allocators are slower with more than a kilobyte.
    fn commit_merged_or_alone<'a>(
        self: &'a Arc<Self>,
        plan: Plan,
        attempt: &'a mut Attempt,
        isolation: Isolation,
        run: &'a mut Standing,
    ) -> Pin<Box<dyn Future<Output = Result<Ended>> + Send + 'a>> {
        // In memory a commit is shorter than what it takes to merge it with others. And an error of one that has read something is
        // to be held against that.
        let alone = self.capabilities.in_process || attempt.known().next().is_some();
        if alone {
            return Box::pin(self.commit_plan(plan, attempt, isolation, run));
        }
        match self.merger.enter(&plan, run.deadline) {
            Entered::Alone => Box::pin(self.commit_plan(plan, attempt, isolation, run)),
            Entered::Lead(lead) => Box::pin(async move {
                let ended = self.commit_plan(plan, attempt, isolation, run).await;
                lead.done(self);
                ended
            }),
            Entered::Wait(place) => Box::pin(async move {
                match place.told().await {
                    Told::Committed(point) => Ok(Ended::Committed(Some(point))),
                    Told::Failed(error) => Err(error),
                    Told::Alone => self.commit_plan(plan, attempt, isolation, run).await,
                }
            }),
        }
    }

    /// Commits a plan.
    ///
    /// What is done seldom, or takes long anyway, waits in a box of its own.
    pub(super) async fn commit_plan(
        &self,
        mut plan: Plan,
        attempt: &mut Attempt,
        isolation: Isolation,
        run: &mut Standing,
    ) -> Result<Ended> {
        let deadline = run.deadline;
        if run.tickets.is_empty()
            && self.queues.any()
            && let Some(lost) = Box::pin(self.queue_if_hot(&mut plan, attempt.read_point, run)).await
        {
            return Ok(lost);
        }
        // What is seen from here on is seen under this one: should it be raised meanwhile, the commit must not go by a later one.
        let mut floor = attempt.floor.take().or_else(|| self.floor.get());
        if !plan.has_bases()
            && let Some(floor) = &floor
        {
            plan.assume_bases(|left, history| left == floor && history == attempt.history);
        }
        for repeated in 0.. {
            if !plan.has_bases()
                && let Some(lost) =
                    Box::pin(self.fill_bases(&mut plan, &mut floor, attempt.read_point, isolation, deadline)).await?
            {
                return Ok(Ended::Lost { key: lost, primed: None });
            }
            if let Err(error) = plan.check_bases() {
                return Box::pin(self.refuse(error, &plan, attempt, floor.as_ref(), deadline)).await;
            }
            if self.reserved_by_others(&plan, run)
                && let Some(lost) = Box::pin(self.yield_to_reservations(&mut plan, run)).await?
            {
                return Ok(lost);
            }
            let valued = match plan.has_values() {
                true => Ok(None),
                false => Box::pin(self.final_values(&mut plan, deadline)).await,
            };
            if let Ok(Some(key)) = valued {
                return Ok(Ended::Lost { key, primed: None });
            }
            let valid = valued.and_then(|_| validate(&plan));
            if let Err(error) = valid {
                return Box::pin(self.refuse(error, &plan, attempt, floor.as_ref(), deadline)).await;
            }
            // A read brought it along, if nothing before did: at the latest that of the bases.
            let floor = floor.clone().unwrap_or(KnownFloor { epoch: 0, revision: None });
            let mut lease = match self.capabilities.definite_replies {
                true => None,
                false => Some(Box::pin(self.lease(floor.epoch, deadline)).await?),
            };
            let mut version = None;
            let prepared =
                match self.prepare(&plan, &mut || *version.get_or_insert_with(|| self.version(&mut lease, &floor))) {
                    // What is there now may have room for it.
                    Err(_) if self.doubts_bases(&mut plan) => continue,
                    Err(error) => {
                        return Box::pin(self.refuse(error, &plan, attempt, Some(&floor), deadline)).await;
                    }
                    Ok(prepared) => prepared,
                };
            if version.is_none()
                && let Some(lease) = &mut lease
            {
                lease.next_sequence();
            }

            let mut commit = Commit { checks: plan.checks(), puts: prepared.puts, deletes: Vec::new() };
            // Of a slot that was never written only the floor tells that it was not retired meanwhile.
            let new_slot = lease.as_ref().is_some_and(Lease::is_new);
            if version.is_some() || new_slot || !self.capabilities.unique_revisions {
                commit.checks.push(Check { key: Floor::key(), revision: floor.revision.clone() });
            }
            commit.puts.extend(lease.as_ref().map(Lease::put));
            match self.check_commit(&commit) {
                Err(_) if self.doubts_bases(&mut plan) => continue,
                Err(error) => return Box::pin(self.refuse(error, &plan, attempt, Some(&floor), deadline)).await,
                Ok(()) => {}
            }
            failpoints::reach(Failpoint::BeforeValueWrite).await;
            let written = match prepared.values.is_empty() {
                true => Ok(Prewritten::none(self)),
                false => Box::pin(self.write_values(prepared.values, deadline)).await,
            };
            let mut prewritten = match written {
                // The next sequence number gives another version.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    tracing::warn!(%error, "a version is taken: two clients have one id");
                    if !self.pause(self.backoff.outage(repeated), deadline).await {
                        return Err(error);
                    }
                    continue;
                }
                written => written?,
            };

            failpoints::reach(Failpoint::BetweenValueWriteAndCommit).await;
            // From here to the request there is no wait: whoever leaves before it is sent is not in it.
            let receipt = run.merged.as_ref().and(lease.as_ref()).map(|lease| lease.receipt(self, floor.epoch));
            if run.merged.as_ref().is_some_and(|merged| !merged.begin(receipt.as_ref())) {
                prewritten.discard();
                plan.recompute();
                continue;
            }
            if !run.is_wanted() {
                prewritten.discard();
                return Err(Error::new(ErrorKind::Unavailable, "nobody wants it any more, so it was not sent"));
            }
            prewritten.keep();
            let slot_key = lease.as_ref().map(|lease| lease.key().clone());
            // Only those who come next in a queue are told.
            let sent = (!run.tickets.is_empty()).then(Instant::now);
            let conflict = match Box::pin(self.send(&commit, lease, &floor, deadline)).await {
                Ok(Sent::Outcome(CommitOutcome::Committed(done))) => {
                    failpoints::reach(Failpoint::BetweenCommitAndCleanUp).await;
                    prewritten.committed();
                    self.forget(&prepared.trimmed);
                    self.janitor.delete(&self.config.tasks, prepared.trimmed);
                    let point = done.point;
                    // Where others write too it would only be in the way.
                    if repeated == 0 && !self.capabilities.in_process {
                        plan.leave_bases((&floor, attempt.history), &commit, &done, &*self.coordinator);
                    }
                    if let Some(sent) = sent {
                        leave(
                            &run.tickets,
                            plan.left((sent, attempt.history), floor, commit, done, &*self.coordinator),
                        );
                    }
                    return Ok(Ended::Committed(Some(point)));
                }
                Ok(Sent::Resolved(point)) => {
                    failpoints::reach(Failpoint::BetweenCommitAndCleanUp).await;
                    prewritten.committed();
                    self.forget(&prepared.trimmed);
                    self.janitor.delete(&self.config.tasks, prepared.trimmed);
                    return Ok(Ended::Committed(Some(point)));
                }
                Ok(Sent::Outcome(CommitOutcome::Conflict(conflict))) => {
                    prewritten.discard();
                    conflict
                }
                Ok(Sent::Undecided(conflict, unknown)) => match self.is_refuted(&plan, &commit, deadline).await {
                    true => {
                        prewritten.discard();
                        conflict
                    }
                    false => return Err(unknown),
                },
                Ok(Sent::NotCommitted(reason)) => {
                    tracing::debug!(%reason, "not committed, trying again");
                    prewritten.discard();
                    run.undo();
                    if !self.pause(self.backoff.outage(repeated), deadline).await || !run.is_wanted() {
                        return Err(reason);
                    }
                    continue;
                }
                Err(error) => {
                    if error.kind() != ErrorKind::OutcomeUnknown {
                        Prewritten::discard(prewritten);
                    }
                    return Err(error);
                }
            };
            run.undo();
            if let Some(ended) = Box::pin(self.after_conflict(&mut plan, conflict, slot_key.as_ref(), deadline)).await?
            {
                let (key, conflict) = ended;
                // Entries that were seen under an earlier floor are not to be used under the new one.
                let primed = if key == Floor::key() { None } else { plan.primed(conflict, floor) };
                return Ok(Ended::Lost { key, primed });
            }
            self.stats.reapplied();
            // Others of this process on the same keys are waited for, and those of other processes are given way to.
            let in_time = if run.tickets.is_empty() && repeated > 0 {
                let keys = plan.keys().cloned().collect();
                if let Some(lost) = Box::pin(self.queue_up(keys, &mut plan, attempt.read_point, run)).await {
                    return Ok(lost);
                }
                deadline.is_none_or(|deadline| Instant::now() < deadline)
            } else {
                Box::pin(self.yield_or_pause(repeated, deadline)).await
            };
            if !in_time {
                let key = plan.writes[0].write.cell.key.clone();
                return Ok(Ended::Lost { key, primed: None });
            }
        }
        unreachable!("the loop above has no end but a return")
    }

    /// Takes a conflict in: `None` if only keys were stale that the body did not depend on, and the plan
    /// is ready to be sent again.
    async fn after_conflict(
        &self,
        plan: &mut Plan,
        conflict: Conflict,
        slot: Option<&Key>,
        deadline: Option<Instant>,
    ) -> Result<Option<(Key, Conflict)>> {
        let floor = Floor::key();
        if let Some(at) = conflict.stale.iter().position(|key| *key == floor) {
            // The floor was raised: values of this attempt may be swept, and revisions that it saw come again.
            match &conflict.fresh {
                Some(fresh) => self.floor.correct(&KnownFloor::from_entry(fresh.entries[at].as_ref())?),
                None => drop(self.refresh_floor(deadline).await?),
            }
            return Ok(Some((floor, conflict)));
        }
        if let Some(key) = plan.lost_on(&conflict.stale, slot) {
            return Ok(Some((key, conflict)));
        }
        plan.take_in(conflict);
        Ok(None)
    }

    /// The floor as it is now, whatever was known of it.
    pub(super) async fn refresh_floor(&self, deadline: Option<Instant>) -> Result<KnownFloor> {
        let entry = self.entry(&Floor::key(), deadline).await?;
        let floor = KnownFloor::from_entry(entry.as_ref())?;
        self.floor.correct(&floor);
        Ok(floor)
    }

    /// A name for the values of one commit request.
    fn version(&self, lease: &mut Option<Lease<'_>>, floor: &KnownFloor) -> Version {
        let (slot, sequence) = match lease {
            Some(lease) => (lease.number(), lease.next_sequence()),
            None => (0, self.sequence.fetch_add(1, Ordering::Relaxed)),
        };
        Version { epoch: floor.epoch, client: self.client, slot, sequence }
    }

    fn forget(&self, trimmed: &[super::janitor::Garbage]) {
        for garbage in trimmed {
            self.cache.forget(&garbage.key, &garbage.version);
        }
    }

    /// Waits as long as losing for the `lost`-th time calls for. `false`: the deadline would pass meanwhile.
    pub(crate) async fn yield_or_pause(&self, lost: u32, deadline: Option<Instant>) -> bool {
        let pause = self.backoff.contention(lost);
        if pause.is_zero() {
            tokio::task::yield_now().await;
            return deadline.is_none_or(|deadline| Instant::now() < deadline);
        }
        self.pause(pause, deadline).await
    }
}
