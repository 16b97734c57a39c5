use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::{Change, Changes, Value};
use crate::backend::tasks::{Tasks, runtime};
use crate::backend::time::sleep;
use crate::error::ErrorKind;

/// The named watches of one handle and its clones. They end when the last of these is dropped.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<String, Task>>);

/// How long a watch pauses after an error.
const AFTER_ERROR: Duration = Duration::from_millis(10);

struct Task {
    handle: JoinHandle<()>,
    /// An aborted task runs on until its next await, which may be many changes away.
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
    pub(super) fn add<T: Value>(
        &self,
        tasks: &Tasks,
        name: String,
        changes: Changes<T>,
        f: impl Fn(&Change<T>) + Send + Sync + 'static,
    ) {
        let removed = Arc::new(AtomicBool::new(false));
        let call = Call { name: name.clone(), f, removed: Arc::clone(&removed), runtime: Handle::try_current().ok() };
        let handle = tasks.spawn(watch(changes, Arc::new(call)));
        let task = Task { handle, removed };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, task);
    }

    /// Ends the watch of this name, if there is one.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

/// The function of a watch.
struct Call<F> {
    name: String,
    f: F,
    removed: Arc<AtomicBool>,
    /// The runtime on which the watch was added: tasks that the function spawns run there.
    runtime: Option<Handle>,
}

impl<F> Call<F> {
    fn call<T>(&self, change: &Change<T>)
    where
        F: Fn(&Change<T>),
    {
        let _context = self.runtime.as_ref().map(Handle::enter);
        // The watch may have been removed while this call waited for a thread.
        if !self.removed.load(Ordering::SeqCst) && catch_unwind(AssertUnwindSafe(|| (self.f)(change))).is_err() {
            tracing::error!(watch = self.name, "a watch panicked; it is told of the next change all the same");
        }
    }
}

async fn watch<T: Value, F>(mut changes: Changes<T>, call: Arc<Call<F>>)
where
    F: Fn(&Change<T>) + Send + Sync + 'static,
{
    while let Some(change) = changes.next().await {
        if call.removed.load(Ordering::SeqCst) {
            return;
        }
        match change {
            Ok(change) => {
                // On a thread that may block, since the function may take long. If it panics, the panic is logged
                // there.
                let call = Arc::clone(&call);
                let _ = runtime().spawn_blocking(move || call.call(&change)).await;
            }
            Err(error) if error.kind() == ErrorKind::Closed => return,
            Err(error) => {
                tracing::error!(watch = call.name, %error, "a change could not be told");
                // A watcher may fail at once, again and again.
                sleep(AFTER_ERROR).await;
            }
        }
    }
}
