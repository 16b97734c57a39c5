use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::attempt::{Attempt, Primed};
use super::client::Engine;
use super::losses::Position;
use crate::backend::time::{sleep, sleep_until, timeout_at};
use crate::backend::{StateContainer, Wake, Watcher};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Key, Revision};

/// What a retry waits for.
pub(super) struct Awaited {
    keys: Vec<Key>,
    revisions: Vec<Option<Revision>>,
    /// Something has changed already.
    changed: bool,
}

impl Awaited {
    pub(super) fn of(attempt: &Attempt) -> Self {
        let (keys, revisions) = attempt.seen().map(|(key, seen)| (key.clone(), seen.revision().cloned())).unzip();
        Self { keys, revisions, changed: attempt.pinned }
    }
}

impl Engine {
    /// Waits until something that the attempt read is no longer as it was read.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub(super) async fn wait_for_change(
        &self,
        awaited: Awaited,
        deadline: Option<Instant>,
    ) -> Result<Option<Box<Primed>>> {
        let Awaited { keys, revisions, changed } = awaited;
        if keys.is_empty() {
            let message = "retry in a body that has read nothing: there is nothing to wait for";
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        if changed {
            return Ok(None);
        }
        let (floor, history) = (self.floor.get(), self.losses.count());
        let mut watcher = self.watch(&keys, deadline).await?;
        loop {
            let snapshot = self.read(&keys, deadline).await?;
            if history != self.losses.count() {
                return Ok(None);
            }
            let now = snapshot.entries.iter().map(|entry| entry.as_ref().map(|entry| &entry.revision));
            if now.ne(revisions.iter().map(Option::as_ref)) {
                return Ok(Some(Primed::new(floor, snapshot.point, keys.into_iter().zip(snapshot.entries))));
            }
            match deadline {
                None => watcher.changed().await?,
                Some(deadline) => timeout_at(deadline, watcher.changed()).await.map_err(|_| {
                    let message = "the deadline passed while waiting for a change of what was read";
                    Error::new(ErrorKind::Timeout, message).at(&keys[0])
                })??,
            };
        }
    }

    /// Begins to watch keys, as soon as the coordinator can be reached.
    pub(crate) async fn watch(&self, keys: &[Key], deadline: Option<Instant>) -> Result<Box<dyn Watcher>> {
        self.watch_what(Watched::Records(keys.into()), &keys[0], deadline).await
    }

    /// Begins to watch an atom, as soon as its store can be reached.
    pub(crate) async fn watch_atom(
        &self,
        key: &Key,
        container: &Arc<dyn StateContainer>,
        deadline: Option<Instant>,
    ) -> Result<Box<dyn Watcher>> {
        self.watch_what(Watched::Atom(Arc::clone(container)), key, deadline).await
    }

    async fn watch_what(&self, of: Watched, key: &Key, deadline: Option<Instant>) -> Result<Box<dyn Watcher>> {
        let losses = self.losses.now();
        let watcher = self.until(deadline, || of.begin(self)).await?;
        let look_every = self.look_every(key);
        let engine = self.own.upgrade().expect("whoever calls has the engine");
        let hints = Hints { of, watcher: Some(watcher), failures: 0 };
        Ok(Box::new(Watching { hints, engine, losses, look_every, next_look: Instant::now() + look_every }))
    }

    /// How long whoever waits for a change of this key waits for a hint, before it looks by itself: a hint that was lost holds up
    /// nobody for longer. Not by chance, so that runs of one seed repeat; and no two clients look at the same times.
    pub(crate) fn look_every(&self, key: &Key) -> Duration {
        let place = BuildHasherDefault::<DefaultHasher>::new().hash_one((self.client.number(), key));
        self.config.look_every.mul_f64(0.8 + 0.4 * (place % 1024) as f64 / 1024.0)
    }
}

/// What is watched.
enum Watched {
    Records(Box<[Key]>),
    Atom(Arc<dyn StateContainer>),
}

impl Watched {
    async fn begin(&self, engine: &Engine) -> Result<Box<dyn Watcher>> {
        match self {
            Self::Records(keys) => engine.coordinator.watch(keys).await,
            Self::Atom(container) => container.watch().await,
        }
    }
}

/// The hints of a backend's watcher. One that fails is made again.
struct Hints {
    of: Watched,
    /// `None` after an error.
    watcher: Option<Box<dyn Watcher>>,
    /// How many times in a row it was unavailable.
    failures: u32,
}

impl Hints {
    async fn next(&mut self, engine: &Engine) -> Result<Wake> {
        loop {
            let Some(watcher) = &mut self.watcher else {
                self.watcher = Some(engine.until(None, || self.of.begin(engine)).await?);
                return Ok(Wake::Lost);
            };
            let error = match watcher.changed().await {
                Ok(wake) => {
                    self.failures = 0;
                    return Ok(wake);
                }
                Err(error) => error,
            };
            self.watcher = None;
            if error.kind() != ErrorKind::Unavailable {
                return Err(error);
            }
            tracing::debug!(%error, "a watch was lost, watching again");
            let pause = engine.backoff.outage(self.failures);
            self.failures += 1;
            sleep(pause).await;
        }
    }
}

/// A watcher that ends with its client, waits through outages, and never waits for long: for want of hints it says that they may be
/// lost.
struct Watching {
    hints: Hints,
    engine: Arc<Engine>,
    losses: Position,
    look_every: Duration,
    next_look: Instant,
}

#[async_trait]
impl Watcher for Watching {
    async fn changed(&mut self) -> Result<Wake> {
        let Self { hints, engine, losses, look_every, next_look } = self;
        let changed = async {
            tokio::select! {
                biased;
                hint = hints.next(engine) => hint,
                () = engine.losses.reported(losses) => {
                    *losses = engine.losses.now();
                    Ok(Wake::Lost)
                }
                () = sleep_until(*next_look) => Ok(Wake::Lost),
            }
        };
        let woken = engine.closing.race(changed).await?;
        // Whoever is woken looks.
        *next_look = Instant::now() + *look_every;
        woken
    }
}
