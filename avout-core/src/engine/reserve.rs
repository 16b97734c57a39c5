//! Reservations: how a transaction that is lost again and again to other processes gets its turn. They decide only who
//! waits, and for how long at most; a commit compares as ever. See `docs/protocol.md#contention`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Engine;
use super::attempt::Primed;
use super::commit::{Ended, Standing};
use super::floor::KnownFloor;
use super::leases::LONGEST_LEASE;
use super::plan::Plan;
use super::planted::{self, Bug};
use super::queue::Left;
use crate::backend::time::timeout_at;
use crate::error::Result;
use crate::protocol::{Check, Commit, CommitOutcome, Entry, Floor, Holder, Key, Put, Record, Revision};

/// How often a reservation is tried, each time with what came before it.
const TRIES: u32 = 3;
/// How many keys are reserved at a time where that is done one by one.
const AT_ONCE: usize = 16;
/// How many commits' time others are asked to wait, at least.
const LEASE_COMMITS: u32 = 64;
/// How many times as long as the transaction's longest attempt, at least: one that reads from a slow store is not over sooner.
const LEASE_ATTEMPTS: u32 = 2;
const SHORTEST_LEASE: Duration = Duration::from_millis(20);
/// How long a transaction that is over looks after what it had reserved.
const RELEASE: Duration = Duration::from_secs(1);

/// What a transaction asks for.
struct Asked {
    holder: Holder,
    lease: Duration,
    /// The floor that was known before any of the records was read.
    floor: KnownFloor,
    deadline: Option<Instant>,
}

/// The records in which a transaction has a reservation.
pub(super) struct Reserved {
    /// The floor under which they have these revisions.
    floor: KnownFloor,
    entries: Vec<(Key, Entry)>,
}

impl Engine {
    /// Puts a reservation into the records of these keys, together or, where that is in vain, one by one. That alone makes
    /// every commit fail that is under way and expects them unchanged; later ones see it and wait. `attempt` is how long one of
    /// the transaction's has taken. Gives what is reserved, and the entries for the next attempt.
    ///
    /// # Cancel safety
    /// Safe: a reservation that nobody uses holds others up for its lease, once.
    pub(super) async fn reserve(
        &self,
        keys: &[Key],
        holder: Holder,
        attempt: Duration,
        deadline: Option<Instant>,
    ) -> Result<Option<(Reserved, Box<Primed>)>> {
        let commits = self.backoff.commit_time().saturating_mul(LEASE_COMMITS);
        let lease = commits.max(attempt.saturating_mul(LEASE_ATTEMPTS)).clamp(SHORTEST_LEASE, LONGEST_LEASE);
        // What is read from here on has its revisions under this one, or under a later one.
        let Some(floor) = self.floor.get() else { return Ok(None) };
        let asked = Asked { holder, lease, floor, deadline };
        let mut snapshot = self.read(keys, deadline).await?;
        for _ in 0..TRIES {
            let others = |(key, entry)| self.leases.until(key, entry, Some(holder)).is_some();
            if present(keys, &snapshot.entries).any(others) {
                return Ok(None);
            }
            let commit = self.reservation(keys, &snapshot.entries, &asked);
            if commit.puts.is_empty() || self.check_commit(&commit).is_err() {
                return Ok(None);
            }
            self.stats.commit();
            match self.closing.race(self.coordinator.commit(&commit)).await.flatten() {
                Ok(CommitOutcome::Committed(done)) => {
                    let left = commit.puts.into_iter().zip(done.revisions).map(|(put, revision)| {
                        let point = self.coordinator.entry_point(&revision, done.point);
                        (put.key, Entry { revision, point, record: put.record })
                    });
                    let entries: Vec<_> = left.collect();
                    let primed = entries.iter().map(|(key, entry)| (key.clone(), Some(entry.clone())));
                    let primed = Primed::new(Some(asked.floor.clone()), done.point, primed);
                    return Ok(Some((Reserved { floor: asked.floor, entries }, primed)));
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
        Box::pin(self.reserve_each(keys, snapshot.entries, asked)).await
    }

    /// The same key by key: where commits take long some of many keys are always in the hands of others. What is reserved
    /// stays so meanwhile.
    async fn reserve_each(
        &self,
        keys: &[Key],
        entries: Vec<Option<Entry>>,
        asked: Asked,
    ) -> Result<Option<(Reserved, Box<Primed>)>> {
        let all: Vec<_> = keys.iter().zip(entries).collect();
        let mut reserved = false;
        for some in all.chunks(AT_ONCE) {
            let each = some.iter().map(|(key, entry)| self.reserve_one(key, entry.clone(), &asked));
            reserved |= join_all(each).await.contains(&true);
        }
        if !reserved {
            return Ok(None);
        }
        let snapshot = self.read(keys, asked.deadline).await?;
        let own = present(keys, &snapshot.entries).filter(|(_, entry)| entry.record.is_reserved_by(asked.holder));
        let entries = own.map(|(key, entry)| (key.clone(), entry.clone())).collect();
        let primed = keys.iter().cloned().zip(snapshot.entries);
        let primed = Primed::new(Some(asked.floor.clone()), snapshot.point, primed);
        Ok(Some((Reserved { floor: asked.floor, entries }, primed)))
    }

    /// Whether a key was reserved, by itself.
    async fn reserve_one(&self, key: &Key, mut entry: Option<Entry>, asked: &Asked) -> bool {
        let keys = std::slice::from_ref(key);
        for _ in 0..TRIES {
            if entry.as_ref().is_none_or(|entry| self.leases.until(key, entry, Some(asked.holder)).is_some()) {
                return false;
            }
            let commit = self.reservation(keys, std::slice::from_ref(&entry), asked);
            self.stats.commit();
            match self.closing.race(self.coordinator.commit(&commit)).await.flatten() {
                Ok(CommitOutcome::Committed(_)) => return true,
                Ok(CommitOutcome::Conflict(_)) => {
                    entry = self.entry(key, asked.deadline).await.ok().flatten();
                }
                Err(_) => return false,
            }
        }
        false
    }

    fn reservation(&self, keys: &[Key], entries: &[Option<Entry>], asked: &Asked) -> Commit {
        let reserved = |entry: &Entry| entry.record.reserved(entry.point, asked.holder, asked.lease);
        self.replacing(present(keys, entries), &asked.floor, reserved)
    }

    /// A commit that replaces records and leaves their payloads.
    fn replacing<'a>(
        &self,
        entries: impl Iterator<Item = (&'a Key, &'a Entry)>,
        floor: &KnownFloor,
        record: impl Fn(&Entry) -> Record,
    ) -> Commit {
        let puts = entries.map(|(key, entry)| Put {
            key: key.clone(),
            revision: Some(entry.revision.clone()),
            record: Arc::new(record(entry)),
        });
        let checks = match self.capabilities.unique_revisions {
            true => Vec::new(),
            false => vec![Check { key: Floor::key(), revision: floor.revision.clone() }],
        };
        Commit { checks, puts: puts.collect(), deletes: Vec::new() }
    }

    /// Ends the reservations of a transaction that is over, or waits for something else, but for the records that it has
    /// `written`. What others have replaced meanwhile is theirs.
    ///
    /// # Cancel safety
    /// Safe: what is not ended is over with its lease.
    pub(super) async fn release(&self, reserved: Reserved, written: &[Key]) {
        let Reserved { floor, mut entries } = reserved;
        entries.retain(|(key, _)| !written.contains(key));
        let until = Instant::now() + RELEASE;
        while !entries.is_empty() {
            let own = entries.iter().map(|(key, entry)| (key, entry));
            let commit = self.replacing(own, &floor, |entry| entry.record.released());
            self.stats.commit();
            match timeout_at(until, self.coordinator.commit(&commit)).await {
                Ok(Ok(CommitOutcome::Conflict(conflict))) if !conflict.stale.contains(&Floor::key()) => {
                    let before = entries.len();
                    entries.retain(|(key, _)| !conflict.stale.contains(key));
                    if entries.len() == before {
                        return;
                    }
                }
                Ok(Ok(_)) => return,
                Ok(Err(error)) => return tracing::debug!(%error, "reservations are left"),
                Err(_) => return tracing::debug!("no answer came in time, reservations are left"),
            }
        }
    }

    /// Whether others have reserved something that the plan is about to write.
    pub(super) fn reserved_by_others(&self, plan: &Plan, run: &Standing) -> bool {
        plan.bases().any(|(key, entry)| self.leases.until(key, entry, run.holder).is_some())
    }

    /// Waits if others have reserved what the plan is about to write: until it changes, or the lease passes. `Some`: it
    /// changed, and the plan is lost. What is only checked is not waited for: that takes nothing away from who has reserved it.
    pub(super) async fn yield_to_reservations(&self, plan: &mut Plan, run: &mut Standing) -> Result<Option<Ended>> {
        if [Bug::ReservationIgnored, Bug::Unfair].iter().any(|bug| planted::is(&self.config, *bug)) {
            return Ok(None);
        }
        let mut before = Vec::new();
        loop {
            let (mut awaited, mut until) = (Vec::new(), Instant::now());
            for (key, entry) in plan.bases() {
                if let Some(over) = self.leases.until(key, entry, run.holder) {
                    awaited.push((key.clone(), entry.revision.clone()));
                    until = until.max(over);
                }
            }
            if awaited.is_empty() || awaited == before {
                return Ok(None);
            }
            before.clone_from(&awaited);
            tracing::debug!(key = %awaited[0].0, "reserved by another transaction, waiting");
            if planted::is(&self.config, Bug::ReservationEndless) {
                until += planted::ENDLESS;
            }
            let until = run.deadline.map_or(until, |deadline| until.min(deadline));
            let Some(left) = self.changed_by(awaited, until, run.deadline).await? else { return Ok(None) };
            if let Some(key) = plan.stale_by(&left) {
                return Ok(Some(Ended::Lost { key, primed: Some(left.primed()) }));
            }
        }
    }

    /// What has become of these records once one of them has another revision; `None`: none has by then.
    async fn changed_by(
        &self,
        awaited: Vec<(Key, Revision)>,
        until: Instant,
        deadline: Option<Instant>,
    ) -> Result<Option<Left>> {
        let (keys, revisions): (Vec<_>, Vec<_>) = awaited.into_iter().unzip();
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
            let snapshot = self.read(&keys, deadline).await?;
            let unchanged = |(entry, seen): (&Option<Entry>, &Revision)| {
                entry.as_ref().is_some_and(|entry| entry.revision == *seen)
            };
            if !snapshot.entries.iter().zip(&revisions).all(unchanged) {
                let entries = keys.into_iter().zip(snapshot.entries).collect();
                return Ok(Some(Left { sent: until, floor, point: snapshot.point, entries }));
            }
            let hint = async {
                match &mut watcher {
                    Some(watcher) => watcher.changed().await,
                    None => std::future::pending().await,
                }
            };
            match timeout_at(until, hint).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a watch was lost while waiting");
                    watcher = None;
                }
                Err(_) => return Ok(None),
            }
        }
    }
}

/// The records that are there.
fn present<'a>(keys: &'a [Key], entries: &'a [Option<Entry>]) -> impl Iterator<Item = (&'a Key, &'a Entry)> {
    keys.iter().zip(entries).filter_map(|(key, entry)| Some((key, entry.as_ref()?)))
}
