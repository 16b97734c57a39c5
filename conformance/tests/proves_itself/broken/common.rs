use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avout_core::Key;
use avout_core::backend::Page;
use avout_core::protocol::Commit;
use tokio::sync::Notify;

use super::fault::Fault;

/// What all clients of the broken backend have in common.
pub(crate) struct Common {
    pub(crate) fault: Fault,
    /// Makes a few requests one, where a fault needs that.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Ticks with whatever the fault counts.
    pub(crate) count: AtomicU64,
    pub(crate) watchers: Mutex<HashMap<u64, Watching>>,
    /// Notified of each write of an atom.
    pub(crate) atoms: Notify,
    pub(crate) revisions: Mutex<HashMap<Key, u128>>,
    pub(crate) last: Mutex<Option<Commit>>,
    pub(crate) cut: AtomicBool,
    pub(crate) clients: AtomicU64,
}

pub(crate) struct Watching {
    pub(crate) client: u64,
    pub(crate) keys: Vec<Key>,
    pub(crate) notify: Arc<Notify>,
}

impl Common {
    pub(crate) fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// Counts, and is true at each `n`th count.
    pub(crate) fn each(&self, n: u64) -> bool {
        self.count.fetch_add(1, Ordering::SeqCst) % n == n - 1
    }

    /// The only page of these keys, sorted or not.
    pub(crate) fn page(&self, all: Vec<Key>, after: Option<&Key>) -> Page {
        let mut page = Page::rest(all, after);
        if let (true, Some(after)) = (self.is(Fault::PagesOverlap), after) {
            page.keys.insert(0, after.clone());
        }
        page
    }

    /// The key as a store with bad names sees it.
    pub(crate) fn key(&self, key: &Key) -> Key {
        let name = key.as_str();
        let folded = match self.fault {
            Fault::KeysFolded => name.to_lowercase(),
            Fault::KeysCut => name.chars().take(250).collect(),
            _ => return key.clone(),
        };
        Key::from_stored(folded.trim_end_matches('/')).unwrap_or_else(|_| key.clone())
    }
}

/// Whether a user's operation asked for it, and not the client's own time: signs of life, slots and the floor.
pub(crate) fn is_users(commit: &Commit) -> bool {
    let own = |key: &Key| {
        ["floor", "sessions/", "slots/", "turn"].iter().any(|own| key.as_str()["/.avout/".len()..].starts_with(own))
    };
    commit.puts.iter().any(|put| !put.key.is_reserved() || !own(&put.key))
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
