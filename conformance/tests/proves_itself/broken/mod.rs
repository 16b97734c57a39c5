//! Backends that are broken in one chosen way each, around a namespace in memory.

mod coordinator;
mod store;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};
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
    // Of watches.
    LostWatch,
    OwnChangesOnly,
    OthersChangesOnly,
    EarlyWatch,
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
    ChangedNever,
    ChangedByOwnOnly,
    ChangedWaitsForTheNext,
    ChangedForOneOnly,
    KindsMixed,
    OverwrittenValue,
    RepeatRefused,
    DeleteIgnored,
    DeleteTakesAll,
    VersionsUnordered,
    VersionPartIgnored,
    LostValue,
    DestroyTakesThoseUnder,
    ListsEmptied,
}

/// A backend with one fault.
#[derive(Clone)]
pub(crate) struct Broken(Arc<Common>);

/// What all clients of the broken backend have in common.
pub(crate) struct Common {
    pub(crate) fault: Fault,
    /// Makes a few requests one, where a fault needs that.
    pub(crate) gate: tokio::sync::Mutex<()>,
    /// Ticks with whatever the fault counts.
    pub(crate) count: AtomicU64,
    pub(crate) watchers: Mutex<HashMap<u64, Watching>>,
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
        Self(Arc::new(Common {
            fault,
            gate: tokio::sync::Mutex::default(),
            count: AtomicU64::new(0),
            watchers: Mutex::default(),
            revisions: Mutex::default(),
            last: Mutex::default(),
            cut: AtomicBool::new(false),
            clients: AtomicU64::new(0),
        }))
    }
}

#[async_trait]
impl Fixture for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    async fn open(&self, namespace: &str) -> Result<Backend> {
        let name = if self.0.is(Fault::OneNamespaceForAll) { &namespace[..22] } else { namespace };
        let local = Local::named(name);
        let client = self.0.clients.fetch_add(1, Ordering::SeqCst);
        Ok(Backend {
            coordinator: Some(coordinator::wrap(local.coordinator(), Arc::clone(&self.0), client)),
            store: Some(store::wrap(local.store(), Arc::clone(&self.0), client)),
        })
    }

    async fn cut_connections(&self, _: &str) -> bool {
        self.0.cut.store(true, Ordering::SeqCst);
        if self.0.is(Fault::DeafAfterCut) {
            self.0.watchers.lock().expect("no watcher panics").clear();
        }
        matches!(self.0.fault, Fault::AwayAfterCut | Fault::DeafAfterCut)
    }

    fn survives_reopen(&self) -> bool {
        self.0.is(Fault::ForgottenOnReopening)
    }

    fn hint_delay(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn time_limit(&self) -> Duration {
        // A hang is a failure, and soon one where a fault is expected to make it.
        Duration::from_secs(if matches!(self.0.fault, Fault::Nothing) { 60 } else { 3 })
    }
}
