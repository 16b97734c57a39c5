//! Backends that are broken in one chosen way each, around a namespace in memory.

mod coordinator;
mod store;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};
use avout_core::backend::{Page, Store};
use avout_core::protocol::Commit;
use avout_core::{Key, Result};
use avout_local::Local;
use tokio::sync::Notify;

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    // Of a namespace.
    Nothing,
    NewRealmForEachClient,
    OneNamespaceForAll,
    ForgottenOnReopening,
    ResolvesAnything,
    KeysFolded,
    KeysCut,
    AwayAfterCut,
    DeafAfterCut,
    // Of reads.
    StaleRead,
    StaleAtOnce,
    TornRead,
    DoubleKeysDropped,
    AbsentLeftOut,
    PointOfTheFirstRead,
    PointAhead,
    AtRefused,
    SnapshotsClaimed,
    HistoryDropped,
    RecordsCut,
    SharedValuesCopied,
    RepliesMixedUp,
    // Of commits.
    LostWrite,
    TornCommit,
    TornWhenDropped,
    RepeatedCommit,
    ChecksIgnored,
    AbsenceIgnored,
    RevisionsIgnored,
    DeletesBlind,
    DeletesIgnored,
    ChecksWrite,
    PointsByClient,
    RevisionsReversed,
    RevisionsByContent,
    RevisionsBeginAgain,
    ConflictForAnyCommit,
    ConflictNamesAll,
    ConflictNamesOne,
    ConflictWithOldEntries,
    ConflictAppliesTheRest,
    ConflictTriedAgain,
    ConflictSwallowed,
    SlotForgotten,
    // Of watches.
    LostWatch,
    OwnChangesOnly,
    OthersChangesOnly,
    EarlyWatch,
    EarlyWatchOnly,
    WaitingOnly,
    FirstKeyOnly,
    OneWatcherOnly,
    OneHintOnly,
    PutsOnly,
    HintTakenByDroppedWait,
    DroppedWatcherEndsAll,
    // Of lists.
    ListedByText,
    ListedBackwards,
    ListWithoutOwn,
    ListWithoutTombstones,
    /// The page after a key has that key again.
    PagesOverlap,
    // Of stores.
    InitClobbers,
    LostSet,
    LostCas,
    CasIgnoresRevision,
    CasIgnoresAbsence,
    StaleCasWrites,
    StaleCasForgetsWhatItFound,
    CasRefusesOthersRevision,
    StateRevisionsBeginAgain,
    DestroyIgnored,
    DestroyRefusesTwice,
    StatesCut,
    LimitNotKept,
    AtomWatchDeaf,
    AtomWatchHearsOwnOnly,
    AtomWatchBeginsLate,
    AtomWatchWakesOneOnly,
    AtomHintEarly,
    KindsMixed,
    OverwrittenValue,
    RepeatRefused,
    DeleteIgnored,
    DeleteTakesAll,
    VersionsUnordered,
    VersionPartIgnored,
    VersionReused,
    LostValue,
    DestroyTakesThoseUnder,
    ListsEmptied,
}

/// A backend with one fault.
#[derive(Clone)]
pub(crate) struct Broken {
    common: Arc<Common>,
    limit: Duration,
}

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
    clients: AtomicU64,
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

impl Broken {
    pub(crate) fn new(fault: Fault) -> Self {
        let common = Arc::new(Common {
            fault,
            gate: tokio::sync::Mutex::default(),
            count: AtomicU64::new(0),
            watchers: Mutex::default(),
            atoms: Notify::new(),
            revisions: Mutex::default(),
            last: Mutex::default(),
            cut: AtomicBool::new(false),
            clients: AtomicU64::new(0),
        });
        // A hang is a failure, and soon one where a fault is expected to make it.
        let limit = Duration::from_secs(if fault == Fault::Nothing { 120 } else { 4 });
        Self { common, limit }
    }

    /// The same, where a law that takes longer than this hangs.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

#[async_trait]
impl Fixture for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    async fn open(&self, namespace: &str) -> Result<Backend> {
        let name = if self.common.is(Fault::OneNamespaceForAll) { &namespace[..22] } else { namespace };
        let local = Local::named(name);
        let client = self.common.clients.fetch_add(1, Ordering::SeqCst);
        Ok(Backend {
            coordinator: Some(coordinator::wrap(local.coordinator(), Arc::clone(&self.common), client)),
            store: Some(store::wrap(local.store(), Arc::clone(&self.common))),
        })
    }

    async fn open_readonly(&self, namespace: &str) -> Option<Result<Backend>> {
        let opened = Local::reading(namespace);
        Some(opened.map(|local| Backend { coordinator: Some(local.coordinator()), store: Some(local.store()) }))
    }

    async fn beside(&self, namespace: &str) -> Result<Vec<Arc<dyn Store>>> {
        let local = |part| Local::named(&format!("{namespace}_{part}")).store();
        Ok(["one", "two"].map(|part| store::wrap(local(part), Arc::clone(&self.common))).to_vec())
    }

    async fn cut_connections(&self, _: &str) -> bool {
        self.common.cut.store(true, Ordering::SeqCst);
        if self.common.is(Fault::DeafAfterCut) {
            self.common.watchers.lock().expect("no watcher panics").clear();
        }
        matches!(self.common.fault, Fault::AwayAfterCut | Fault::DeafAfterCut)
    }

    fn survives_reopen(&self) -> bool {
        self.common.is(Fault::ForgottenOnReopening)
    }

    fn hint_delay(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn time_limit(&self) -> Duration {
        self.limit
    }
}

/// Whether a user's operation asked for it, and not the client's own time: signs of life, slots and the floor.
pub(crate) fn is_users(commit: &Commit) -> bool {
    let own = |key: &Key| {
        ["floor", "sessions/", "slots/", "turn"].iter().any(|own| key.as_str()["/.avout/".len()..].starts_with(own))
    };
    commit.puts.iter().any(|put| !put.key.is_reserved() || !own(&put.key))
}
