//! Reservations: how a transaction that is lost again and again to other processes gets its turn. They decide only who
//! waits, and for how long at most; a commit compares as ever. See `docs/protocol.md#contention`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Engine;
use super::attempt::Primed;
use super::commit::{Ended, Standing};
use super::plan::Plan;
use super::planted::{self, Bug};
use super::queue::Left;
use crate::backend::time::timeout_at;
use crate::error::Result;
use crate::protocol::{Check, Commit, CommitOutcome, Entry, Floor, Holder, Key, Put, Reservation, Revision};

/// How often a reservation is tried, each time with what came before it.
const TRIES: u32 = 3;
/// How many keys are reserved at a time where that is done one by one.
const AT_ONCE: usize = 16;
/// How many commits' time others are asked to wait.
const LEASE_COMMITS: u32 = 64;
const SHORTEST_LEASE: Duration = Duration::from_millis(20);
const LONGEST_LEASE: Duration = Duration::from_secs(1);

impl Engine {
    /// Puts a reservation into the records of these keys, together or, where that is in vain, one by one. That alone makes
    /// every commit fail that is under way and expects them unchanged; later ones see it and wait. Gives the entries for the
    /// next attempt.
    ///
    /// # Cancel safety
    /// Safe: a reservation that nobody uses holds others up for its lease, once.
    pub(super) async fn reserve(
        &self,
        keys: &[Key],
        holder: Holder,
        deadline: Option<Instant>,
    ) -> Result<Option<Box<Primed>>> {
        let lease = self.backoff.commit_time().saturating_mul(LEASE_COMMITS).clamp(SHORTEST_LEASE, LONGEST_LEASE);
        let floor = self.floor.get();
        let mut snapshot = self.read(keys, deadline).await?;
        for _ in 0..TRIES {
            if snapshot.entries.iter().flatten().any(|entry| foreign(entry, Some(holder)).is_some()) {
                return Ok(None);
            }
            let commit = self.reservation(keys, &snapshot.entries, holder, lease);
            if commit.puts.is_empty() || self.check_commit(&commit).is_err() {
                return Ok(None);
            }
            self.stats.commit();
            match self.coordinator.commit(&commit).await {
                Ok(CommitOutcome::Committed(done)) => {
                    let left = commit.puts.into_iter().zip(done.revisions).map(|(put, revision)| {
                        let point = self.coordinator.entry_point(&revision, done.point);
                        (put.key, Some(Entry { revision, point, record: put.record }))
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
        if keys.len() < 2 {
            return Ok(None);
        }
        Box::pin(self.reserve_each(keys, snapshot.entries, holder, lease, deadline)).await
    }

    /// The same key by key: where commits take long some of many keys are always in the hands of others. What is reserved
    /// stays so meanwhile.
    async fn reserve_each(
        &self,
        keys: &[Key],
        entries: Vec<Option<Entry>>,
        holder: Holder,
        lease: Duration,
        deadline: Option<Instant>,
    ) -> Result<Option<Box<Primed>>> {
        let floor = self.floor.get();
        let all: Vec<_> = keys.iter().zip(entries).collect();
        let mut reserved = false;
        for some in all.chunks(AT_ONCE) {
            let each = some.iter().map(|(key, entry)| self.reserve_one(key, entry.clone(), holder, lease, deadline));
            reserved |= join_all(each).await.contains(&true);
        }
        if !reserved {
            return Ok(None);
        }
        let snapshot = self.read(keys, deadline).await?;
        Ok(Some(Primed::new(floor, snapshot.point, keys.iter().cloned().zip(snapshot.entries))))
    }

    /// Whether a key was reserved, by itself.
    async fn reserve_one(
        &self,
        key: &Key,
        mut entry: Option<Entry>,
        holder: Holder,
        lease: Duration,
        deadline: Option<Instant>,
    ) -> bool {
        let keys = std::slice::from_ref(key);
        for _ in 0..TRIES {
            if entry.as_ref().is_none_or(|entry| foreign(entry, Some(holder)).is_some()) {
                return false;
            }
            let commit = self.reservation(keys, std::slice::from_ref(&entry), holder, lease);
            self.stats.commit();
            match self.coordinator.commit(&commit).await {
                Ok(CommitOutcome::Committed(_)) => return true,
                Ok(CommitOutcome::Conflict(_)) => {
                    entry = self.entry(key, deadline).await.ok().flatten();
                }
                Err(_) => return false,
            }
        }
        false
    }

    fn reservation(&self, keys: &[Key], entries: &[Option<Entry>], holder: Holder, lease: Duration) -> Commit {
        let present = keys.iter().zip(entries).filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
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
        // Without hints it waits no longer than with them.
        let mut watcher = match self.watch(&keys, Some(until)).await {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::debug!(%error, "no watch while waiting");
                None
            }
        };
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
            let hint = async {
                match &mut watcher {
                    Some(watcher) => watcher.changed().await,
                    None => std::future::pending().await,
                }
            };
            let hinted = timeout_at(until, hint).await;
            match hinted {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a watch was lost while waiting");
                    watcher = None;
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
