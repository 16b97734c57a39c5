use std::sync::Arc;

use async_trait::async_trait;
use tokio::time::Instant;

use super::Engine;
use super::attempt::{Attempt, Primed};
use super::closing::Closing;
use crate::backend::time::timeout_at;
use crate::backend::{Wake, Watcher};
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
        let floor = self.floor.get();
        let mut watcher = self.watch(&keys, deadline).await?;
        loop {
            let snapshot = self.read(&keys, deadline).await?;
            let now = snapshot.entries.iter().map(|entry| entry.as_ref().map(|entry| &entry.revision));
            if now.ne(revisions.iter().map(Option::as_ref)) {
                return Ok(Some(Primed::new(floor, snapshot.point, keys.into_iter().zip(snapshot.entries))));
            }
            let woken = match deadline {
                None => watcher.changed().await,
                Some(deadline) => timeout_at(deadline, watcher.changed()).await.map_err(|_| {
                    let message = "the deadline passed while waiting for a change of what was read";
                    Error::new(ErrorKind::Timeout, message).at(&keys[0])
                })?,
            };
            if let Err(error) = woken {
                let pause = self.backoff.outage(0);
                if error.kind() != ErrorKind::Unavailable || !self.pause(pause, deadline).await {
                    return Err(error);
                }
                watcher = self.watch(&keys, deadline).await?;
            }
        }
    }

    /// Begins to watch keys, as soon as the coordinator can be reached.
    pub(crate) async fn watch(&self, keys: &[Key], deadline: Option<Instant>) -> Result<Box<dyn Watcher>> {
        let watcher = self.until(deadline, || self.coordinator.watch(keys)).await?;
        Ok(Box::new(Watching { watcher, closing: Arc::clone(&self.closing) }))
    }
}

/// A watcher that ends with its client.
struct Watching {
    watcher: Box<dyn Watcher>,
    closing: Arc<Closing>,
}

#[async_trait]
impl Watcher for Watching {
    async fn changed(&mut self) -> Result<Wake> {
        self.closing.race(self.watcher.changed()).await?
    }
}
