use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use tokio::task::JoinHandle;

use super::{Change, Changes, Value};

/// The named watches of one handle and its clones. They end with the last of these.
#[derive(Default)]
pub(super) struct Watches(Mutex<HashMap<String, Task>>);

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watches {
    /// Calls `f` with each change, in place of the watch that had this name.
    pub(super) fn add<T: Value>(&self, name: String, changes: Changes<T>, f: impl Fn(&Change<T>) + Send + 'static) {
        let task = Task(tokio::spawn(watch(name.clone(), changes, f)));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, task);
    }

    /// Ends the watch of this name, if there is one.
    pub(super) fn remove(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some()
    }
}

async fn watch<T: Value>(name: String, mut changes: Changes<T>, f: impl Fn(&Change<T>)) {
    while let Some(change) = changes.next().await {
        match change {
            Ok(change) => {
                if catch_unwind(AssertUnwindSafe(|| f(&change))).is_err() {
                    tracing::error!(watch = name, "a watch panicked; it is told of the next change all the same");
                }
            }
            Err(error) => tracing::error!(watch = name, %error, "a change could not be told"),
        }
    }
}
