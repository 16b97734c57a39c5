//! Reservations: how a transaction that is lost again and again to other processes gets its turn. They decide only who
//! waits, and for how long at most; a commit compares as ever. See `docs/protocol.md#contention`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::Engine;
use super::attempt::Primed;
use super::commit::{Ended, Standing};
use super::plan::Plan;
use super::planted::{self, Bug};
use super::queue::Left;
use crate::error::Result;
use crate::protocol::{Check, Commit, CommitOutcome, Entry, Floor, Holder, Key, Put, Reservation, Revision, Snapshot};

/// How often a reservation is tried, each time with what came before it.
const TRIES: u32 = 3;
/// How many commits' time others are asked to wait.
const LEASE_COMMITS: u32 = 64;
const SHORTEST_LEASE: Duration = Duration::from_millis(20);
const LONGEST_LEASE: Duration = Duration::from_secs(1);

impl Engine {
    /// Puts a reservation into the records of these keys, all or none. That alone makes every commit fail that is under way and
    /// expects them unchanged; later ones see it and wait. Gives the entries for the next attempt.
    ///
    /// # Cancel safety
    /// Safe: a reservation that nobody uses holds others up for its lease, once.
    pub(super) async fn reserve(
        &self,
        keys: &[Key],
        holder: Holder,
        deadline: Option<Instant>,
    ) -> Result<Option<Primed>> {
        let lease = self.backoff.commit_time().saturating_mul(LEASE_COMMITS).clamp(SHORTEST_LEASE, LONGEST_LEASE);
        let floor = self.floor.get();
        let mut snapshot = self.read(keys, deadline).await?;
        for _ in 0..TRIES {
            if snapshot.entries.iter().flatten().any(|entry| foreign(entry, Some(holder)).is_some()) {
                return Ok(None);
            }
            let commit = self.reservation(keys, &snapshot, holder, lease);
            if commit.puts.is_empty() || self.check_commit(&commit).is_err() {
                return Ok(None);
            }
            self.stats.commit();
            match self.coordinator.commit(&commit).await {
                Ok(CommitOutcome::Committed(done)) => {
                    let left = commit.puts.into_iter().zip(done.revisions).map(|(put, revision)| {
                        (put.key, Some(Entry { revision, point: done.point, record: put.record }))
                    });
                    return Ok(Some(Primed::new(floor, done.point, left)));
                }
                Ok(CommitOutcome::Conflict(_)) => snapshot = self.read(keys, deadline).await?,
                Err(error) => {
                    tracing::debug!(%error, "not reserved");
                    return Ok(None);
                }
            }
        }
        Ok(None)
    }

    fn reservation(&self, keys: &[Key], snapshot: &Snapshot, holder: Holder, lease: Duration) -> Commit {
        let present = keys.iter().zip(&snapshot.entries).filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
        let puts = present.map(|(key, entry)| Put {
            key: key.clone(),
            revision: Some(entry.revision.clone()),
            record: Arc::new(entry.record.reserved(entry.point, holder, lease)),
        });
        let floor = self.floor.get().filter(|_| !self.capabilities.unique_revisions);
        let checks = floor.map(|floor| Check { key: Floor::key(), revision: floor.revision });
        Commit { checks: checks.into_iter().collect(), puts: puts.collect(), deletes: Vec::new() }
    }

    /// Waits if others have reserved what the plan is about to compare: until it changes, or the lease passes. `Some`: it
    /// changed, and the plan is lost.
    pub(super) async fn yield_to_reservations(&self, plan: &mut Plan, run: &mut Standing) -> Result<Option<Ended>> {
        let mut keys: Vec<Key> = Vec::new();
        let mut revisions: Vec<Revision> = Vec::new();
        let mut lease = Duration::ZERO;
        for (key, entry) in plan.entries() {
            if let Some(reservation) = foreign(entry, run.holder)
                && !run.waited_out.contains(&entry.revision)
            {
                keys.push(key.clone());
                revisions.push(entry.revision.clone());
                lease = lease.max(reservation.lease.min(LONGEST_LEASE));
            }
        }
        let unfair = [Bug::ReservationIgnored, Bug::Unfair].iter().any(|bug| planted::is(&self.config, *bug));
        if keys.is_empty() || unfair {
            return Ok(None);
        }
        if planted::is(&self.config, Bug::ReservationEndless) {
            lease = planted::ENDLESS;
        }
        tracing::debug!(key = %keys[0], ?lease, "reserved by another transaction, waiting");
        let until = Instant::now() + lease;
        let until = run.deadline.map_or(until, |deadline| until.min(deadline));
        let floor = self.floor.get();
        let mut watcher = self.watch(&keys, Some(until)).await?;
        loop {
            let snapshot = self.read(&keys, run.deadline).await?;
            let unchanged = |(entry, seen): (&Option<Entry>, &Revision)| {
                entry.as_ref().is_some_and(|entry| entry.revision == *seen)
            };
            if !snapshot.entries.iter().zip(&revisions).all(unchanged) {
                let entries = keys.into_iter().zip(snapshot.entries).collect();
                let left = Left { sent: until, floor, point: snapshot.point, entries };
                let key = plan.stale_by(&left);
                return Ok(key.map(|key| Ended::Lost { key, primed: Some(left.primed()) }));
            }
            match timeout_at(until, watcher.changed()).await {
                Ok(Ok(_)) => {}
                // Without hints it waits no longer than with them.
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a watch was lost while waiting");
                    tokio::time::sleep_until(until).await;
                }
                Err(_) => {
                    run.waited_out.extend(revisions);
                    return Ok(None);
                }
            }
        }
    }
}

/// Whether others have reserved something that the plan is about to compare.
pub(super) fn reserved_by_others(plan: &Plan, run: &Standing) -> bool {
    plan.entries().any(|(_, entry)| foreign(entry, run.holder).is_some())
}

/// A reservation of another transaction.
fn foreign(entry: &Entry, holder: Option<Holder>) -> Option<&Reservation> {
    entry.record.reservation.as_ref().filter(|reservation| Some(reservation.holder) != holder)
}
