//! What all work of a client shares, and the requests that anything may make.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::background::Background;
use super::cache::ValueCache;
use super::cell::Coder;
use super::closing::Closing;
use super::connections::{ConnectionLog, Role};
use super::contention::{Backoff, Leases, Precedence, Queues};
use super::floor::{FloorCell, KnownFloor};
use super::janitor::Janitor;
use super::losses::{LossLog, lost_commits};
use super::merger::Merger;
use super::nested::refuse_nested;
use super::options::Config;
use super::slots::Slots;
use super::stats::Counters;
use super::time::{self, with_deadline};
use crate::backend::readonly::{ReadOnly, refuse};
use crate::backend::time::{sleep, timeout_at};
use crate::backend::{Coordinator, CoordinatorCapabilities, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{ClientId, Entry, Floor, Key, Point, Realm, Snapshot};

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
    pub(super) heartbeats: Arc<dyn Coder>,
    pub(crate) stats: Counters,
    pub(super) stores: RwLock<HashMap<Realm, Arc<dyn Store>>>,
    pub(super) floor: FloorCell,
    pub(super) slots: Slots,
    /// Numbers the commits of coordinators that need no slots, and holders of reservations.
    pub(super) sequence: AtomicU64,
    pub(super) cache: ValueCache,
    pub(super) backoff: Backoff,
    pub(super) janitor: Janitor,
    pub(super) leases: Leases,
    pub(crate) losses: LossLog,
    pub(crate) connections: ConnectionLog,
    pub(super) queues: Arc<Queues>,
    pub(super) precedence: Arc<Precedence>,
    pub(super) merger: Merger,
    /// Sweeps now and then.
    pub(super) sweeper: Background,
    pub(crate) closing: Arc<Closing>,
    /// Itself, for what goes on without a caller.
    pub(super) own: Weak<Self>,
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
        self.sweeper.start(&floor);
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

    /// The floor as it is now, whatever was known of it.
    pub(super) async fn refresh_floor(&self, deadline: Option<Instant>) -> Result<KnownFloor> {
        let entry = self.entry(&Floor::key(), deadline).await?;
        let floor = KnownFloor::from_entry(entry.as_ref())?;
        self.floor.correct(&floor);
        Ok(floor)
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
                    let sent =
                        self.closing.last_work(self.closing.race(with_deadline(deadline, attempt.as_mut()))).await;
                    sent.map_err(|_| Error::new(late, "the client was closed before an answer came"))?
                }
                _ => self.closing.race(with_deadline(deadline, attempt.as_mut())).await?,
            };
            let Ok(answer) = answered else {
                return Err(Error::new(late, "no answer came by the deadline"));
            };
            match answer {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!(%error, tries, "unavailable, trying again");
                    if !self.pause_in_outage(tries, deadline).await {
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
        self.pause_in_outage(tries, deadline).await
    }

    /// Pauses after the store was unavailable for the `tries`-th time, as [`pause`](Self::pause) does.
    pub(crate) async fn pause_in_outage(&self, tries: u32, deadline: Option<Instant>) -> bool {
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

    /// Begins a user's operation: refuses it inside the body of a transaction, and tells of commits that were lost, if nobody
    /// was told yet.
    ///
    /// # Errors
    /// [`Nested`](ErrorKind::Nested), and [`StoreLost`](ErrorKind::StoreLost) with [`LostCommits`] as its source: nothing was
    /// done.
    pub(crate) fn begin(&self, operation: &'static str) -> Result<()> {
        refuse_nested(operation)?;
        self.tell_losses().map_err(|error| error.during(operation))
    }

    /// Tells a user's operation of commits that were lost, if none was told yet. What goes on in the background tells nobody.
    pub(crate) fn tell_losses(&self) -> Result<()> {
        match self.losses.take() {
            Some(lost) => Err(lost_commits(lost)),
            None => Ok(()),
        }
    }
}
