//! The engine: runs transactions over a coordinator and stores. It handles shared values and bytes, and knows
//! no types; the typed handles above it make [`Cell`]s.
//!
//! `run` runs the body again until it commits, `attempt` and `read` are what the body does, `commit` is the way to the
//! coordinator's single atomic commit, and `slots` decides lost replies.

mod attempt;
mod backoff;
mod bases;
mod cache;
mod cell;
mod closing;
mod combine;
mod commit;
mod connections;
#[cfg(feature = "failpoints")]
pub mod failpoints;
#[cfg(not(feature = "failpoints"))]
#[path = "no_failpoints.rs"]
pub(crate) mod failpoints;
mod floor;
mod follow;
mod janitor;
mod keymap;
mod leases;
mod losses;
mod merge;
mod nested;
mod options;
mod ping;
mod plan;
mod precedence;
mod prepare;
mod queue;
mod read;
mod refuse;
mod refuted;
mod reserve;
mod run;
mod send;
mod slots;
mod stats;
mod sweep;
mod time;
mod tx;
mod wait;

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use attempt::Action;
pub(crate) use cell::{Cell, Coder, Function, Refusal, Validator, caught, panicked};
pub(crate) use closing::{Last, closed};
pub(crate) use combine::{Combiner, Fate, Part};
use connections::ConnectionLog;
pub use connections::Role;
pub(crate) use follow::{Followed, Follower};
pub(crate) use losses::{Position, lost_commits, tells_of_lost_commits};
pub(crate) use options::Options;
pub use options::{Config, Isolation};
pub(crate) use read::{Loaded, absent, lost_value};
pub(crate) use run::run;
pub use stats::Stats;
pub use sweep::{Skipped, SweepReport};
pub(crate) use time::by;
pub(crate) use tx::TxInner;

use crate::backend::readonly::{ReadOnly, refuse};
use crate::backend::time::{sleep, timeout_at};
use crate::backend::{Coordinator, CoordinatorCapabilities, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{ClientId, Entry, Floor, Key, Point, Realm, Snapshot};
use backoff::Backoff;
use cache::ValueCache;
use closing::Closing;
use floor::{FloorCell, KnownFloor};
use janitor::Janitor;
use leases::Leases;
use losses::LossLog;
use merge::Merger;
use precedence::Precedence;
use queue::Queues;
use slots::Slots;
use stats::Counters;
use sweep::Background;

/// One client: a coordinator, stores, and what it knows of them.
///
/// It is aligned so that its count of references, which every transaction changes, lies apart from what they read.
#[repr(align(128))]
pub(crate) struct Engine {
    pub(crate) client: ClientId,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) capabilities: CoordinatorCapabilities,
    /// It writes nothing, and refuses what would.
    pub(crate) readonly: bool,
    /// The store for refs that name none.
    pub(crate) home: Arc<dyn Store>,
    pub(crate) config: Config,
    /// Reads the records of sessions, for the sweep.
    heartbeats: Arc<dyn Coder>,
    pub(crate) stats: Counters,
    stores: RwLock<HashMap<Realm, Arc<dyn Store>>>,
    floor: FloorCell,
    slots: Slots,
    /// Numbers the commits of coordinators that need no slots, and holders of reservations.
    sequence: AtomicU64,
    cache: ValueCache,
    backoff: Backoff,
    janitor: Janitor,
    leases: Leases,
    pub(crate) losses: LossLog,
    pub(crate) connections: ConnectionLog,
    queues: Arc<Queues>,
    precedence: Arc<Precedence>,
    merger: Merger,
    sweeper: Background,
    pub(crate) closing: Arc<Closing>,
    /// Itself, for the background sweeper.
    own: Weak<Self>,
}

/// A store as a client may use it that only reads, or of a store that was opened for that.
fn readable(store: Arc<dyn Store>, readonly: bool) -> Arc<dyn Store> {
    if readonly || store.capabilities().readonly { ReadOnly::store(store) } else { store }
}

impl Engine {
    pub(crate) fn new(
        coordinator: Arc<dyn Coordinator>,
        home: Arc<dyn Store>,
        config: Config,
        heartbeats: Arc<dyn Coder>,
    ) -> Arc<Self> {
        let capabilities = coordinator.capabilities().clone();
        let readonly = config.readonly || capabilities.readonly;
        let coordinator: Arc<dyn Coordinator> = if readonly { Arc::new(ReadOnly(coordinator)) } else { coordinator };
        let home = readable(home, readonly);
        // Memory is copied by a fork; connections and threads are not.
        let shared = !capabilities.in_process || !home.capabilities().in_process;
        let losses = LossLog::default();
        losses.add(coordinator.losses());
        losses.add(home.losses());
        let connections = ConnectionLog::default();
        connections.add(Role::Coordinator, coordinator.connection());
        connections.add(Role::Store(home.realm()), home.connection());
        Arc::new_cyclic(|own| Self {
            client: ClientId::of(capabilities.realm, config.client.unwrap_or_else(rand::random)),
            stores: RwLock::new(HashMap::from([(home.realm(), Arc::clone(&home))])),
            floor: FloorCell::default(),
            slots: Slots::default(),
            sequence: AtomicU64::new(1),
            cache: ValueCache::new(config.cache_bytes),
            backoff: Backoff::new(config.seed, capabilities.in_process, (config.first_pause, config.longest_pause)),
            capabilities,
            readonly,
            janitor: Janitor::default(),
            leases: Leases::default(),
            losses,
            connections,
            queues: Arc::default(),
            precedence: Arc::default(),
            merger: Merger::default(),
            stats: Counters::default(),
            coordinator,
            home,
            config,
            heartbeats,
            sweeper: Background::default(),
            closing: Arc::new(Closing::new(shared.then(std::process::id))),
            own: Weak::clone(own),
        })
    }

    /// Makes a store known, so that refs in it can be opened. Gives it as this client may use it.
    pub(crate) fn attach(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        let store = readable(store, self.readonly);
        self.losses.add(store.losses());
        self.connections.add(Role::Store(store.realm()), store.connection());
        self.stores.write().unwrap_or_else(PoisonError::into_inner).insert(store.realm(), Arc::clone(&store));
        store
    }

    /// A store as this client may use it, for an atom, which needs no more.
    pub(crate) fn usable(&self, store: Arc<dyn Store>) -> Arc<dyn Store> {
        readable(store, self.readonly)
    }

    /// Refuses what would write, in a client that only reads.
    pub(crate) fn check_writes(&self) -> Result<()> {
        if self.readonly { refuse() } else { Ok(()) }
    }

    pub(crate) fn store(&self, realm: Realm) -> Option<Arc<dyn Store>> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).get(&realm).cloned()
    }

    /// Ends the background sweeper, waits for the deletions that commits have left to the background, ends them, and gives
    /// slots back. What takes longer than this is left to the sweeper.
    pub(crate) async fn close(&self, within: Duration) {
        let until = Instant::now() + within;
        self.sweeper.close().await;
        self.janitor.close(until).await;
        if timeout_at(until, self.give_back_slots()).await.is_err() {
            tracing::debug!("slots are left");
        }
    }

    /// The current entries of these keys: one request to the coordinator, repeated while it is unavailable and
    /// the deadline allows.
    pub(crate) async fn read(&self, keys: &[Key], deadline: Option<Instant>) -> Result<Snapshot> {
        self.read_with_floor(keys, None, deadline).await.map(|(snapshot, _)| snapshot)
    }

    /// The same as of a point, where the coordinator can, and with the floor: the one that was known before, or else it is
    /// read along with the keys.
    pub(crate) async fn read_with_floor(
        &self,
        keys: &[Key],
        at: Option<Point>,
        deadline: Option<Instant>,
    ) -> Result<(Snapshot, KnownFloor)> {
        if let Some(floor) = self.floor.get() {
            return Ok((self.read_at(keys, at, deadline).await?, floor));
        }
        let with_floor: Vec<Key> = keys.iter().cloned().chain([Floor::key()]).collect();
        let mut snapshot = self.read_at(&with_floor, at, deadline).await?;
        let floor = KnownFloor::from_entry(snapshot.entries.pop().flatten().as_ref())?;
        self.floor.learn(&floor);
        if let Some(every) = self.config.sweep_every.filter(|_| !self.readonly) {
            self.sweeper.start(&self.config.tasks, &self.own, every, &floor);
        }
        Ok((snapshot, floor))
    }

    /// The entries as of an earlier point, where the coordinator can.
    pub(crate) async fn read_at(&self, keys: &[Key], at: Option<Point>, deadline: Option<Instant>) -> Result<Snapshot> {
        let limit = self.capabilities.max_keys;
        if keys.len() > limit {
            let message = format!("{} keys are read at once, and the coordinator takes {limit}", keys.len());
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.until(deadline, || {
            self.stats.read();
            self.coordinator.read(keys, at)
        })
        .await
    }

    /// The entry of one key.
    pub(crate) async fn entry(&self, key: &Key, deadline: Option<Instant>) -> Result<Option<Entry>> {
        let mut snapshot = self.read(std::slice::from_ref(key), deadline).await?;
        Ok(snapshot.entries.pop().flatten())
    }

    /// Repeats an operation that may be repeated and dropped, while it is unavailable and the deadline allows. It is
    /// unavailable too when it has not answered by the deadline.
    pub(crate) async fn until<T, F, Fut>(&self, deadline: Option<Instant>, operation: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        self.until_or(deadline, ErrorKind::Unavailable, operation).await
    }

    /// The same for one that may have taken effect, as `late` says, when it has not answered by the deadline.
    pub(crate) async fn until_or<T, F, Fut>(
        &self,
        deadline: Option<Instant>,
        late: ErrorKind,
        operation: F,
    ) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut tries = 0;
        loop {
            let mut attempt = pin!(operation());
            let answered = match late {
                ErrorKind::OutcomeUnknown => {
                    let _busy = self.closing.enter()?;
                    let sent = self.closing.last_work(self.closing.race(time::by(deadline, attempt.as_mut()))).await;
                    sent.map_err(|_| Error::new(late, "the client was closed before an answer came"))?
                }
                _ => self.closing.race(time::by(deadline, attempt.as_mut())).await?,
            };
            let Ok(answer) = answered else {
                return Err(Error::new(late, "no answer came by the deadline"));
            };
            match answer {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!(%error, tries, "unavailable, trying again");
                    let pause = self.backoff.outage(tries);
                    if !self.pause(pause, deadline).await {
                        return self.closing.check().and(Err(error));
                    }
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Whether something whose outcome is unknown is to be done once more: what begins by looking whether it is done. Pauses
    /// before that.
    pub(crate) async fn looks_again(&self, error: &Error, tries: u32, deadline: Option<Instant>) -> bool {
        if error.kind() != ErrorKind::OutcomeUnknown {
            return false;
        }
        tracing::debug!(%error, tries, "the outcome is unknown, looking again");
        self.pause(self.backoff.outage(tries), deadline).await
    }

    /// Sleeps, unless the deadline would pass meanwhile or the client is closed: then answers `false` at once.
    pub(crate) async fn pause(&self, pause: Duration, deadline: Option<Instant>) -> bool {
        if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
            return false;
        }
        self.closing.race(sleep(pause)).await.is_ok()
    }

    /// The deadline of an operation on a handle.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        time::deadline(Instant::now(), self.config.deadline)
    }
}
