//! The engine: runs transactions over a coordinator and stores. It handles shared values and bytes, and knows
//! no types; the typed handles above it make [`Cell`]s.
//!
//! `run` runs the body again until it commits, `attempt` and `read` are what the body does, `commit` is the way to the
//! coordinator's single atomic commit, and `slots` decides lost replies.

mod attempt;
mod backoff;
mod cache;
mod cell;
mod commit;
mod floor;
mod follow;
mod janitor;
mod keymap;
mod options;
mod plan;
mod planted;
mod prepare;
mod read;
mod run;
mod slots;
mod stats;
mod wait;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

pub(crate) use attempt::{Action, Write};
pub(crate) use cell::{Cell, Coder, Function, Refusal, Validator};
pub(crate) use follow::{Followed, Follower};
pub(crate) use options::Options;
pub use options::{Config, Isolation};
#[cfg(feature = "planted-bugs")]
pub use planted::Bug;
pub(crate) use read::{Loaded, absent};
pub(crate) use run::{TxInner, refuse_nested, run};
pub use stats::Stats;

use crate::backend::{Coordinator, CoordinatorCapabilities, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{ClientId, Entry, Floor, Key, Point, Realm, Snapshot};
use backoff::Backoff;
use cache::ValueCache;
use floor::{FloorCell, KnownFloor};
use janitor::Janitor;
use slots::Slots;
use stats::Counters;

/// One client: a coordinator, stores, and what it knows of them.
pub(crate) struct Engine {
    pub(crate) client: ClientId,
    pub(crate) coordinator: Arc<dyn Coordinator>,
    pub(crate) capabilities: CoordinatorCapabilities,
    /// The store for refs that name none.
    pub(crate) home: Arc<dyn Store>,
    pub(crate) config: Config,
    pub(crate) stats: Counters,
    stores: RwLock<HashMap<Realm, Arc<dyn Store>>>,
    floor: FloorCell,
    slots: Slots,
    /// Numbers the commits of coordinators that need no slots.
    sequence: AtomicU64,
    cache: ValueCache,
    backoff: Backoff,
    janitor: Janitor,
}

impl Engine {
    pub(crate) fn new(coordinator: Arc<dyn Coordinator>, home: Arc<dyn Store>, config: Config) -> Self {
        let capabilities = coordinator.capabilities().clone();
        Self {
            client: ClientId::random(),
            capabilities,
            stores: RwLock::new(HashMap::from([(home.realm(), Arc::clone(&home))])),
            floor: FloorCell::default(),
            slots: Slots::default(),
            sequence: AtomicU64::new(1),
            cache: ValueCache::new(config.cache_bytes),
            backoff: Backoff::new(config.seed),
            janitor: Janitor::default(),
            stats: Counters::default(),
            coordinator,
            home,
            config,
        }
    }

    /// Makes a store known, so that refs in it can be opened.
    pub(crate) fn attach(&self, store: Arc<dyn Store>) {
        self.stores.write().unwrap_or_else(PoisonError::into_inner).insert(store.realm(), store);
    }

    pub(crate) fn store(&self, realm: Realm) -> Option<Arc<dyn Store>> {
        self.stores.read().unwrap_or_else(PoisonError::into_inner).get(&realm).cloned()
    }

    /// Waits for the deletions that commits have left to the background, and ends them.
    pub(crate) async fn close(&self) {
        self.janitor.close().await;
    }

    /// The current entries of these keys: one request to the coordinator, repeated while it is unavailable and
    /// the deadline allows. Brings the floor along as long as it is not known.
    pub(crate) async fn read(&self, keys: &[Key], deadline: Option<Instant>) -> Result<Snapshot> {
        self.read_at(keys, None, deadline).await
    }

    /// The same as of an earlier point, where the coordinator can.
    pub(crate) async fn read_at(&self, keys: &[Key], at: Option<Point>, deadline: Option<Instant>) -> Result<Snapshot> {
        if keys.len() >= self.capabilities.max_keys {
            let message = format!(
                "{} keys are read at once, and the coordinator takes {}",
                keys.len(),
                self.capabilities.max_keys
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let knows_floor = at.is_some() || self.floor.get().is_some();
        let with_floor: Vec<Key>;
        let asked = if knows_floor {
            keys
        } else {
            with_floor = keys.iter().cloned().chain([Floor::key()]).collect();
            &with_floor
        };
        let mut snapshot = self
            .until(deadline, || async {
                self.stats.read();
                self.coordinator.read(asked, at).await
            })
            .await?;
        if !knows_floor {
            let floor = snapshot.entries.pop().flatten();
            self.floor.learn(&KnownFloor::from_entry(floor.as_ref())?);
        }
        Ok(snapshot)
    }

    /// The entry of one key.
    pub(crate) async fn entry(&self, key: &Key, deadline: Option<Instant>) -> Result<Option<Entry>> {
        let mut snapshot = self.read(std::slice::from_ref(key), deadline).await?;
        Ok(snapshot.entries.pop().flatten())
    }

    /// Repeats an operation that may be repeated, while it is unavailable and the deadline allows.
    pub(crate) async fn until<T, F, Fut>(&self, deadline: Option<Instant>, operation: F) -> Result<T>
    where
        F: Fn() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut tries = 0;
        loop {
            match operation().await {
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tracing::debug!(%error, tries, "unavailable, trying again");
                    let pause = self.backoff.outage(tries);
                    if !self.pause(pause, deadline).await {
                        return Err(error);
                    }
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Sleeps, unless the deadline would pass meanwhile: then answers `false` at once.
    pub(crate) async fn pause(&self, pause: Duration, deadline: Option<Instant>) -> bool {
        if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
            return false;
        }
        tokio::time::sleep(pause).await;
        true
    }

    /// The deadline of an operation on a handle.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.config.deadline.map(|deadline| Instant::now() + deadline)
    }
}
