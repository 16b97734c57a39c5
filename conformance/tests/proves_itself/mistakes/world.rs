use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use avout_core::{Error, ErrorKind, Key, Result, Revision};
use tokio::sync::watch;

use super::lives::Lives;
use super::mistake::Mistake;

/// How long a call waits for a server that does not answer.
const TIME_LIMIT: Duration = Duration::from_millis(400);

/// What all clients of one law have in common.
pub(super) struct World {
    pub(super) mistake: Mistake,
    reply_is_lost: AtomicBool,
    is_stalled: watch::Sender<bool>,
    cuts: AtomicU64,
    wipes: AtomicU64,
    clients: AtomicU64,
    count: AtomicU64,
    /// What each key was before its last commit, whose that was, and when.
    pub(super) before: Mutex<HashMap<Key, Before>>,
    /// How often each key was put since it was made.
    pub(super) versions: Mutex<HashMap<Key, u128>>,
    /// Makes a read and a commit one.
    pub(super) gate: tokio::sync::Mutex<()>,
    pub(super) lives: Mutex<Lives>,
}

pub(super) struct Before {
    pub(super) revision: Option<Revision>,
    pub(super) client: u64,
    pub(super) since: Instant,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    pub(super) fn new(mistake: Mistake) -> Self {
        Self {
            mistake,
            reply_is_lost: AtomicBool::new(false),
            is_stalled: watch::Sender::new(false),
            cuts: AtomicU64::new(0),
            wipes: AtomicU64::new(0),
            clients: AtomicU64::new(0),
            count: AtomicU64::new(0),
            before: Mutex::default(),
            versions: Mutex::default(),
            gate: tokio::sync::Mutex::default(),
            lives: Mutex::default(),
        }
    }

    pub(super) fn is(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    /// Counts, and is true at every other count.
    pub(super) fn every_other(&self) -> bool {
        self.count.fetch_add(1, Ordering::SeqCst) % 2 == 1
    }

    /// A namespace that was wiped goes on under another name.
    pub(super) fn namespace(&self, name: &str) -> String {
        match self.wipes.load(Ordering::SeqCst) {
            0 => name.to_owned(),
            wipes => format!("{name}_{wipes}"),
        }
    }

    pub(super) fn lose_reply(&self) {
        self.reply_is_lost.store(true, Ordering::SeqCst);
    }

    pub(super) fn stall(&self, stall: bool) {
        self.is_stalled.send_replace(stall);
    }

    pub(super) fn cut(&self) {
        self.cuts.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }

    pub(super) fn wipe(&self) {
        self.wipes.fetch_add(1, Ordering::SeqCst);
    }
}

/// A client of the world.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) world: Arc<World>,
    pub(super) number: u64,
    /// How often the namespace had been wiped when it was opened.
    wipes: u64,
}

impl Client {
    pub(super) fn new(world: &Arc<World>) -> Self {
        let number = world.clients.fetch_add(1, Ordering::SeqCst);
        Self { world: Arc::clone(world), number, wipes: world.wipes.load(Ordering::SeqCst) }
    }

    /// Asks the backend below, as a driver does. `lost` is what a lost reply is told as.
    pub(super) async fn ask<T>(&self, lost: ErrorKind, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let world = &self.world;
        let mut stalled = world.is_stalled.subscribe();
        if *stalled.borrow() {
            let goes_on = stalled.wait_for(|stalled| !stalled);
            if world.is(Mistake::NoTimeLimit) {
                let _ = goes_on.await;
            } else if tokio::time::timeout(TIME_LIMIT, goes_on).await.is_err() {
                return Err(Error::new(ErrorKind::Unavailable, "the server did not take the request"));
            }
        }
        if self.wipes != world.wipes.load(Ordering::SeqCst) && !world.is(Mistake::NeverLost) {
            return Err(Error::new(ErrorKind::StoreLost, "the namespace was emptied"));
        }
        let is_lost = world.reply_is_lost.swap(false, Ordering::SeqCst);
        let answer = call.await;
        if is_lost {
            let kind = if world.is(Mistake::LostReplyAsFailure) { ErrorKind::Unavailable } else { lost };
            return Err(Error::new(kind, "the connection was reset"));
        }
        answer
    }

    pub(super) async fn read<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.ask(ErrorKind::Unavailable, call).await
    }

    pub(super) async fn write<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.ask(ErrorKind::OutcomeUnknown, call).await
    }
}
