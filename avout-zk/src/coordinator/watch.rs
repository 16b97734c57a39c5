use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::time::from_others;
use avout_core::backend::{Wake, Watcher, tasks};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zookeeper::{AddWatchMode, Client as Zk, Error as ZkError, EventType, PersistentWatcher, SessionState};

use crate::wire::{Client, State, classify, closed};

/// The pauses between two attempts to make watches that fail, at least and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How far apart two events of one change may come.
const TOGETHER: Duration = Duration::from_millis(1);

/// Who watches which znode, over all sessions.
///
/// There is one persistent watch a znode, however many watchers it has. The server forgets it with the connection, and the client
/// does not renew it, so the hub makes all watches again whenever the client is connected anew, and then tells all watchers that
/// changes may have gone by.
pub(crate) struct Hub {
    watched: Mutex<HashMap<String, Watched>>,
    task: Mutex<Option<AbortHandle>>,
}

#[derive(Default)]
struct Watched {
    signals: Vec<Arc<Signal>>,
    /// The connection's turn in which the watch was made; 0: not yet.
    turn: u64,
    /// Passes the watch's events on, and ends the watch when it is dropped.
    listener: Option<Listener>,
}

struct Listener(AbortHandle);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One watcher's bell. It rings once for any number of changes while nobody listens.
#[derive(Default)]
struct Signal {
    bell: Notify,
    lost: AtomicBool,
    closed: AtomicBool,
}

impl Hub {
    pub(crate) fn new(client: &Client) -> Arc<Self> {
        let hub = Arc::new(Self { watched: Mutex::default(), task: Mutex::default() });
        let task = tasks::connections().spawn(renew(Arc::downgrade(&hub), client.watching()));
        *hub.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        hub
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The paths among these whose watch was not made in this turn.
    fn unarmed(&self, paths: &[String], turn: u64) -> Vec<String> {
        let watched = self.lock();
        let unarmed = |path: &&String| watched.get(*path).is_some_and(|watched| watched.turn != turn);
        paths.iter().filter(unarmed).cloned().collect()
    }

    /// The paths whose watch was made in an earlier turn. Those that have none yet are armed by who registered them.
    fn outdated(&self, turn: u64) -> Vec<String> {
        let watched = self.lock();
        let outdated = watched.iter().filter(|(_, watched)| watched.turn != 0 && watched.turn != turn);
        outdated.map(|(path, _)| path.clone()).collect()
    }

    /// Makes the watches of these paths, and says of each that it is made. All requests leave before the first answer comes. One that
    /// fails stops none of the others; those that failed are returned.
    async fn arm(self: &Arc<Self>, zk: &Zk, paths: &[String], turn: u64, made: impl Fn(&str)) -> Vec<ZkError> {
        let mut answers = FuturesUnordered::new();
        for path in paths {
            answers.push(async move { (path.as_str(), zk.watch(path, AddWatchMode::Persistent).await) });
        }
        let mut failed = Vec::new();
        while let Some((path, answer)) = answers.next().await {
            match answer {
                Ok(events) => {
                    self.listen(path, events, turn);
                    made(path);
                }
                Err(error) => failed.push(error),
            }
        }
        failed
    }

    fn listen(self: &Arc<Self>, path: &str, events: PersistentWatcher, turn: u64) {
        let mut watched = self.lock();
        // All that watched it may be gone; then the watch goes as well.
        if let Some(entry) = watched.get_mut(path)
            && entry.turn <= turn
        {
            let task = tasks::connections().spawn(pass_on(Arc::downgrade(self), path.to_owned(), events));
            entry.turn = turn;
            entry.listener = Some(Listener(task.abort_handle()));
        }
    }

    fn ring(&self, path: &str) {
        if let Some(watched) = self.lock().get(path) {
            watched.signals.iter().for_each(|signal| signal.bell.notify_one());
        }
    }

    fn ring_lost(&self, path: &str) {
        for signal in self.lock().get(path).iter().flat_map(|watched| &watched.signals) {
            signal.lost.store(true, Ordering::Release);
            signal.bell.notify_one();
        }
    }

    fn close(&self) {
        for signal in self.lock().drain().flat_map(|(_, watched)| watched.signals) {
            signal.closed.store(true, Ordering::Release);
            signal.bell.notify_one();
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

/// Makes all watches again whenever the client is connected anew, and those that fail again and again.
async fn renew(hub: std::sync::Weak<Hub>, mut state: watch::Receiver<State>) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let now = state.borrow_and_update().clone();
        let failed = {
            let Some(hub) = hub.upgrade() else { return };
            match now {
                State::Up { zk, turn } => {
                    let outdated = hub.outdated(turn);
                    hub.arm(&zk, &outdated, turn, |path| hub.ring_lost(path)).await
                }
                State::Closed => return hub.close(),
                State::Idle | State::Connecting | State::Refused(_) => Vec::new(),
            }
        };
        let changed = match failed.first() {
            None => {
                pause = SHORTEST_PAUSE;
                state.changed().await
            }
            Some(error) => {
                tracing::warn!(%error, watches = failed.len(), "watches could not be made, trying again");
                let waited = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                // Another connection is another chance.
                timeout(waited, state.changed()).await.unwrap_or(Ok(()))
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Rings for each event of a watch until its connection is lost.
async fn pass_on(hub: std::sync::Weak<Hub>, path: String, mut events: PersistentWatcher) {
    loop {
        let mut event = events.changed().await;
        if event.event_type == EventType::NodeCreated {
            // A commit that checks the absence of a key makes its znode and deletes it, as one: nothing has changed.
            match timeout(TOGETHER, events.changed()).await {
                Ok(next) if next.event_type == EventType::NodeDeleted && next.zxid == event.zxid => continue,
                Ok(next) if next.event_type == EventType::Session => event = next,
                Ok(_) | Err(_) => {}
            }
        }
        // Another connection is for `renew`. After this one a session has no more events.
        if event.event_type == EventType::Session {
            if event.session_state != SessionState::SyncConnected {
                return;
            }
            continue;
        }
        match hub.upgrade() {
            Some(hub) => hub.ring(&path),
            None => return,
        }
    }
}

/// A watcher's place in the hub, from before the watches are made until it is dropped.
pub(crate) struct Registration {
    client: Arc<Client>,
    hub: Arc<Hub>,
    paths: Vec<String>,
    signal: Arc<Signal>,
}

impl Registration {
    pub(crate) fn new(client: &Arc<Client>, hub: &Arc<Hub>, mut paths: Vec<String>) -> Self {
        paths.sort_unstable();
        paths.dedup();
        let signal = Arc::new(Signal::default());
        let mut watched = hub.lock();
        for path in &paths {
            watched.entry(path.clone()).or_default().signals.push(Arc::clone(&signal));
        }
        drop(watched);
        Self { client: Arc::clone(client), hub: Arc::clone(hub), paths, signal }
    }

    /// Makes the watches that are not there. Later changes ring.
    ///
    /// `renew` does not see them before they are made. If the next turn begins in between, they are made again:
    /// ```text
    /// arm      turn 1: watches made ............................ noted; the turn is 2 -> again
    /// renew                           turn 2: nothing is noted
    /// ```
    pub(crate) async fn arm(&self) -> Result<()> {
        tasks::request(self.arm_all()).await
    }

    async fn arm_all(&self) -> Result<()> {
        loop {
            let (zk, turn) = self.client.watching_session().await?;
            let unarmed = self.hub.unarmed(&self.paths, turn);
            let limit = self.client.options.timeout;
            let failed = match timeout(limit, self.hub.arm(&zk, &unarmed, turn, |_| ())).await {
                Ok(failed) => failed,
                Err(_) => vec![ZkError::Timeout],
            };
            if let Some(error) = failed.into_iter().next() {
                return Err(classify(error));
            }
            match &*self.client.watching().borrow() {
                State::Up { turn: now, .. } if *now != turn => {}
                _ => return Ok(()),
            }
        }
    }

    /// Waits for the bell.
    pub(crate) async fn changed(&self) -> Result<Wake> {
        if !self.signal.closed.load(Ordering::Acquire) {
            from_others(self.signal.bell.notified()).await;
        }
        if self.signal.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        Ok(if self.signal.lost.swap(false, Ordering::AcqRel) { Wake::Lost } else { Wake::Changed })
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut ended = Vec::new();
        let mut watched = self.hub.lock();
        for path in &self.paths {
            if let Some(entry) = watched.get_mut(path) {
                entry.signals.retain(|other| !Arc::ptr_eq(other, &self.signal));
                if entry.signals.is_empty() {
                    ended.extend(watched.remove(path));
                }
            }
        }
    }
}

/// Watches records.
pub(crate) struct RefWatcher(pub(crate) Registration);

#[async_trait]
impl Watcher for RefWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        self.0.changed().await
    }
}
