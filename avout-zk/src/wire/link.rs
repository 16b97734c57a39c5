//! One of a client's connections.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_core::backend::history::Era;
use avout_core::backend::{Connection, tasks};
use avout_core::{Error, ErrorKind, Result};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zookeeper::{Client as Zk, Error as ZkError, SessionState};

use super::error::{classify, closed};
use super::nodelay;
use super::session::{Failed, connect};
use crate::options::Options;

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A connection, and the next one when it is lost. One task looks after it, so a request finds a connection or waits for one, and no
/// handle knows of sessions.
pub(super) struct Link {
    state: Arc<watch::Sender<State>>,
    /// Requests that are under way on it.
    load: AtomicUsize,
    /// Asks the task for a session, if it makes none by itself.
    wanted: Arc<Notify>,
    /// The turn in which the namespace was entered last, and what was learned.
    entered: Mutex<Option<(u64, Entered)>>,
    /// Held by the one that enters.
    pub(super) entering: tokio::sync::Mutex<()>,
    task: AbortHandle,
}

#[derive(Clone)]
pub(crate) enum State {
    /// No connection was needed yet.
    Idle,
    Connecting,
    /// Connected. Each connection is a session of its own and another turn: what the server knew of the one before, such as its
    /// watches, is gone.
    Up {
        zk: Arc<Zk>,
        turn: u64,
    },
    /// The servers refuse the user, or the client refuses the servers.
    Refused(Arc<Failed>),
    Closed,
}

/// What a connection has learned of the namespace.
#[derive(Clone)]
pub(super) struct Entered {
    pub(super) era: Era,
    /// Why nothing can be committed by it.
    pub(super) refused: Option<Error>,
}

/// How fit a connection is for a request.
pub(super) enum Fit {
    /// So many requests are under way on it.
    Up(usize),
    /// Nobody has needed it so far.
    Idle,
    Down,
}

impl Link {
    pub(super) fn new(options: Options, connection: &Arc<Connection>) -> Self {
        let state = Arc::new(watch::Sender::new(State::Idle));
        let wanted = Arc::new(Notify::new());
        let task =
            tasks::connections().spawn(keep(options, Arc::clone(connection), Arc::clone(&state), Arc::clone(&wanted)));
        let task = task.abort_handle();
        let (entered, entering) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { state, load: AtomicUsize::new(0), wanted, entered, entering, task }
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    pub(super) fn fit(&self) -> Fit {
        match &*self.state.borrow() {
            State::Up { .. } => Fit::Up(self.load()),
            State::Idle => Fit::Idle,
            State::Connecting | State::Refused(_) | State::Closed => Fit::Down,
        }
    }

    /// Has it connected, if nobody has needed it so far.
    pub(super) fn want(&self) {
        self.wanted.notify_one();
    }

    /// Counts a request for as long as the result lives.
    pub(super) fn busy(&self) -> Busy<'_> {
        self.load.fetch_add(1, Ordering::Relaxed);
        Busy(&self.load)
    }

    /// What was learned in this turn.
    pub(super) fn entered(&self, turn: u64) -> Option<Entered> {
        let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        entered.as_ref().filter(|(of, _)| *of == turn).map(|(_, entered)| entered.clone())
    }

    /// Notes it down; `None`: the namespace is to be entered again.
    pub(super) fn set_entered(&self, entered: Option<(u64, Entered)>) {
        *self.entered.lock().unwrap_or_else(PoisonError::into_inner) = entered;
    }

    /// A session that is connected just now.
    pub(super) async fn session(&self, limit: Duration) -> Result<(Arc<Zk>, u64)> {
        if let Some(session) = connected(&self.state.borrow()) {
            return Ok(session);
        }
        match timeout(limit, self.next_session()).await {
            Ok(session) => session,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "no server of the ensemble answers")),
        }
    }

    async fn next_session(&self) -> Result<(Arc<Zk>, u64)> {
        let mut state = self.state.subscribe();
        loop {
            {
                let now = state.borrow_and_update();
                if let Some(session) = connected(&now) {
                    return Ok(session);
                }
                match &*now {
                    State::Idle => self.wanted.notify_one(),
                    State::Refused(failed) => {
                        // Another try, for the one who asks next: the password may have been mended at the servers.
                        self.wanted.notify_one();
                        return Err(told(failed));
                    }
                    State::Closed => return Err(closed()),
                    State::Connecting | State::Up { .. } => {}
                }
            }
            if state.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    pub(super) fn close(&self) {
        self.task.abort();
        self.state.send_replace(State::Closed);
    }
}

/// Counts a request while it is under way.
pub(super) struct Busy<'a>(&'a AtomicUsize);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn told(failed: &Failed) -> Error {
    match failed {
        Failed::Zk(error) => classify(error.clone()),
        Failed::Tls(refused) => refused.told(),
        Failed::File(message) => Error::new(ErrorKind::InvalidInput, message.clone()),
    }
}

/// The session, if it is not about to be told that its connection is lost.
fn connected(state: &State) -> Option<(Arc<Zk>, u64)> {
    match state {
        State::Up { zk, turn } if zk.state() == SessionState::SyncConnected => Some((Arc::clone(zk), *turn)),
        _ => None,
    }
}

/// Looks after one connection for as long as the client lives.
async fn keep(options: Options, connection: Arc<Connection>, state: Arc<watch::Sender<State>>, wanted: Arc<Notify>) {
    let mut turn = 0;
    let mut pause = Duration::from_millis(10);
    wanted.notified().await;
    state.send_replace(State::Connecting);
    loop {
        match connect(&options).await {
            Ok(zk) => {
                pause = Duration::from_millis(10);
                turn += 1;
                let _up = connection.up();
                follow(Arc::new(zk), &options.servers, &state, turn).await;
                state.send_replace(State::Connecting);
            }
            Err(
                failed
                @ (Failed::Zk(ZkError::AuthFailed | ZkError::BadArguments(_)) | Failed::Tls(_) | Failed::File(_)),
            ) => {
                tracing::warn!(error = %told(&failed), "no connection to ZooKeeper, and trying again is of no use");
                state.send_replace(State::Refused(Arc::new(failed)));
                // Nobody is told the same more than once a second.
                tokio::time::sleep(LONGEST_PAUSE).await;
                wanted.notified().await;
                state.send_replace(State::Connecting);
            }
            Err(Failed::Zk(error)) => {
                tracing::warn!(%error, "no connection to ZooKeeper, trying again");
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Tells of a session until its connection is lost. What is under way on it fails then, and the session is left to expire.
async fn follow(zk: Arc<Zk>, servers: &str, state: &watch::Sender<State>, turn: u64) {
    let mut changes = zk.state_watcher();
    let servers = servers.to_owned();
    // Without it all is slower, and as right.
    let _ = tokio::task::spawn_blocking(move || nodelay::set(&servers)).await;
    let session = zk.session_id();
    if zk.state() == SessionState::SyncConnected {
        state.send_replace(State::Up { zk, turn });
        while changes.changed().await == SessionState::SyncConnected {}
    }
    tracing::info!(%session, "the connection to ZooKeeper was lost, making another");
}
