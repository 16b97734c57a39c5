use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Change, Changes, Value};

/// How long a watch rests after an error.
const AFTER_ERROR: Duration = Duration::from_millis(10);

/// The named watches of one handle and its clones. They end with the last of these.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<String, Task>>);

struct Task {
    handle: JoinHandle<()>,
    /// A task that is aborted goes on to its next await, which may be many changes away.
    removed: Arc<AtomicBool>,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.removed.store(true, Ordering::SeqCst);
        self.handle.abort();
    }
}

impl Watches {
    /// Calls `f` with each change, in place of the watch that had this name.
    pub(super) fn add<T: Value>(&self, name: String, changes: Changes<T>, f: impl Fn(&Change<T>) + Send + 'static) {
        let removed = Arc::new(AtomicBool::new(false));
        let handle = tokio::spawn(watch(name.clone(), changes, f, Arc::clone(&removed)));
        let task = Task { handle, removed };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, task);
    }

    /// Ends the watch of this name, if there is one.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

async fn watch<T: Value>(name: String, mut changes: Changes<T>, f: impl Fn(&Change<T>), removed: Arc<AtomicBool>) {
    while let Some(change) = changes.next().await {
        if removed.load(Ordering::SeqCst) {
            return;
        }
        match change {
            Ok(change) => {
                if catch_unwind(AssertUnwindSafe(|| f(&change))).is_err() {
                    tracing::error!(watch = name, "a watch panicked; it is told of the next change all the same");
                }
            }
            Err(error) => {
                tracing::error!(watch = name, %error, "a change could not be told");
                // A watcher may fail at once, again and again.
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}
