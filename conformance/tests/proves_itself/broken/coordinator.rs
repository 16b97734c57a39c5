use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, VecDeque};
use std::hash::{Hash, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, CoordinatorCapabilities, Page, Sessions, Watcher};
use avout_core::protocol::{
    Commit, CommitOutcome, Committed, Conflict, Entry, History, Put, Realm, Record, Resolution, Snapshot,
};
use avout_core::{Error, ErrorKind, Key, Payload, Point, Result, Revision};
use bytes::Bytes;
use tokio::sync::Notify;

use super::common::{Common, Watching, is_users, lock};
use super::fault::Fault;
use super::watch::Watch;

pub(super) fn wrap(
    inner: Arc<avout_local::Coordinator>,
    common: Arc<Common>,
    client: u64,
) -> Arc<dyn backend::Coordinator> {
    let mut capabilities = backend::Coordinator::capabilities(&*inner).clone();
    if common.is(Fault::NewRealmForEachClient) {
        capabilities.realm = Realm::random();
    }
    capabilities.native_snapshots = common.is(Fault::SnapshotsClaimed);
    Arc::new(Coordinator {
        inner,
        common,
        client,
        capabilities,
        seen: Mutex::default(),
        asked: Mutex::default(),
        ticks: Default::default(),
    })
}

struct Coordinator {
    inner: Arc<dyn backend::Coordinator>,
    common: Arc<Common>,
    client: u64,
    capabilities: CoordinatorCapabilities,
    /// What the client read before.
    seen: Mutex<HashMap<Vec<Key>, Snapshot>>,
    /// Requests whose replies are on their way.
    asked: Mutex<VecDeque<Vec<Key>>>,
    ticks: std::sync::atomic::AtomicU64,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

impl Coordinator {
    fn is(&self, fault: Fault) -> bool {
        self.common.is(fault)
    }

    /// The revision that this backend gives an entry.
    fn told(&self, key: &Key, entry: &Entry) -> Revision {
        let real = entry.revision.as_number().expect("the memory's revisions are numbers");
        match self.common.fault {
            Fault::RevisionsByContent => Revision::number(hash(entry.record.encode().unwrap_or_default()).into()),
            Fault::RevisionsReversed => Revision::number(real << 64 | u128::from(hash(key))),
            Fault::RevisionsBeginAgain => {
                Revision::number(lock(&self.common.revisions).get(key).copied().unwrap_or_default())
            }
            _ => entry.revision.clone(),
        }
    }

    async fn current(&self, keys: &[Key]) -> Result<Snapshot> {
        let real: Vec<Key> = keys.iter().map(|key| self.common.key(key)).collect();
        let mut snapshot = self.inner.read(&real, None).await?;
        for (key, entry) in keys.iter().zip(&mut snapshot.entries) {
            let Some(entry) = entry else { continue };
            entry.revision = self.told(key, entry);
            entry.record = self.record(&entry.record);
        }
        Ok(snapshot)
    }

    fn record(&self, record: &Arc<Record>) -> Arc<Record> {
        let mut changed = Record::clone(record);
        match (&self.common.fault, &record.payload) {
            (Fault::HistoryDropped, _) => changed.history = History::default(),
            (Fault::RecordsCut, Payload::Inline(bytes)) if bytes.len() > 2000 => {
                changed.payload = Payload::Inline(bytes.slice(..2000));
            }
            (Fault::SharedValuesCopied, Payload::Shared(_)) => {
                changed.payload = Payload::Shared(Arc::new("a copy".to_owned()));
            }
            _ => return Arc::clone(record),
        }
        Arc::new(changed)
    }

    /// Commits with the revisions that this backend told translated to the real ones; with `blind`, whatever they are.
    async fn translated(&self, commit: &Commit, blind: impl Fn(usize) -> bool) -> Result<CommitOutcome> {
        loop {
            let keys: Vec<Key> = commit.expectations().map(|(key, _)| self.common.key(key)).collect();
            let now = self.inner.read(&keys, None).await?.entries;
            let mut real = commit.clone();
            let revisions = real
                .checks
                .iter_mut()
                .map(|check| (&mut check.key, &mut check.revision))
                .chain(real.puts.iter_mut().map(|put| (&mut put.key, &mut put.revision)));
            for (place, (key, revision)) in revisions.enumerate() {
                let current = now[place].as_ref();
                if blind(place) || *revision == current.map(|entry| self.told(key, entry)) {
                    *revision = current.map(|entry| entry.revision.clone());
                } else if revision.is_some() {
                    *revision = Some(Revision::number(u128::MAX));
                }
                *key = keys[place].clone();
            }
            let first = commit.checks.len() + commit.puts.len();
            for (n, delete) in real.deletes.iter_mut().enumerate() {
                match &now[first + n] {
                    Some(entry) if blind(first + n) || delete.revision == self.told(&delete.key, entry) => {
                        delete.revision = entry.revision.clone();
                    }
                    _ => delete.revision = Revision::number(u128::MAX),
                }
                delete.key = keys[first + n].clone();
            }
            if blind(first) {
                let mut place = first;
                real.deletes.retain(|_| {
                    place += 1;
                    now[place - 1].is_some()
                });
            }
            let outcome = self.inner.commit(&real).await?;
            let raced = matches!(&outcome, CommitOutcome::Conflict(_)) && (0..keys.len()).all(&blind);
            if !raced {
                return Ok(self.retell(commit, outcome));
            }
        }
    }

    fn retell(&self, commit: &Commit, mut outcome: CommitOutcome) -> CommitOutcome {
        match &mut outcome {
            CommitOutcome::Committed(done) => {
                for (put, revision) in commit.puts.iter().zip(&mut done.revisions) {
                    if self.is(Fault::RevisionsBeginAgain) {
                        *lock(&self.common.revisions).entry(put.key.clone()).or_default() += 1;
                    }
                    let record = Arc::clone(&put.record);
                    *revision = self.told(&put.key, &Entry { revision: revision.clone(), point: done.point, record });
                }
                if self.is(Fault::RevisionsReversed) {
                    done.revisions.reverse();
                }
                if self.is(Fault::RevisionsBeginAgain) {
                    lock(&self.common.revisions).retain(|key, _| !commit.deletes.iter().any(|gone| gone.key == *key));
                }
                if self.is(Fault::PointsByClient) {
                    let tick = self.ticks.fetch_add(1, Ordering::SeqCst);
                    done.point = Point::new(done.point.number() + 100 - tick.min(99) - 50 * (self.client % 2));
                }
            }
            CommitOutcome::Conflict(Conflict { stale, fresh: Some(fresh) }) => {
                for (key, entry) in stale.iter().zip(&mut fresh.entries) {
                    if let Some(entry) = entry {
                        entry.revision = self.told(key, entry);
                    }
                }
            }
            CommitOutcome::Conflict(_) => {}
        }
        outcome
    }

    fn wake(&self, commit: &Commit) {
        let changed = |key: &Key| {
            let deletes = !self.is(Fault::PutsOnly) && commit.deletes.iter().any(|delete| delete.key == *key);
            deletes || commit.puts.iter().any(|put| put.key == *key)
        };
        for watching in lock(&self.common.watchers).values() {
            let told = match self.common.fault {
                Fault::LostWatch => false,
                Fault::OwnChangesOnly => watching.client == self.client,
                Fault::OthersChangesOnly => watching.client != self.client,
                _ => true,
            };
            let keys = if self.is(Fault::FirstKeyOnly) { &watching.keys[..1] } else { &watching.keys[..] };
            if told && keys.iter().any(changed) {
                if self.is(Fault::WaitingOnly) {
                    watching.notify.notify_waiters();
                } else {
                    watching.notify.notify_one();
                }
                if self.is(Fault::OneWatcherOnly) {
                    return;
                }
            }
        }
    }

    async fn faulty_commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let checks = commit.checks.len();
        let puts = checks + commit.puts.len();
        match self.common.fault {
            Fault::LostWrite if is_users(commit) && self.common.each(2) => {
                let point = self.inner.read(&[], None).await?.point;
                let revisions = vec![Revision::number(u128::MAX); commit.puts.len()];
                Ok(CommitOutcome::Committed(Committed { point: Point::new(point.number() + 1), revisions }))
            }
            Fault::TornCommit | Fault::TornWhenDropped if commit.puts.len() > 1 => {
                let mut first = commit.clone();
                let mut second = Commit { puts: first.puts.split_off(1), ..Commit::default() };
                std::mem::swap(&mut second.deletes, &mut first.deletes);
                let outcome = self.translated(&first, |_| false).await?;
                let CommitOutcome::Committed(mut done) = outcome else { return Ok(outcome) };
                // Long enough for somebody to look, on a busy machine too.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
                let CommitOutcome::Committed(rest) = self.translated(&second, |_| true).await? else {
                    panic!("a blind commit conflicts with nobody");
                };
                done.revisions.extend(rest.revisions);
                Ok(CommitOutcome::Committed(done))
            }
            Fault::SlotForgotten => {
                // What the client notes in its slot is acknowledged, and not kept.
                let of_slots = Key::from_stored("/.avout/slots").expect("a key");
                let kept = |put: &&Put| !put.key.is_under(&of_slots);
                let told = Commit { puts: commit.puts.iter().filter(kept).cloned().collect(), ..commit.clone() };
                let mut outcome = self.translated(&told, |_| false).await?;
                if let CommitOutcome::Committed(done) = &mut outcome {
                    let mut real = std::mem::take(&mut done.revisions).into_iter();
                    let revision = |put: &Put| if kept(&put) { real.next() } else { None };
                    let all = commit.puts.iter().map(revision);
                    done.revisions = all.map(|revision| revision.unwrap_or(Revision::number(1))).collect();
                }
                Ok(outcome)
            }
            Fault::ConflictSwallowed => {
                let outcome = self.translated(commit, |_| false).await?;
                let CommitOutcome::Conflict(_) = outcome else { return Ok(outcome) };
                let point = self.inner.read(&[], None).await?.point;
                let revisions = vec![Revision::number(u128::MAX); commit.puts.len()];
                Ok(CommitOutcome::Committed(Committed { point: Point::new(point.number() + 1), revisions }))
            }
            Fault::RepeatedCommit => {
                let outcome = self.translated(commit, |_| false).await?;
                if matches!(outcome, CommitOutcome::Committed(_)) {
                    // The one before arrives a second time.
                    let before = lock(&self.common.last).replace(commit.clone());
                    if let Some(before) = before.filter(|_| self.common.each(3)) {
                        self.translated(&before, |_| true).await?;
                    }
                }
                Ok(outcome)
            }
            Fault::ChecksIgnored => self.translated(commit, |place| place < checks).await,
            Fault::AbsenceIgnored => {
                let absent: Vec<bool> = commit.expectations().map(|(_, revision)| revision.is_none()).collect();
                self.translated(commit, |place| absent.get(place).is_none_or(|absent| *absent)).await
            }
            Fault::RevisionsIgnored => self.translated(commit, |place| (checks..puts).contains(&place)).await,
            Fault::DeletesBlind => self.translated(commit, |place| place >= puts).await,
            Fault::DeletesIgnored => {
                let mut commit = commit.clone();
                let deletes = std::mem::take(&mut commit.deletes);
                self.translated(&commit, |_| false).await.inspect(|_| drop(deletes))
            }
            Fault::ChecksWrite => {
                let outcome = self.translated(commit, |_| false).await?;
                let now =
                    self.inner.read(&commit.checks.iter().map(|c| c.key.clone()).collect::<Vec<_>>(), None).await?;
                let written = now.entries.into_iter().zip(&commit.checks).filter_map(|(entry, check)| {
                    let entry = entry?;
                    Some(Put { key: check.key.clone(), revision: Some(entry.revision), record: entry.record })
                });
                self.inner.commit(&Commit { puts: written.collect(), ..Commit::default() }).await?;
                Ok(outcome)
            }
            Fault::ConflictForAnyCommit => {
                let now = self.inner.read(&[], None).await?.point.number();
                if self.ticks.load(Ordering::SeqCst) != now && self.common.each(2) {
                    self.ticks.store(now, Ordering::SeqCst);
                    let stale = vec![commit.puts[0].key.clone()];
                    return Ok(CommitOutcome::Conflict(Conflict { stale, fresh: None }));
                }
                self.translated(commit, |_| false).await
            }
            Fault::ConflictAppliesTheRest => {
                let outcome = self.translated(commit, |_| false).await?;
                if let CommitOutcome::Conflict(conflict) = &outcome {
                    let mut rest = commit.clone();
                    rest.checks.clear();
                    rest.puts.retain(|put| !conflict.stale.contains(&put.key));
                    rest.deletes.retain(|delete| !conflict.stale.contains(&delete.key));
                    self.translated(&rest, |_| false).await?;
                }
                Ok(outcome)
            }
            Fault::ConflictTriedAgain => {
                let outcome = self.translated(commit, |_| false).await?;
                if matches!(outcome, CommitOutcome::Conflict(_)) {
                    let (inner, commit) = (Arc::clone(&self.inner), commit.clone());
                    tokio::spawn(async move {
                        while let Ok(CommitOutcome::Conflict(_)) = inner.commit(&commit).await {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    });
                }
                Ok(outcome)
            }
            Fault::ConflictNamesAll | Fault::ConflictNamesOne | Fault::ConflictWithOldEntries => {
                let mut outcome = self.translated(commit, |_| false).await?;
                if let CommitOutcome::Conflict(conflict) = &mut outcome {
                    let fresh = conflict.fresh.as_mut().expect("the memory gives fresh entries");
                    match self.common.fault {
                        Fault::ConflictNamesAll => {
                            conflict.stale = commit.expectations().map(|(key, _)| key.clone()).collect();
                            conflict.fresh = None;
                        }
                        Fault::ConflictNamesOne => {
                            conflict.stale.truncate(1);
                            fresh.entries.truncate(1);
                        }
                        _ => fresh.entries.iter_mut().for_each(|entry| {
                            if let Some(entry) = entry {
                                entry.revision = Revision::number(0);
                            }
                        }),
                    }
                }
                Ok(outcome)
            }
            _ => self.translated(commit, |_| false).await,
        }
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    // Only one fault is of answers at once; with all others everybody waits.
    fn read_now(&self, keys: &[Key]) -> Option<Snapshot> {
        if self.common.fault != Fault::StaleAtOnce {
            return None;
        }
        let snapshot = self.inner.read_now(keys)?;
        Some(lock(&self.seen).entry(keys.to_vec()).or_insert(snapshot).clone())
    }

    fn commit_now(&self, commit: &Commit) -> Option<CommitOutcome> {
        match self.common.fault {
            Fault::StaleAtOnce => self.inner.commit_now(commit),
            _ => None,
        }
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        match self.common.fault {
            Fault::AwayAfterCut if self.common.cut.load(Ordering::SeqCst) => {
                Err(Error::new(ErrorKind::Unavailable, "the connection is lost"))
            }
            Fault::StaleRead => {
                if let Some(seen) = lock(&self.seen).get(keys)
                    && self.common.each(2)
                {
                    return Ok(seen.clone());
                }
                let snapshot = self.current(keys).await?;
                lock(&self.seen).insert(keys.to_vec(), snapshot.clone());
                Ok(snapshot)
            }
            Fault::TornRead => {
                let mut whole = self.current(&[]).await?;
                for key in keys {
                    tokio::task::yield_now().await;
                    let one = self.current(std::slice::from_ref(key)).await?;
                    whole.entries.extend(one.entries);
                    whole.point = one.point;
                }
                Ok(whole)
            }
            Fault::DoubleKeysDropped => {
                let mut keys = keys.to_vec();
                keys.sort_unstable();
                keys.dedup();
                self.current(&keys).await
            }
            Fault::AbsentLeftOut => {
                let mut snapshot = self.current(keys).await?;
                snapshot.entries.sort_by_key(Option::is_none);
                Ok(snapshot)
            }
            Fault::PointOfTheFirstRead => {
                let snapshot = self.current(keys).await?;
                let first = lock(&self.seen).entry(Vec::new()).or_insert_with(|| snapshot.clone()).point;
                Ok(Snapshot { point: first, ..snapshot })
            }
            Fault::PointAhead => {
                let snapshot = self.current(keys).await?;
                Ok(Snapshot { point: Point::new(snapshot.point.number() + 3), ..snapshot })
            }
            Fault::AtRefused if at.is_some() => Err(Error::new(ErrorKind::TooOld, "no earlier points here")),
            Fault::RepliesMixedUp => {
                lock(&self.asked).push_back(keys.to_vec());
                tokio::task::yield_now().await;
                let answered = lock(&self.asked).pop_front().expect("it was asked for something");
                self.current(&answered).await
            }
            Fault::TornWhenDropped | Fault::RevisionsBeginAgain => {
                let _gate = self.common.gate.lock().await;
                self.current(keys).await
            }
            _ => self.current(keys).await,
        }
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        if matches!(self.common.fault, Fault::EarlyWatch | Fault::EarlyWatchOnly) {
            self.wake(commit);
            // Time for who is told to look, where nobody tells it again.
            let early = if self.is(Fault::EarlyWatch) { 3 } else { 50 };
            tokio::time::sleep(Duration::from_millis(early)).await;
        }
        let gated = matches!(self.common.fault, Fault::TornWhenDropped | Fault::RevisionsBeginAgain);
        let gate = if gated { Some(self.common.gate.lock().await) } else { None };
        let outcome = self.faulty_commit(commit).await?;
        drop(gate);
        if matches!(outcome, CommitOutcome::Committed(_)) && !self.is(Fault::EarlyWatchOnly) {
            self.wake(commit);
        }
        Ok(outcome)
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        if self.is(Fault::ResolvesAnything) {
            return Ok(Resolution::Committed(Point::new(1)));
        }
        self.inner.resolve(receipt).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        let watching = Watching { client: self.client, keys: keys.to_vec(), notify: Arc::clone(&notify) };
        lock(&self.common.watchers).insert(id, watching);
        Ok(Box::new(Watch { common: Arc::clone(&self.common), id, notify, hints: 0 }))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        backend::Coordinator::losses(&*self.inner)
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        backend::Coordinator::sessions(&*self.inner)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let mut all = self.inner.list_all(&Key::root()).await?;
        all.retain(|key| match self.common.fault {
            Fault::ListedByText => key.as_str().starts_with(prefix.as_str()),
            Fault::ListWithoutOwn => key.is_under(prefix) && !key.is_reserved(),
            _ => key.is_under(prefix),
        });
        if self.is(Fault::ListedBackwards) {
            all.reverse();
        }
        if self.is(Fault::ListWithoutTombstones) {
            let entries = self.inner.read(&all, None).await?.entries;
            let dead = |entry: &Option<Entry>| matches!(entry, Some(e) if matches!(e.record.payload, Payload::Deleted));
            let mut entries = entries.iter();
            all.retain(|_| !entries.next().is_some_and(dead));
        }
        Ok(self.common.page(all, after))
    }
}
