use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use avout_core::backend::history::{Era, History, Losses};
use avout_core::protocol::{Key, Point, Realm};
use mongodb::bson::oid::ObjectId;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::wire::driver::Signs;

/// How long after a beat the next one is due, at least; up to three times as long, by chance, so that of many clients one does it.
const BEAT: Duration = Duration::from_millis(250);

/// Which collection tells whether a majority knows all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The one with the document of eras.
    Refs,
    /// Where there is a store alone.
    Meta,
    /// It is one server.
    Nowhere,
}

/// What this client's last commit wrote last into a record of the engine's own: that is its slot, which no other client writes unless it is
/// in doubt.
#[derive(Clone)]
pub(crate) struct Own {
    pub(crate) era: Era,
    pub(crate) bound: Point,
    pub(crate) key: Key,
}

/// What a client knows of the servers' log and history.
pub(crate) struct Progress {
    /// Of the namespace that was opened.
    pub(crate) realm: Realm,
    pub(crate) kept: Kept,
    /// The client begins no era.
    pub(crate) readonly: bool,
    pub(crate) history: History,
    pub(crate) signs: Arc<Signs>,
    /// The latest point that this client has seen. Whatever it commits from now on has a later one.
    seen: AtomicU64,
    /// The last term of a primary that was found to know all that was acknowledged before.
    term: AtomicI64,
    /// The primary's process, when it was last asked for.
    pub(crate) process: Mutex<Option<ObjectId>>,
    /// How many connections there were when that was.
    pub(crate) proven: AtomicU64,
    /// How many processes there were.
    changes: AtomicU64,
    last: SyncMutex<Option<Own>>,
    begun: Instant,
    /// When the next beat is due, in microseconds.
    due: AtomicU64,
}

impl Progress {
    pub(crate) fn new(realm: Realm, kept: Kept, readonly: bool, signs: Arc<Signs>) -> Self {
        Self {
            realm,
            kept,
            readonly,
            history: History::new(64, Arc::new(Losses::new())),
            signs,
            seen: AtomicU64::new(0),
            term: AtomicI64::new(0),
            process: Mutex::new(None),
            proven: AtomicU64::new(0),
            changes: AtomicU64::new(0),
            last: SyncMutex::default(),
            begun: Instant::now(),
            due: AtomicU64::new(0),
        }
    }

    pub(crate) fn saw(&self, point: Point) {
        self.seen.fetch_max(point.number(), Ordering::AcqRel);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    pub(crate) fn knows_term(&self, term: i64) -> bool {
        self.term.load(Ordering::Acquire) == term
    }

    pub(crate) fn in_term(&self, term: i64) {
        self.term.store(term, Ordering::Release);
    }

    pub(crate) fn term(&self) -> i64 {
        self.term.load(Ordering::Acquire)
    }

    /// There is another process. The next commit is to write a beat.
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
        self.due.store(0, Ordering::Release);
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Whether a request may have been answered by a process that nobody has asked for.
    pub(crate) fn is_unproven(&self) -> bool {
        self.kept == Kept::Refs && self.proven.load(Ordering::Acquire) != self.signs.connections()
    }

    /// This client has committed.
    pub(crate) fn committed(&self, own: Own) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|last| last.era != own.era || last.bound < own.bound) {
            *last = Some(own);
        }
    }

    /// Its last commit in an era.
    pub(crate) fn last(&self, era: Era) -> Option<Own> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().filter(|last| last.era == era)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn rest(&self) {
        let least = u64::try_from(BEAT.as_micros()).unwrap_or(u64::MAX);
        self.due.store(self.now() + rand::random_range(least..=3 * least), Ordering::Release);
    }

    /// Whether the caller's commit is to write a beat. It is said to one caller.
    pub(crate) fn takes_beat(&self) -> bool {
        let due = self.due.load(Ordering::Acquire);
        let then = self.now() + u64::try_from(BEAT.as_micros()).unwrap_or(u64::MAX);
        self.now() >= due && self.due.compare_exchange(due, then, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes in a beat that was committed or read in `era`.
    pub(crate) fn beat(&self, era: Era, beat: u64) {
        if beat > self.history.known().seen {
            self.rest();
        }
        self.history.observe(era, beat);
    }
}
