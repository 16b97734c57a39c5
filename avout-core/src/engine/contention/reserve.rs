//! Reservations: how a transaction that is lost again and again to other processes gets its turn. They decide only who
//! waits, and for how long at most; a commit compares as ever. See `docs/protocol.md#contention`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::leases::LONGEST_LEASE;
use crate::backend::time::timeout_at;
use crate::engine::attempt::Primed;
use crate::engine::client::Engine;
use crate::engine::floor::KnownFloor;
use crate::engine::handover::{HandOver, Lost};
use crate::engine::plan::CommitPlan;
use crate::engine::time::with_deadline;
use crate::error::{Error, ErrorKind, Result};
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
pub(in crate::engine) struct Reserved {
    holder: Holder,
    /// The floor under which they have these revisions.
    floor: KnownFloor,
    entries: Vec<(Key, Entry)>,
}

impl Reserved {
    /// Adds to what the transaction has reserved before. Another attempt may touch other keys, and the earlier ones are to be
    /// released all the same.
    pub(super) fn join(self, all: &mut Vec<Self>) {
        for before in all.iter_mut() {
            before.entries.retain(|(key, _)| !self.entries.iter().any(|(now, _)| now == key));
        }
        all.retain(|before| !before.entries.is_empty());
        all.push(self);
    }
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
    ) -> Result<Option<(Reserved, Option<Box<Primed>>)>> {
        let commits = self.backoff.commit_time().saturating_mul(LEASE_COMMITS);
        let lease = commits.max(attempt.saturating_mul(LEASE_ATTEMPTS)).clamp(SHORTEST_LEASE, LONGEST_LEASE);
        // What is read from here on has its revisions under this one, or under a later one.
        let Some(floor) = self.floor.get().filter(|_| !self.readonly) else { return Ok(None) };
        let asked = Asked { holder, lease, floor, deadline };
        // The last ones are those that it lost on last.
        let keys = &keys[keys.len().saturating_sub(self.capabilities.max_keys)..];
        let mut snapshot = self.read(keys, deadline).await?;
        for _ in 0..TRIES {
            let others = |(key, entry)| self.leases.until(key, entry, Some(holder)).is_some();
            if present(keys, &snapshot.entries).any(others) {
                return Ok(None);
            }
            let commit = self.reservation(keys, &snapshot.entries, &asked);
            if commit.puts.is_empty() {
                return Ok(None);
            }
            // What is only read is small in a commit of its own, and here it is written.
            if self.check_commit(&commit).is_err() {
                break;
            }
            match self.send_reservation(&commit, &asked).await {
                Ok(CommitOutcome::Committed(done)) => {
                    let left = commit.puts.into_iter().zip(done.revisions).map(|(put, revision)| {
                        let point = self.coordinator.entry_point(&revision, done.point);
                        (put.key, Entry { revision, point, record: put.record })
                    });
                    let entries: Vec<_> = left.collect();
                    let primed = entries.iter().map(|(key, entry)| (key.clone(), Some(entry.clone())));
                    let primed = Primed::new(Some(asked.floor.clone()), done.point, primed);
                    return Ok(Some((Reserved { holder, floor: asked.floor, entries }, Some(primed))));
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
    ) -> Result<Option<(Reserved, Option<Box<Primed>>)>> {
        let all: Vec<_> = keys.iter().zip(entries).collect();
        let mut entries = Vec::new();
        for some in all.chunks(AT_ONCE) {
            let each = some.iter().map(|(key, entry)| self.reserve_one(key, entry.clone(), &asked));
            entries.extend(join_all(each).await.into_iter().flatten());
        }
        if entries.is_empty() {
            return Ok(None);
        }
        // Without it the next attempt reads for itself. What is reserved is so all the same, and must not be forgotten.
        let primed = self.read(keys, asked.deadline).await.ok().map(|snapshot| {
            let entries = keys.iter().cloned().zip(snapshot.entries);
            Primed::new(Some(asked.floor.clone()), snapshot.point, entries)
        });
        Ok(Some((Reserved { holder: asked.holder, floor: asked.floor, entries }, primed)))
    }

    /// Reserves a key by itself; gives what is there then.
    async fn reserve_one(&self, key: &Key, mut entry: Option<Entry>, asked: &Asked) -> Option<(Key, Entry)> {
        let keys = std::slice::from_ref(key);
        for _ in 0..TRIES {
            if self.leases.until(key, entry.as_ref()?, Some(asked.holder)).is_some() {
                return None;
            }
            let mut commit = self.reservation(keys, std::slice::from_ref(&entry), asked);
            self.check_commit(&commit).ok()?;
            match self.send_reservation(&commit, asked).await.ok()? {
                CommitOutcome::Committed(mut done) => {
                    let (put, revision) = (commit.puts.pop()?, done.revisions.pop()?);
                    let point = self.coordinator.entry_point(&revision, done.point);
                    return Some((put.key, Entry { revision, point, record: put.record }));
                }
                CommitOutcome::Conflict(_) => entry = self.entry(key, asked.deadline).await.ok()?,
            }
        }
        None
    }

    /// Sends a reservation, unless the transaction has no time left for it.
    async fn send_reservation(&self, commit: &Commit, asked: &Asked) -> Result<CommitOutcome> {
        let late = || Error::new(ErrorKind::Timeout, "the deadline passed before the reservation was made");
        if asked.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(late());
        }
        self.stats.commit();
        let mut request = self.coordinator.commit(commit);
        self.closing.race(with_deadline(asked.deadline, request.as_mut())).await?.unwrap_or_else(|_| Err(late()))
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
    /// Safe: what is not ended by then is still in `reserved`, and is over with its lease.
    pub(in crate::engine) async fn release(&self, reserved: &mut Vec<Reserved>, written: &[Key]) {
        for some in reserved.iter_mut() {
            some.entries.retain(|(key, _)| !written.contains(key));
        }
        let until = Instant::now() + RELEASE;
        while let Some(some) = reserved.last_mut() {
            if let Err(error) = self.release_some(some, until).await {
                tracing::debug!(%error, "reservations are left");
            }
            reserved.pop();
        }
    }

    async fn release_some(&self, reserved: &mut Reserved, until: Instant) -> Result<()> {
        let mut raised = false;
        while !reserved.entries.is_empty() {
            let mut count = reserved.entries.len();
            let commit = loop {
                let own = reserved.entries[..count].iter().map(|(key, entry)| (key, entry));
                let commit = self.replacing(own, &reserved.floor, |entry| entry.record.released());
                // They may have been reserved one by one, since they do not fit into one commit.
                match self.check_commit(&commit) {
                    Err(_) if count > 1 => count = count.div_ceil(2),
                    fits => break fits.map(|()| commit)?,
                }
            };
            self.stats.commit();
            let late = |_| Error::new(ErrorKind::Timeout, "no answer came in time");
            match timeout_at(until, self.coordinator.commit(&commit)).await.map_err(late)?? {
                CommitOutcome::Committed(_) => drop(reserved.entries.drain(..count)),
                CommitOutcome::Conflict(conflict) if conflict.stale.contains(&Floor::key()) && !raised => {
                    raised = true;
                    self.find_again(reserved, until).await?;
                }
                CommitOutcome::Conflict(conflict) => {
                    let before = reserved.entries.len();
                    reserved.entries.retain(|(key, _)| !conflict.stale.contains(key));
                    if reserved.entries.len() == before {
                        return Err(Error::new(ErrorKind::Contended, "the floor is raised again and again"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Looks for reservations under the floor as it is now. Revisions from before may stand for something else by then, so only
    /// what names the holder is still theirs.
    async fn find_again(&self, reserved: &mut Reserved, until: Instant) -> Result<()> {
        reserved.floor = self.refresh_floor(Some(until)).await?;
        let keys: Vec<Key> = reserved.entries.iter().map(|(key, _)| key.clone()).collect();
        let mut entries = Vec::with_capacity(keys.len());
        for some in keys.chunks(self.capabilities.max_keys.max(1)) {
            let snapshot = self.read(some, Some(until)).await?;
            let own =
                present(some, &snapshot.entries).filter(|(_, entry)| entry.record.is_reserved_by(reserved.holder));
            entries.extend(own.map(|(key, entry)| (key.clone(), entry.clone())));
        }
        reserved.entries = entries;
        Ok(())
    }

    /// Waits if others have reserved what the plan is about to write: until it changes, or the lease passes. `Some`: it
    /// changed, and the plan is lost. What is only checked is not waited for: that takes nothing away from who has reserved it.
    pub(super) async fn yield_to_reservations(
        &self,
        plan: &mut CommitPlan,
        holder: Option<Holder>,
        deadline: Option<Instant>,
    ) -> Result<Option<Lost>> {
        let mut before = Vec::new();
        loop {
            let (mut awaited, mut until) = (Vec::new(), Instant::now());
            for (key, entry) in plan.bases() {
                if let Some(over) = self.leases.until(key, entry, holder) {
                    awaited.push((key.clone(), entry.revision.clone()));
                    until = until.max(over);
                }
            }
            if awaited.is_empty() || awaited == before {
                return Ok(None);
            }
            before.clone_from(&awaited);
            tracing::debug!(key = %awaited[0].0, "reserved by another transaction, waiting");
            let until = deadline.map_or(until, |deadline| until.min(deadline));
            let Some(left) = self.changed_by(awaited, until, deadline).await? else { return Ok(None) };
            if let Some(key) = plan.stale_by(&left) {
                return Ok(Some((key, Some(left.primed()))));
            }
        }
    }

    /// What has become of these records once one of them has another revision; `None`: none has by then.
    async fn changed_by(
        &self,
        awaited: Vec<(Key, Revision)>,
        until: Instant,
        deadline: Option<Instant>,
    ) -> Result<Option<HandOver>> {
        let (keys, revisions): (Vec<_>, Vec<_>) = awaited.into_iter().unzip();
        let (floor, history) = (self.floor.get(), self.losses.count());
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
                return Ok(Some(HandOver { sent: until, history, floor, point: snapshot.point, entries }));
            }
            let hint = async {
                match &mut watcher {
                    Some(watcher) => watcher.changed().await,
                    None => std::future::pending().await,
                }
            };
            match self.closing.race(timeout_at(until, hint)).await? {
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
