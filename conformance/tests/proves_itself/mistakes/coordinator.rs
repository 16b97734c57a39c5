use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{Coordinator, CoordinatorCapabilities, Page, Sessions, Wake, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Conflict, Realm, Resolution, Snapshot};
use avout_core::{Error, ErrorKind, Key, Point, Result, Revision};
use bytes::Bytes;

use super::mistake::Mistake;
use super::sessions::Leases;
use super::world::{Before, Client, World, lock};

/// What the server of a mistaken client takes and gives at most.
const SERVER_BYTES: usize = 4 << 20;
const SERVER_KEYS: usize = 128;
/// How far a follower lags behind.
const LAG: Duration = Duration::from_secs(2);
/// How late a watch is.
const LATE: Duration = Duration::from_millis(150);

pub(super) fn wrap(inner: Arc<dyn Coordinator>, client: Client) -> Arc<dyn Coordinator> {
    let mut capabilities = inner.capabilities().clone();
    match client.world.mistake {
        Mistake::RealmNotKept => capabilities.realm = Realm::random(),
        Mistake::BeginningIsNow => capabilities.native_snapshots = true,
        Mistake::VersionAsRevision => capabilities.unique_revisions = true,
        Mistake::CommitTooLarge => capabilities.max_commit = 2 << 20,
        Mistake::TooManyKeys => capabilities.max_keys = 1000,
        _ => {}
    }
    let leases = Leases(client.clone());
    Arc::new(Layer { inner, client, capabilities, leases, seen: Mutex::default() })
}

struct Layer {
    inner: Arc<dyn Coordinator>,
    client: Client,
    capabilities: CoordinatorCapabilities,
    leases: Leases,
    /// What the client read before.
    seen: Mutex<HashMap<Vec<Key>, Snapshot>>,
}

impl Layer {
    fn world(&self) -> &World {
        &self.client.world
    }

    /// What the server of a mistaken client refuses.
    fn refused(&self, keys: usize, bytes: impl FnOnce() -> usize) -> Result<()> {
        let refused = match self.world().mistake {
            Mistake::TooManyKeys => keys > SERVER_KEYS,
            Mistake::CommitTooLarge => bytes() > 1 << 20,
            _ => false,
        };
        if refused { Err(Error::new(ErrorKind::Unavailable, "the connection was closed")) } else { Ok(()) }
    }

    async fn current(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        let world = self.world();
        match world.mistake {
            Mistake::BeginningIsNow => {
                let snapshot = self.inner.read(keys, None).await?;
                match at {
                    Some(at) if at > Point::ZERO && at <= snapshot.point => {
                        Err(Error::new(ErrorKind::TooOld, "no earlier points here"))
                    }
                    _ => Ok(snapshot),
                }
            }
            Mistake::ReadInParts => {
                let mut whole = self.inner.read(&[], None).await?;
                for key in keys {
                    let part = self.inner.read(std::slice::from_ref(key), None).await?;
                    whole.entries.extend(part.entries);
                    whole.point = part.point;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Ok(whole)
            }
            Mistake::VersionAsRevision => {
                let _gate = world.gate.lock().await;
                let mut snapshot = self.inner.read(keys, at).await?;
                for (key, entry) in keys.iter().zip(&mut snapshot.entries) {
                    if let Some(entry) = entry {
                        entry.revision = self.version(key);
                    }
                }
                Ok(snapshot)
            }
            Mistake::WrongPoint => {
                let snapshot = self.inner.read(keys, at).await?;
                Ok(Snapshot { point: Point::new(snapshot.point.number() + 3), ..snapshot })
            }
            _ => self.inner.read(keys, at).await,
        }
    }

    fn version(&self, key: &Key) -> Revision {
        Revision::number(lock(&self.world().versions).get(key).copied().unwrap_or_default())
    }

    async fn mistaken(&self, commit: &Commit) -> Result<CommitOutcome> {
        match self.world().mistake {
            Mistake::ChecksUnchecked => self.inner.commit(&Commit { checks: Vec::new(), ..commit.clone() }).await,
            Mistake::ChecksOfAFollower => self.at_a_follower(commit).await,
            Mistake::VersionAsRevision => self.by_versions(commit).await,
            Mistake::FreshIncomplete => {
                let outcome = self.inner.commit(commit).await?;
                let CommitOutcome::Conflict(mut conflict) = outcome else { return Ok(outcome) };
                conflict.stale.truncate(1);
                conflict.fresh = Some(self.inner.read(&conflict.stale, None).await?);
                Ok(CommitOutcome::Conflict(conflict))
            }
            _ => self.inner.commit(commit).await,
        }
    }

    /// What others have committed of late has not reached the one that judges commits without a write.
    async fn at_a_follower(&self, commit: &Commit) -> Result<CommitOutcome> {
        let world = self.world();
        let mut asked = commit.clone();
        if commit.puts.is_empty() && commit.deletes.is_empty() {
            let keys: Vec<Key> = commit.checks.iter().map(|check| check.key.clone()).collect();
            let now = self.inner.read(&keys, None).await?.entries;
            for (check, entry) in asked.checks.iter_mut().zip(now) {
                let lags = lock(&world.before).get(&check.key).is_some_and(|before| {
                    let of_another = before.client != self.client.number;
                    of_another && before.since.elapsed() < LAG && before.revision == check.revision
                });
                if lags {
                    check.revision = entry.map(|entry| entry.revision);
                }
            }
            return self.inner.commit(&asked).await;
        }
        let outcome = self.inner.commit(commit).await?;
        if matches!(outcome, CommitOutcome::Committed(_)) {
            let mut all = lock(&world.before);
            for (key, revision) in commit.expectations() {
                let (revision, client) = (revision.cloned(), self.client.number);
                all.insert(key.clone(), Before { revision, client, since: Instant::now() });
            }
        }
        Ok(outcome)
    }

    /// Commits where a revision is how often the key was put since it was made.
    async fn by_versions(&self, commit: &Commit) -> Result<CommitOutcome> {
        let _gate = self.world().gate.lock().await;
        let keys: Vec<Key> = commit.expectations().map(|(key, _)| key.clone()).collect();
        let now = self.inner.read(&keys, None).await?.entries;
        let stale = commit.expectations().zip(&now).filter(|((key, expected), entry)| {
            let told = entry.is_some().then(|| self.version(key));
            told.as_ref() != *expected
        });
        let stale: Vec<Key> = stale.map(|((key, _), _)| key.clone()).collect();
        if !stale.is_empty() {
            return Ok(CommitOutcome::Conflict(Conflict { stale, fresh: None }));
        }
        let mut real = commit.clone();
        let mut now = now.into_iter().map(|entry| entry.map(|entry| entry.revision));
        real.checks.iter_mut().for_each(|check| check.revision = now.next().flatten());
        real.puts.iter_mut().for_each(|put| put.revision = now.next().flatten());
        for (delete, revision) in real.deletes.iter_mut().zip(now) {
            delete.revision = revision.expect("it was compared");
        }
        let mut outcome = self.inner.commit(&real).await?;
        if let CommitOutcome::Committed(done) = &mut outcome {
            let mut versions = lock(&self.world().versions);
            for delete in &commit.deletes {
                versions.remove(&delete.key);
            }
            for (put, told) in commit.puts.iter().zip(&mut done.revisions) {
                let version = versions.entry(put.key.clone()).or_default();
                *version += 1;
                *told = Revision::number(*version);
            }
        }
        Ok(outcome)
    }
}

#[async_trait]
impl Coordinator for Layer {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.inner.losses()
    }

    fn entry_point(&self, revision: &Revision, committed: Point) -> Point {
        self.inner.entry_point(revision, committed)
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        self.refused(keys.len(), || 0)?;
        if self.world().is(Mistake::ReadOfAFollower) && self.world().every_other() {
            let seen = lock(&self.seen).get(keys).cloned();
            if let Some(seen) = seen {
                return Ok(seen);
            }
        }
        let snapshot = self.client.read(self.current(keys, at)).await?;
        if self.world().is(Mistake::ReceiveLimit) {
            let sizes = snapshot.entries.iter().flatten().map(|entry| entry.record.encoded_size());
            if sizes.sum::<usize>() > SERVER_BYTES {
                return Err(Error::new(ErrorKind::Unavailable, "the reply is larger than the driver takes"));
            }
        }
        if self.world().is(Mistake::ReadOfAFollower) {
            lock(&self.seen).insert(keys.to_vec(), snapshot.clone());
        }
        Ok(snapshot)
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        self.refused(commit.len(), || commit.puts.iter().map(|put| put.record.encoded_size()).sum())?;
        self.client.write(self.mistaken(commit)).await
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        self.client.read(self.inner.resolve(receipt)).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let (inner, keys) = (Arc::clone(&self.inner), keys.to_vec());
        Watch::begin(&self.client, async move { inner.watch(&keys).await }).await
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        Some(&self.leases)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        self.client
            .read(async {
                if !self.world().is(Mistake::ListByText) {
                    return self.inner.list(prefix, after).await;
                }
                let mut all = self.inner.list_all(&Key::root()).await?;
                all.retain(|key| key.as_str().starts_with(prefix.as_str()));
                Ok(Page::rest(all, after))
            })
            .await
    }
}

/// A watch, which may not have begun yet, or was made anew without a word.
pub(super) struct Watch {
    begun: Option<tokio::task::JoinHandle<Result<Box<dyn Watcher>>>>,
    inner: Option<Box<dyn Watcher>>,
    client: Client,
    cuts: u64,
}

impl Watch {
    pub(super) async fn begin(
        client: &Client,
        watch: impl Future<Output = Result<Box<dyn Watcher>>> + Send + 'static,
    ) -> Result<Box<dyn Watcher>> {
        let cuts = client.world.cuts();
        let (begun, inner) = if client.world.is(Mistake::LateWatch) {
            let begun = tokio::spawn(async move {
                tokio::time::sleep(LATE).await;
                watch.await
            });
            (Some(begun), None)
        } else {
            (None, Some(client.read(watch).await?))
        };
        Ok(Box::new(Self { begun, inner, client: client.clone(), cuts }))
    }
}

#[async_trait]
impl Watcher for Watch {
    async fn changed(&mut self) -> Result<Wake> {
        if let Some(begun) = &mut self.begun {
            self.inner = Some(begun.await.expect("it does not panic")?);
            self.begun = None;
        }
        let world = &self.client.world;
        let inner = self.inner.as_mut().expect("it has begun");
        let wake = inner.changed().await?;
        // What was registered over the old connection is not heard any more.
        if world.is(Mistake::SilentReconnect) && world.cuts() != self.cuts {
            std::future::pending::<()>().await;
        }
        Ok(wake)
    }
}
