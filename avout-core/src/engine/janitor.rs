use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::backend::Store;
use crate::backend::tasks::Tasks;
use crate::backend::time::{timeout, timeout_at};
use crate::protocol::{Key, Version};

/// How many values may wait to be deleted; what comes on top is left to the sweeper.
const WAITING: usize = 64 * 1024;
/// How many are deleted at once, so that stores which group their writes keep up with the commits.
const AT_ONCE: usize = 256;
/// How long the first of them waits for others, so that transactions are seldom held up by it, and stores have few requests.
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
    /// There is no time to wait for others.
    hurry: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Janitor {
    /// Deletes these values some time soon.
    pub(crate) fn delete(&self, tasks: &Tasks, garbage: Vec<Garbage>) {
        if garbage.is_empty() {
            return;
        }
        let mut worker = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if worker.as_ref().is_none_or(|worker| worker.task.is_finished()) {
            let (garbage, receiver) = channel(WAITING);
            let hurry = Arc::new(Notify::new());
            let task = tasks.spawn(work(receiver, Arc::clone(&hurry)));
            *worker = Some(Worker { garbage, hurry, task });
        }
        if let Some(worker) = &*worker {
            for item in garbage {
                if let Err(error) = worker.garbage.try_send(item) {
                    tracing::debug!(%error, "values are left to the sweeper");
                    break;
                }
            }
            if worker.garbage.capacity() < WAITING / 2 {
                worker.hurry.notify_one();
            }
        }
    }

    /// Deletes what is waiting, and ends: at this time at the latest.
    pub(crate) async fn close(&self, until: Instant) {
        let worker = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Worker { garbage, hurry, mut task }) = worker {
            drop(garbage);
            hurry.notify_one();
            match timeout_at(until, &mut task).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "the janitor ended early"),
                Err(_) => task.abort(),
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

async fn work(mut garbage: Receiver<Garbage>, hurry: Arc<Notify>) {
    let mut batch = Vec::with_capacity(AT_ONCE);
    while garbage.recv_many(&mut batch, AT_ONCE).await > 0 {
        // Not in the queue: what comes meanwhile wakes nobody. Hurried or not, then it is time.
        let _ = timeout(GATHER, hurry.notified()).await;
        loop {
            while batch.len() < AT_ONCE
                && let Ok(more) = garbage.try_recv()
            {
                batch.push(more);
            }
            if batch.is_empty() {
                break;
            }
            delete(batch.drain(..)).await;
        }
    }
}

/// Values of one store.
struct Group {
    store: Arc<dyn Store>,
    values: Vec<(Key, Version)>,
}

/// Deletes values, those of each store together.
async fn delete(garbage: impl Iterator<Item = Garbage>) {
    let mut groups: Vec<Group> = Vec::new();
    for Garbage { store, key, version } in garbage {
        match groups.iter_mut().find(|group| group.store.realm() == store.realm()) {
            Some(group) => group.values.push((key, version)),
            None => groups.push(Group { store, values: vec![(key, version)] }),
        }
    }
    join_all(groups.iter().map(async |Group { store, values }| {
        if let Err(error) = store.delete_states_at(values).await {
            tracing::debug!(realm = %store.realm(), %error, "values are left to the sweeper");
        }
    }))
    .await;
}
