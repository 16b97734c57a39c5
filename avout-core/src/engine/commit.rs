use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::attempt::{Action, Attempt, Primed};
use super::floor::KnownFloor;
use super::options::Isolation;
use super::plan::Plan;
use super::prepare::{apply, unknown_outcome, validate};
use super::read::{Loaded, lost_value};
use super::slots::{Lease, Sent};
use super::{Engine, prepare::Prewritten};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{
    Check, Commit, CommitOutcome, Committed, Conflict, Floor, Key, Payload, Point, Receipt, Resolution, Shared, Version,
};

/// How long after the deadline a commit in flight is still waited for, and after that its outcome is looked for.
const GRACE: Duration = Duration::from_secs(1);

/// How an attempt ended that its body did not give up.
pub(super) enum Ended {
    /// `None`: there was nothing to commit, and it took effect at its read point.
    Committed(Option<Point>),
    /// Another transaction came first.
    Lost { key: Key, primed: Option<Primed> },
}

impl Engine {
    /// Commits what an attempt wrote.
    ///
    /// # Cancel safety
    /// Dropped before the request is sent, nothing happens, and values in stores are deleted in the background. Dropped
    /// after, the commit takes effect or not as a whole; its slot is settled before it is used again.
    pub(super) async fn commit(
        &self,
        attempt: &mut Attempt,
        isolation: Isolation,
        deadline: Option<Instant>,
    ) -> Result<Ended> {
        let floor = attempt.floor.take();
        let mut plan = match Plan::of(attempt, isolation) {
            Ok(plan) if plan.writes.is_empty() => return Ok(Ended::Committed(None)),
            Ok(plan) => plan,
            Err(key) => return Ok(Ended::Lost { key, primed: None }),
        };
        for repeated in 0.. {
            if let Some(lost) = self.fill_bases(&mut plan, attempt.read_point, isolation, deadline).await? {
                return Ok(Ended::Lost { key: lost, primed: None });
            }
            let values = self.final_values(&mut plan, deadline).await?;
            validate(&plan, &values)?;
            // A read brought it along, if nothing before did: at the latest that of the bases.
            let floor = floor.clone().or_else(|| self.floor.get()).unwrap_or(KnownFloor { epoch: 0, revision: None });
            let mut lease = match self.capabilities.definite_replies {
                true => None,
                false => Some(self.lease(deadline).await?),
            };
            let mut version = None;
            let prepared =
                self.prepare(&plan, &values, &mut || *version.get_or_insert_with(|| self.version(&mut lease, &floor)))?;
            if version.is_none()
                && let Some(lease) = &mut lease
            {
                lease.next_sequence();
            }

            let mut commit = Commit { checks: plan.checks(), puts: prepared.puts, deletes: Vec::new() };
            if version.is_some() || !self.capabilities.unique_revisions {
                commit.checks.push(Check { key: Floor::key(), revision: floor.revision.clone() });
            }
            commit.puts.extend(lease.as_ref().map(Lease::put));
            self.check_commit(&commit)?;
            let mut prewritten = self.write_values(prepared.values, deadline).await?;

            prewritten.keep();
            let slot_key = lease.as_ref().map(|lease| lease.key().clone());
            let conflict = match self.send(&commit, lease, &floor, deadline).await {
                Ok(Sent::Outcome(CommitOutcome::Committed(Committed { point, .. })) | Sent::Resolved(point)) => {
                    prewritten.committed();
                    self.forget(&prepared.trimmed);
                    self.janitor.delete(prepared.trimmed);
                    return Ok(Ended::Committed(Some(point)));
                }
                Ok(Sent::Outcome(CommitOutcome::Conflict(conflict))) => {
                    prewritten.discard();
                    conflict
                }
                Ok(Sent::NotCommitted(reason)) => {
                    tracing::debug!(%reason, "not committed, trying again");
                    prewritten.discard();
                    if !self.pause(self.backoff.outage(repeated), deadline).await {
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
            if let Some(ended) = self.after_conflict(&mut plan, conflict, slot_key.as_ref()).await? {
                let (key, conflict) = ended;
                return Ok(Ended::Lost { key, primed: plan.primed(conflict) });
            }
            self.stats.reapplied();
            if !self.yield_or_pause(repeated, deadline).await {
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
    ) -> Result<Option<(Key, Conflict)>> {
        let floor = Floor::key();
        if let Some(at) = conflict.stale.iter().position(|key| *key == floor) {
            // The floor was raised: values of this attempt may be swept, and revisions that it saw come again.
            match &conflict.fresh {
                Some(fresh) => self.floor.learn(&KnownFloor::from_entry(fresh.entries[at].as_ref())?),
                None => self.refresh_floor().await?,
            }
            return Ok(Some((floor, conflict)));
        }
        let own = |key: &Key| Some(key) == slot;
        let hard =
            conflict.stale.iter().find(|key| !own(key) && !plan.write_of(key).is_some_and(|planned| planned.soft));
        if let Some(key) = hard {
            return Ok(Some((key.clone(), conflict)));
        }
        let mut fresh = conflict.fresh.map(|snapshot| snapshot.entries.into_iter());
        for key in &conflict.stale {
            let entry = fresh.as_mut().and_then(Iterator::next);
            if let Some(planned) = plan.write_of(key) {
                match entry {
                    Some(entry) => planned.rebase(entry),
                    None => planned.base = None,
                }
            }
        }
        Ok(None)
    }

    async fn refresh_floor(&self) -> Result<()> {
        let deadline = self.deadline();
        let entry = self.entry(&Floor::key(), deadline).await?;
        self.floor.learn(&KnownFloor::from_entry(entry.as_ref())?);
        Ok(())
    }

    /// Reads the records that are written without having been read. Gives the key on which the attempt is lost.
    async fn fill_bases(
        &self,
        plan: &mut Plan,
        read_point: Option<Point>,
        isolation: Isolation,
        deadline: Option<Instant>,
    ) -> Result<Option<Key>> {
        let keys = plan.keys_without_base();
        if !keys.is_empty() {
            let snapshot = self.read(&keys, deadline).await?;
            for (key, entry) in keys.iter().zip(snapshot.entries) {
                let planned = plan.write_of(key).expect("the plan's own keys were read");
                if isolation == Isolation::Snapshot
                    && !planned.soft
                    && entry.as_ref().zip(read_point).is_some_and(|(entry, read_point)| entry.point > read_point)
                {
                    return Ok(Some(key.clone()));
                }
                planned.rebase(entry);
            }
        }
        for planned in &plan.writes {
            planned.check_base()?;
        }
        Ok(None)
    }

    /// The values to be written, with commuted functions applied to what is there now.
    async fn final_values(&self, plan: &mut Plan, deadline: Option<Instant>) -> Result<Vec<Option<Shared>>> {
        let mut values = Vec::with_capacity(plan.writes.len());
        for planned in &mut plan.writes {
            if matches!(planned.write.action, Action::Destroy) {
                values.push(None);
                continue;
            }
            while planned.computed.is_none() {
                let cell = &planned.write.cell;
                let payload = planned.base().map(|entry| &entry.record.payload);
                match self.load(cell, payload, deadline).await? {
                    Loaded::Value(current) => planned.computed = Some(apply(&planned.write.action, &current)?),
                    Loaded::Absent => return Err(super::read::absent(&cell.key)),
                    Loaded::Gone(realm, version) => {
                        let entry = self.entry(&cell.key, deadline).await?;
                        let still = entry.as_ref().is_some_and(|entry| {
                            matches!(&entry.record.payload, Payload::Stored { version: now, .. } if *now == version)
                        });
                        if still {
                            return Err(lost_value(&cell.key, realm, &version));
                        }
                        planned.rebase(entry);
                        planned.check_base()?;
                    }
                }
            }
            values.push(planned.computed.clone());
        }
        Ok(values)
    }

    /// A name for the values of one commit request.
    fn version(&self, lease: &mut Option<Lease<'_>>, floor: &KnownFloor) -> Version {
        let (slot, sequence) = match lease {
            Some(lease) => (lease.number(), lease.next_sequence()),
            None => (0, self.sequence.fetch_add(1, Ordering::Relaxed)),
        };
        Version { epoch: floor.epoch, client: self.client, slot, sequence }
    }

    /// Sends one commit and finds out its outcome, whatever becomes of the reply.
    async fn send(
        &self,
        commit: &Commit,
        mut lease: Option<Lease<'_>>,
        floor: &KnownFloor,
        deadline: Option<Instant>,
    ) -> Result<Sent> {
        let late = deadline.map(|deadline| deadline + GRACE);
        if let Some(lease) = &mut lease {
            lease.sent(floor.epoch);
        }
        self.stats.commit();
        let begun = Instant::now();
        let request = self.coordinator.commit(commit);
        let reply = match (&lease, late) {
            // A slot decides it if nobody answers in time.
            (Some(_), Some(late)) => timeout_at(late, request).await.unwrap_or_else(|_| Err(unknown_outcome(None))),
            // A definite reply comes in bounded time.
            _ => request.await,
        };
        match reply {
            Ok(outcome) => {
                if let Some(lease) = &mut lease {
                    match &outcome {
                        CommitOutcome::Committed(done) => {
                            lease.committed(done.revisions.last().cloned().expect("the slot's put has a revision"));
                        }
                        CommitOutcome::Conflict(_) => lease.untouched(),
                    }
                }
                if let CommitOutcome::Conflict(conflict) = &outcome
                    && let Some(lease) = lease.take_if(|lease| conflict.stale.contains(lease.key()))
                {
                    // Somebody wrote our slot: a fence from a receipt. It is never ours again.
                    lease.abandon();
                }
                self.backoff.measured(begun.elapsed());
                Ok(Sent::Outcome(outcome))
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                tracing::warn!(%error, "the reply to a commit was lost, finding out");
                // As long again, if the reply itself was waited for till now.
                let late = late.map(|late| late.max(Instant::now() + GRACE));
                self.find_out(error, lease, floor, late).await
            }
            Err(error) => {
                if let Some(lease) = &mut lease {
                    lease.untouched();
                }
                match error.kind() {
                    ErrorKind::Unavailable => Ok(Sent::NotCommitted(error)),
                    _ => Err(error),
                }
            }
        }
    }

    async fn find_out(
        &self,
        error: Error,
        lease: Option<Lease<'_>>,
        floor: &KnownFloor,
        late: Option<Instant>,
    ) -> Result<Sent> {
        let resolution = match lease {
            Some(mut lease) => match self.decide(&mut lease, floor.epoch, late).await {
                Ok(resolution) => resolution,
                Err(cause) => {
                    let receipt = lease.receipt(self, floor.epoch);
                    lease.abandon();
                    return Err(error.with_receipt(receipt).with_source(cause));
                }
            },
            None => {
                let Some(Receipt::Native(receipt)) = error.receipt() else {
                    return Err(error);
                };
                match self.until(late, || self.coordinator.resolve(receipt)).await {
                    Ok(resolution) => resolution,
                    Err(_) => return Err(error),
                }
            }
        };
        match resolution {
            Resolution::Committed(point) => Ok(Sent::Resolved(point)),
            Resolution::NotCommitted => {
                let message = "the commit was lost on the way, and is fenced off";
                Ok(Sent::NotCommitted(Error::new(ErrorKind::Unavailable, message).with_source(error)))
            }
        }
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
