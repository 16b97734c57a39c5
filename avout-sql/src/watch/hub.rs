use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::backend::Wake;
use avout_core::backend::time::from_others;
use avout_core::protocol::Key;
use tokio::sync::Notify;

use crate::schema::clock::Stamp;

/// Where a key that is watched lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Table {
    Refs,
    Atoms,
}

/// A key of a table.
pub(crate) type Spot = (Table, Key);

/// What a key has at some point.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) table: Table,
    pub(crate) key: Key,
    /// The clock when it was so.
    pub(crate) as_of: i64,
    /// What it has; `None`: there is nothing under the key.
    pub(crate) stamp: Option<Stamp>,
}

/// Who watches what. The writer's thread tells it what this client changes, the poller what others change.
#[derive(Default)]
pub(crate) struct Hub {
    state: Mutex<State>,
    /// Wakes the poller: the first watch, or the end.
    poller: Condvar,
}

#[derive(Default)]
struct State {
    watched: HashMap<Spot, Watched>,
    polling: bool,
    closed: bool,
}

#[derive(Default)]
struct Watched {
    /// The newest that is known: the clock then, and what the key had.
    known: Option<(i64, Option<Stamp>)>,
    signals: Vec<Arc<Signal>>,
}

/// One watcher's bell. It rings once for any number of changes while nobody listens.
#[derive(Default)]
pub(crate) struct Signal {
    bell: Notify,
    lost: AtomicBool,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, spots: &[Spot], signal: &Arc<Signal>) {
        let mut state = self.lock();
        for spot in spots {
            state.watched.entry(spot.clone()).or_default().signals.push(Arc::clone(signal));
        }
        if state.closed {
            signal.bell.notify_one();
        }
        drop(state);
        self.poller.notify_one();
    }

    pub(super) fn remove(&self, spots: &[Spot], signal: &Arc<Signal>) {
        let mut state = self.lock();
        for spot in spots {
            if let Some(watched) = state.watched.get_mut(spot) {
                watched.signals.retain(|other| !Arc::ptr_eq(other, signal));
                if watched.signals.is_empty() {
                    state.watched.remove(spot);
                }
            }
        }
    }

    /// Takes in what is known of keys and wakes those who watch one that changed.
    ///
    /// News may come out of order, from the writer's thread and from readers of older snapshots: older than
    /// what is known is no news. The first that is known of a key is no change: whoever began to watch it
    /// before reads, or has read, the key itself at that clock or later.
    pub(crate) fn notify(&self, changes: Vec<Change>) {
        self.take_in(changes, true);
    }

    fn take_in(&self, changes: Vec<Change>, first_is_change: bool) {
        let mut state = self.lock();
        if state.watched.is_empty() {
            return;
        }
        for Change { table, key, as_of, stamp } in changes {
            let Some(watched) = state.watched.get_mut(&(table, key)) else {
                continue;
            };
            let changed = match watched.known {
                None => first_is_change,
                Some((known_as_of, _)) if known_as_of > as_of => continue,
                Some((_, known)) => known != stamp,
            };
            watched.known = Some((as_of, stamp));
            if changed {
                watched.signals.iter().for_each(|signal| signal.bell.notify_one());
            }
        }
    }

    /// As [`notify`](Self::notify), from one who has read the keys, changed or not.
    pub(crate) fn observe(&self, seen: Vec<Change>) {
        self.take_in(seen, false);
    }

    /// Tells all watchers that changes may have gone by.
    pub(crate) fn lose(&self) {
        self.lose_all(&self.lock());
    }

    /// The same, and whatever comes next is a change: the clock has gone back.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.lock();
        state.watched.values_mut().for_each(|watched| watched.known = Some((i64::MIN, Some(Stamp::NONE))));
        self.lose_all(&state);
    }

    fn lose_all(&self, state: &State) {
        for signal in state.watched.values().flat_map(|watched| &watched.signals) {
            signal.lost.store(true, Ordering::Release);
            signal.bell.notify_one();
        }
    }

    /// Ends the poller and the watchers.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for signal in state.watched.values().flat_map(|watched| &watched.signals) {
            signal.bell.notify_one();
        }
        drop(state);
        self.poller.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether the caller is to start the poller.
    pub(crate) fn wants_poller(&self) -> bool {
        let mut state = self.lock();
        !state.closed && !std::mem::replace(&mut state.polling, true)
    }

    pub(crate) fn poller_ended(&self) {
        self.lock().polling = false;
    }

    /// The poller's pause. False: it is to end, since the client did, or nobody has watched anything for `linger`.
    pub(crate) fn pause(&self, pause: Duration, linger: Duration) -> bool {
        let state = self.lock();
        let (mut state, _) = self
            .poller
            .wait_timeout_while(state, pause, |state| !state.closed && !state.watched.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        if !state.closed && state.watched.is_empty() {
            (state, _) = self
                .poller
                .wait_timeout_while(state, linger, |state| !state.closed && state.watched.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed || state.watched.is_empty() {
            // Under the same lock as the look, so that a new watch either is seen here or starts another poller.
            state.polling = false;
            return false;
        }
        true
    }

    /// All keys that are watched.
    pub(crate) fn spots(&self) -> Vec<Spot> {
        self.lock().watched.keys().cloned().collect()
    }
}

impl Signal {
    /// Waits until it rings. A wait that is dropped after it was woken gives the wake-up back.
    pub(super) async fn rung(&self) {
        from_others(self.bell.notified()).await;
    }

    /// Why it rang last.
    pub(super) fn why(&self) -> Wake {
        if self.lost.swap(false, Ordering::AcqRel) { Wake::Lost } else { Wake::Changed }
    }
}
