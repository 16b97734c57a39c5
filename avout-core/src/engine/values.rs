//! Values that go to stores before their commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::cell::Cell;
use super::client::Engine;
use super::janitor::Garbage;
use crate::error::{ErrorKind, Result};
use crate::protocol::{State, Version};

/// A value that goes to a store.
pub(super) struct Value {
    pub(super) cell: Arc<Cell>,
    pub(super) version: Version,
    pub(super) state: State,
    /// Another client has written this version: the value there is not ours to delete.
    pub(super) taken: AtomicBool,
}

/// Values in stores that nothing points at yet. They are deleted when this is dropped, unless their
/// commit is under way or done.
pub(super) struct Prewritten<'a> {
    engine: &'a Engine,
    values: Vec<Value>,
    kept: bool,
}

impl<'a> Prewritten<'a> {
    /// The commit is about to be sent: from now on a record may point at the values.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// The commit surely did not take effect.
    pub(super) fn discard(mut self) {
        self.kept = false;
    }

    /// The commit took effect: what was written is now good to read from memory.
    pub(super) fn committed(self) {
        for value in &self.values {
            self.engine.cache.put(&value.cell.key, &value.version, value.state.clone());
        }
    }
}

impl Drop for Prewritten<'_> {
    fn drop(&mut self) {
        if !self.kept && !self.values.is_empty() {
            let own = self.values.drain(..).filter(|value| !value.taken.load(Ordering::Relaxed));
            let garbage = own.map(|value| Garbage {
                store: Arc::clone(&value.cell.store),
                key: value.cell.key.clone(),
                version: value.version,
            });
            self.engine.janitor.delete(&self.engine.config.tasks, garbage.collect());
        }
    }
}

impl Engine {
    /// Writes values to their stores, all at once. If one fails, those that were written are deleted.
    /// [`AlreadyExists`](ErrorKind::AlreadyExists): another client has our id, as in a copy of a virtual machine.
    pub(super) async fn write_values(&self, values: Vec<Value>, deadline: Option<Instant>) -> Result<Prewritten<'_>> {
        let prewritten = Prewritten { engine: self, values, kept: false };
        if prewritten.values.is_empty() {
            return Ok(prewritten);
        }
        let write = async |value: &Value| {
            let container = value.cell.store.versioned_state(&value.cell.key);
            self.until(deadline, || async {
                self.stats.value_written();
                container.set_state_at(&value.version, value.state.clone()).await
            })
            .await
            .map_err(|error| {
                value.taken.store(error.kind() == ErrorKind::AlreadyExists, Ordering::Relaxed);
                error.at(&value.cell.key)
            })
        };
        Box::pin(try_join_all(prewritten.values.iter().map(write))).await?;
        Ok(prewritten)
    }
}
