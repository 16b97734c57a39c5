use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::Error;
use avout_core::backend::{Bell, Bells};
use avout_core::protocol::Key;

use crate::schema::clock::Stamp;

/// Where a key that is watched lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
pub(crate) struct Hub {
    /// Changed under the lock of the state only.
    bells: Arc<Bells<Spot>>,
    state: Mutex<State>,
    /// Wakes the poller: the first watch, or the end.
    poller: Condvar,
}

#[derive(Default)]
struct State {
    /// The newest that is known of keys that are watched: the clock then, and what the key had.
    known: HashMap<Spot, (i64, Option<Stamp>)>,
    polling: bool,
    closed: Option<Error>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { bells: Bells::new(), state: Mutex::default(), poller: Condvar::new() }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, spots: Vec<Spot>) -> Bell<Spot> {
        let state = self.lock();
        let bell = self.bells.register(spots);
        let closed = state.closed.clone();
        drop(state);
        if let Some(closed) = closed {
            self.bells.end(&closed);
        }
        self.poller.notify_one();
        bell
    }

    pub(super) fn remove(&self, bell: Bell<Spot>) {
        let mut state = self.lock();
        let spots = bell.keys().to_vec();
        drop(bell);
        for spot in spots.iter().filter(|spot| !self.bells.is_watched(*spot)) {
            state.known.remove(spot);
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
        if self.bells.is_empty() {
            return;
        }
        let mut changed = Vec::new();
        for Change { table, key, as_of, stamp } in changes {
            let spot = (table, key);
            if !self.bells.is_watched(&spot) {
                continue;
            }
            let news = match state.known.get(&spot) {
                None => first_is_change,
                Some((known_as_of, _)) if *known_as_of > as_of => continue,
                Some((_, known)) => *known != stamp,
            };
            state.known.insert(spot.clone(), (as_of, stamp));
            if news {
                changed.push(spot);
            }
        }
        drop(state);
        changed.iter().for_each(|spot| self.bells.ring(spot));
    }

    /// As [`notify`](Self::notify), from one who has read the keys, changed or not.
    pub(crate) fn observe(&self, seen: Vec<Change>) {
        self.take_in(seen, false);
    }

    /// Tells all watchers that changes may have gone by.
    pub(crate) fn lose(&self) {
        self.bells.ring_lost();
    }

    /// The same, and whatever comes next is a change: the clock has gone back.
    pub(crate) fn begin_anew(&self) {
        let mut state = self.lock();
        state.known = self.bells.keys().into_iter().map(|spot| (spot, (i64::MIN, Some(Stamp::NONE)))).collect();
        drop(state);
        self.lose();
    }

    /// Ends the poller and the watchers, those of now and those that come later.
    pub(crate) fn close(&self, error: &Error) {
        self.lock().closed = Some(error.clone());
        self.bells.end(error);
        self.poller.notify_all();
    }

    /// Whether the caller is to start the poller.
    pub(crate) fn wants_poller(&self) -> bool {
        let mut state = self.lock();
        state.closed.is_none() && !std::mem::replace(&mut state.polling, true)
    }

    pub(crate) fn poller_ended(&self) {
        self.lock().polling = false;
    }

    /// The poller's pause. False: it is to end, since the client did, or nobody has watched anything for `linger`.
    pub(crate) fn pause(&self, pause: Duration, linger: Duration) -> bool {
        let mut state = self.lock();
        for (is_empty, time) in [(false, pause), (true, linger)] {
            let goes_on = |state: &mut State| state.closed.is_none() && self.bells.is_empty() == is_empty;
            let waited = self.poller.wait_timeout_while(state, time, goes_on);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed.is_some() || self.bells.is_empty() {
            // Under the same lock as the look, so that a new watch either is seen here or starts another poller.
            state.polling = false;
            return false;
        }
        true
    }

    /// All keys that are watched.
    pub(crate) fn spots(&self) -> Vec<Spot> {
        self.bells.keys()
    }
}
