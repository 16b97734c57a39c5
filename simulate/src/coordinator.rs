use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::{Coordinator, CoordinatorCapabilities, Page, Sessions, Wake, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Floor, Receipt, Resolution, SessionId, Snapshot, Turn};
use avout_core::{Error, ErrorKind, Key, Payload, Point, Realm, Result};
use bytes::Bytes;
use tokio::sync::Notify;

use crate::ahead;
use crate::knobs::CoordinatorKnobs;
use crate::link::{Link, Reply};
use crate::records::Records;
use crate::sessions::Alive;

/// How long a watch is without its connection.
const LONGEST_LOSS: Duration = Duration::from_millis(500);

/// One client's view of the simulated coordinator.
pub(crate) struct SimCoordinator {
    records: Arc<Records>,
    alive: Arc<Alive>,
    /// How many times their time to live sessions last, if it has sessions of its own.
    lasting: Option<f64>,
    capabilities: CoordinatorCapabilities,
    fresh: f64,
    link: Link,
}

impl SimCoordinator {
    pub(crate) fn new((records, alive): (Arc<Records>, Arc<Alive>), knobs: &CoordinatorKnobs, link: Link) -> Self {
        let mut capabilities = CoordinatorCapabilities::new(Realm::new(0));
        capabilities.in_process = knobs.in_process;
        capabilities.max_inline = knobs.max_inline;
        capabilities.definite_replies = knobs.definite_replies;
        capabilities.unique_revisions = knobs.unique_revisions;
        capabilities.native_snapshots = knobs.native_snapshots;
        Self { records, alive, lasting: knobs.sessions, capabilities, fresh: knobs.fresh, link }
    }

    fn at_once(&self) -> bool {
        self.capabilities.in_process && self.link.world().chance(0.5)
    }

    /// What a reply tells of an outcome: not always all that it could.
    fn told(&self, mut outcome: CommitOutcome) -> CommitOutcome {
        if self.link.is_ahead() {
            ahead::outcome(&mut outcome);
        }
        let CommitOutcome::Conflict(mut conflict) = outcome else {
            return outcome;
        };
        let world = self.link.world();
        if !world.chance(self.fresh) {
            conflict.fresh = None;
            if world.chance(0.5) {
                conflict.stale.truncate(1);
            }
        }
        CommitOutcome::Conflict(conflict)
    }

    /// Sends a request that may be repeated.
    async fn ask<T, F>(&self, what: impl Fn() -> String, apply: F) -> Result<T>
    where
        F: Fn() -> T + Clone + Send + 'static,
    {
        match self.link.call(what, apply).await {
            Reply::Done(done) => Ok(done),
            Reply::Refused | Reply::Lost => Err(Error::new(ErrorKind::Unavailable, "no answer, by plan")),
        }
    }
}

fn applied(records: &Records, link: &Link, judged: Option<u64>, commit: &Commit) -> CommitOutcome {
    let deleted: Vec<Key> = commit.deletes.iter().map(|delete| delete.key.clone()).collect();
    let before = records.read(&deleted, None).map(|snapshot| snapshot.entries).unwrap_or_default();
    let outcome = records.commit(judged, commit);
    if let CommitOutcome::Committed(_) = &outcome {
        for (key, entry) in deleted.iter().zip(before) {
            let alive = entry.is_some_and(|entry| !matches!(entry.record.payload, Payload::Deleted));
            if alive && !key.is_reserved() {
                link.world()
                    .violation(format!("removed: the record of {key} is removed for good, and the ref is there"));
            }
        }
    }
    link.tell(|| match &outcome {
        CommitOutcome::Committed(done) => format!("{} at point {}", describe(commit), done.point),
        CommitOutcome::Conflict(conflict) if conflict.stale.is_empty() => {
            format!("{}: it came before, or was fenced off", describe(commit))
        }
        CommitOutcome::Conflict(conflict) => {
            format!("{}: conflict on {}", describe(commit), names(&conflict.stale))
        }
    });
    outcome
}

/// Keys as the story tells them. Slots have random names, and what comes first among a client's keys depends on such.
fn names<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    keys.into_iter().map(name).collect::<Vec<_>>().join(" ")
}

fn name(key: &Key) -> String {
    match key.as_str().strip_prefix("/.avout/") {
        None => key.to_string(),
        Some(own) if own.starts_with("slots") => "(slot)".to_owned(),
        Some(_) if *key == Turn::key() => "(turn)".to_owned(),
        Some(_) if *key == Floor::key() => "(floor)".to_owned(),
        Some(own) => format!("({own})"),
    }
}

fn describe(commit: &Commit) -> String {
    let puts = names(commit.puts.iter().map(|put| &put.key).chain(commit.deletes.iter().map(|delete| &delete.key)));
    match names(commit.checks.iter().map(|check| &check.key)) {
        checks if checks.is_empty() => format!("commit of {puts}"),
        checks => format!("commit of {puts} if {checks} did not change"),
    }
}

#[async_trait]
impl Coordinator for SimCoordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    async fn read(&self, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
        let at = at.filter(|_| self.capabilities.native_snapshots);
        let (records, link, asked) = (Arc::clone(&self.records), self.link.clone(), keys.to_vec());
        let apply = move || {
            let snapshot = records.read(&asked, at);
            link.tell(|| match &snapshot {
                Ok(snapshot) => format!("reads {} at point {}", names(&asked), snapshot.point),
                Err(_) => format!("reads {} and is too late", names(&asked)),
            });
            snapshot
        };
        let mut snapshot = self.ask(|| format!("read of {}", names(keys)), apply).await??;
        if self.link.is_ahead() {
            ahead::snapshot(keys, &mut snapshot);
        }
        Ok(snapshot)
    }

    /// Some requests of a client in the same process are answered at once.
    fn read_now(&self, keys: &[Key]) -> Option<Snapshot> {
        if !self.at_once() {
            return None;
        }
        let snapshot = self.records.read(keys, None).ok()?;
        self.link.tell(|| format!("reads {} at point {}, at once", names(keys), snapshot.point));
        Some(snapshot)
    }

    fn commit_now(&self, commit: &Commit) -> Option<CommitOutcome> {
        if !self.at_once() || !self.capabilities.definite_replies {
            return None;
        }
        let judged = Some(self.link.world().next_id());
        Some(self.told(applied(&self.records, &self.link, judged, commit)))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let world = self.link.world();
        let number = world.next_id();
        let judged = self.capabilities.definite_replies.then_some(number);
        let (records, link, sent) = (Arc::clone(&self.records), self.link.clone(), Arc::new(commit.clone()));
        let apply = move || applied(&records, &link, judged, &sent);
        match self.link.call(|| describe(commit), apply).await {
            Reply::Done(outcome) => Ok(self.told(outcome)),
            Reply::Refused => Err(Error::new(ErrorKind::Unavailable, "refused, by plan")),
            Reply::Lost => {
                let error = Error::new(ErrorKind::OutcomeUnknown, "the reply was lost, by plan");
                Err(match judged {
                    None => error,
                    Some(number) => error.with_receipt(Receipt::Native(Bytes::copy_from_slice(&number.to_be_bytes()))),
                })
            }
        }
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        let number = receipt[..].try_into().map(u64::from_be_bytes);
        let number = number.map_err(|_| Error::new(ErrorKind::Unsupported, "no receipt of this coordinator"))?;
        let (records, link) = (Arc::clone(&self.records), self.link.clone());
        let apply = move || {
            let resolution = records.resolve(number);
            link.tell(|| format!("finds out: {resolution:?}"));
            resolution
        };
        self.ask(|| "question how a commit ended".to_owned(), apply).await
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let (records, world, asked) = (Arc::clone(&self.records), self.link.world().clone(), keys.to_vec());
        let apply = move || {
            let number = world.next_id();
            let (records, notify) = (Arc::clone(&records), records.watch(number, &asked));
            SimWatcher { records, number, notify, link: None, hinted: false }
        };
        let mut watcher = self.ask(|| format!("watch of {}", names(keys)), apply).await?;
        watcher.link = Some(self.link.clone());
        Ok(Box::new(watcher))
    }

    fn sessions(&self) -> Option<&dyn Sessions> {
        self.lasting.map(|_| self as &dyn Sessions)
    }

    async fn list(&self, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let (records, asked) = (Arc::clone(&self.records), prefix.clone());
        let all = self.ask(|| format!("list of {prefix}"), move || records.keys(&asked)).await?;
        Ok(Page::rest(all, after))
    }
}

#[async_trait]
impl Sessions for SimCoordinator {
    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        let lasts = ttl.mul_f64(self.lasting.unwrap_or(1.0));
        let (alive, link) = (Arc::clone(&self.alive), self.link.clone());
        let apply = move || {
            let renewed = alive.renew(session, lasts);
            link.tell(|| format!("shows that session {session} is alive: {renewed}"));
            renewed
        };
        self.ask(|| format!("sign of life of session {session}"), apply).await
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        let (alive, asked) = (Arc::clone(&self.alive), sessions.to_vec());
        self.ask(|| "question who is alive".to_owned(), move || alive.are_alive(&asked)).await
    }

    async fn end(&self, session: SessionId) -> Result<()> {
        let (alive, link) = (Arc::clone(&self.alive), self.link.clone());
        let apply = move || {
            alive.end(session);
            link.tell(|| format!("ends session {session}"));
        };
        self.ask(|| format!("end of session {session}"), apply).await
    }
}

/// A watch: a hint takes its time, and the connection may be lost.
struct SimWatcher {
    records: Arc<Records>,
    number: u64,
    notify: Arc<Notify>,
    link: Option<Link>,
    /// A hint was taken and not told yet.
    hinted: bool,
}

#[async_trait]
impl Watcher for SimWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        if !self.hinted {
            self.notify.notified().await;
            self.hinted = true;
        }
        let mut wake = Ok(Wake::Changed);
        if let Some(link) = &self.link {
            link.travel().await;
            let world = link.world();
            if link.fault(world.knobs().lost_watches) {
                link.tell(|| "a watch loses its connection".to_owned());
                if world.chance(0.5) {
                    // What is hinted at stays so: the caller may wait again.
                    return Err(Error::new(ErrorKind::Unavailable, "the connection was lost, by plan"));
                }
                tokio::time::sleep(world.draw_delay(LONGEST_LOSS)).await;
                wake = Ok(Wake::Lost);
            }
        }
        self.hinted = false;
        wake
    }
}

impl Drop for SimWatcher {
    fn drop(&mut self) {
        self.records.unwatch(self.number);
    }
}
