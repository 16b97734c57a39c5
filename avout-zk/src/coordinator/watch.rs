use std::collections::HashMap;
use std::slice;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Bell, Bells, Wake, Watcher, tasks};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zookeeper::{AddWatchMode, Client as Zk, Error as ZkError, EventType, PersistentWatcher, SessionState};

use crate::wire::{Client, State, classify, closed};

/// The pauses between two attempts to make watches that fail, at least and at most.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How far apart two events of one change come, at most, if nothing is slow.
const TOGETHER: Duration = Duration::from_millis(1);

/// Who watches which znode, over all sessions.
///
/// There is one persistent watch a znode, however many watchers it has. The server forgets it with the connection, and the client
/// does not renew it, so the hub makes all watches again whenever the client is connected anew, and then tells all watchers that
/// changes may have gone by.
pub(crate) struct Hub {
    bells: Arc<Bells<String>>,
    /// The watches that were made, by their paths. Locked before the bells.
    armed: Mutex<HashMap<String, Armed>>,
    task: Mutex<Option<AbortHandle>>,
}

struct Armed {
    /// The connection's turn in which the watch was made.
    turn: u64,
    /// Passes the watch's events on. The watch ends with it.
    listener: AbortHandle,
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Hub {
    pub(crate) fn new(client: &Client) -> Arc<Self> {
        let hub = Arc::new_cyclic(|hub: &Weak<Self>| {
            let hub = hub.clone();
            let unwatched = move |paths: Vec<String>| hub.upgrade().iter().for_each(|hub| hub.disarm(&paths));
            Self { bells: Bells::telling(unwatched), armed: Mutex::default(), task: Mutex::default() }
        });
        let task = tasks::connections().spawn(renew(Arc::downgrade(&hub), client.watching()));
        *hub.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
        hub
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The paths among these whose watch was not made in this turn.
    fn unarmed(&self, paths: &[String], turn: u64) -> Vec<String> {
        let armed = self.lock();
        let unarmed = |path: &&String| armed.get(*path).is_none_or(|armed| armed.turn != turn);
        paths.iter().filter(unarmed).cloned().collect()
    }

    /// The paths whose watch was made in an earlier turn. Those that have none yet are armed by who registered them.
    fn outdated(&self, turn: u64) -> Vec<String> {
        let armed = self.lock();
        armed.iter().filter(|(_, armed)| armed.turn != turn).map(|(path, _)| path.clone()).collect()
    }

    /// Makes the watches of these paths, and says of each that it is made. All requests leave before the first answer comes. One that
    /// fails stops none of the others; those that failed are returned.
    async fn arm(self: &Arc<Self>, zk: &Zk, paths: &[String], turn: u64, made: impl Fn(&String)) -> Vec<ZkError> {
        let mut answers = FuturesUnordered::new();
        for path in paths {
            answers.push(async move { (path, zk.watch(path, AddWatchMode::Persistent).await) });
        }
        let mut failed = Vec::new();
        while let Some((path, answer)) = answers.next().await {
            match answer {
                Ok(events) => {
                    self.listen(zk, path, events, turn);
                    made(path);
                }
                Err(error) => failed.push(error),
            }
        }
        failed
    }

    fn listen(self: &Arc<Self>, zk: &Zk, path: &str, events: PersistentWatcher, turn: u64) {
        let mut armed = self.lock();
        // All that watched it may be gone; then the watch goes as well.
        if self.bells.is_watched(path) && armed.get(path).is_none_or(|armed| armed.turn <= turn) {
            let passed_on = pass_on(Arc::downgrade(self), zk.clone(), path.to_owned(), events);
            let listener = tasks::connections().spawn(passed_on).abort_handle();
            armed.insert(path.to_owned(), Armed { turn, listener });
        }
    }

    /// Ends the watches of paths that nobody watches any more.
    fn disarm(&self, paths: &[String]) {
        let mut armed = self.lock();
        for path in paths.iter().filter(|path| !self.bells.is_watched(path.as_str())) {
            armed.remove(path);
        }
    }

    fn close(&self) {
        self.lock().clear();
        self.bells.end(&closed());
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
async fn renew(hub: Weak<Hub>, mut state: watch::Receiver<State>) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        let now = state.borrow_and_update().clone();
        let failed = {
            let Some(hub) = hub.upgrade() else { return };
            match now {
                State::Up { zk, turn } => {
                    let outdated = hub.outdated(turn);
                    let lost = |path: &String| hub.bells.ring_lost_of(slice::from_ref(path));
                    hub.arm(&zk, &outdated, turn, lost).await
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
async fn pass_on(hub: Weak<Hub>, zk: Zk, path: String, mut events: PersistentWatcher) {
    loop {
        let mut event = events.changed().await;
        if event.event_type == EventType::NodeCreated {
            // A commit that checks the absence of a key makes its znode and deletes it, as one: nothing has changed.
            tokio::select! {
                biased;
                next = events.changed() => match next.event_type {
                    EventType::NodeDeleted if next.zxid == event.zxid => continue,
                    EventType::Session => event = next,
                    _ => {}
                },
                () = stays(&zk, &path) => {}
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
            Some(hub) => hub.bells.ring(&path),
            None => return,
        }
    }
}

/// Waits until it is known that a znode is there. If it is not, the server tells of its deletion before it answers.
async fn stays(zk: &Zk, path: &str) {
    tokio::time::sleep(TOGETHER).await;
    if let Ok(None) = zk.check_stat(path).await {
        std::future::pending::<()>().await;
    }
}

/// A watcher of znodes, from before the watches are made until it is dropped.
pub(crate) struct Registration {
    client: Arc<Client>,
    hub: Arc<Hub>,
    bell: Bell<String>,
}

impl Registration {
    pub(crate) fn new(client: &Arc<Client>, hub: &Arc<Hub>, paths: Vec<String>) -> Self {
        Self { client: Arc::clone(client), hub: Arc::clone(hub), bell: hub.bells.register(paths) }
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
            let unarmed = self.hub.unarmed(self.bell.keys(), turn);
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
}

#[async_trait]
impl Watcher for Registration {
    async fn changed(&mut self) -> Result<Wake> {
        self.bell.rung().await
    }
}
