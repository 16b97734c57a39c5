use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::backend::Store;
use crate::protocol::{Key, Version};

/// How many values may wait to be deleted; what comes on top is left to the sweeper.
const WAITING: usize = 64 * 1024;
/// How many are deleted at once, so that stores which group their writes keep up with the commits.
const AT_ONCE: usize = 64;
/// How long the first of them waits for others, so that stores which group their writes are not kept from those of transactions.
const GATHER: Duration = Duration::from_millis(100);

/// A value that nothing points at any more, or never will.
pub(crate) struct Garbage {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) key: Key,
    pub(crate) version: Version,
}

/// Deletes values in the background. What it does not get to, the sweeper does.
#[derive(Default)]
pub(crate) struct Janitor(Mutex<Option<Worker>>);

struct Worker {
    garbage: Sender<Garbage>,
    task: JoinHandle<()>,
}

impl Janitor {
    /// Deletes these values some time soon. Outside a runtime they are left to the sweeper.
    pub(crate) fn delete(&self, garbage: Vec<Garbage>) {
        if garbage.is_empty() {
            return;
        }
        let mut worker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.as_ref().is_none_or(|worker| worker.task.is_finished()) {
            let Ok(runtime) = tokio::runtime::Handle::try_current() else {
                return;
            };
            let (sender, receiver) = channel(WAITING);
            *worker = Some(Worker { garbage: sender, task: runtime.spawn(work(receiver)) });
        }
        if let Some(worker) = &*worker {
            for item in garbage {
                if let Err(error) = worker.garbage.try_send(item) {
                    tracing::debug!(%error, "values are left to the sweeper");
                    return;
                }
            }
        }
    }

    /// Deletes what is waiting, and ends.
    pub(crate) async fn close(&self) {
        let worker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Worker { garbage, task }) = worker {
            drop(garbage);
            if let Err(error) = task.await {
                tracing::debug!(%error, "the janitor ended early");
            }
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Some(worker) = self.0.get_mut().unwrap_or_else(PoisonError::into_inner) {
            worker.task.abort();
        }
    }
}

async fn work(mut garbage: Receiver<Garbage>) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while garbage.recv_many(&mut batch, AT_ONCE).await > 0 {
        let others = async {
            while let room @ 1.. = AT_ONCE - batch.len() {
                if garbage.recv_many(&mut batch, room).await == 0 {
                    break;
                }
            }
        };
        let _ = timeout(GATHER, others).await;
        join_all(batch.drain(..).map(async |Garbage { store, key, version }| {
            if let Err(error) = store.versioned_state(&key).delete_state_at(&version).await {
                tracing::debug!(%key, %version, %error, "a value is left to the sweeper");
            }
        }))
        .await;
    }
}
