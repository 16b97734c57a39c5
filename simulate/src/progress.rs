use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// A value that others wait for. Waiters are woken in the order in which they came, which a `watch` channel of tokio's does
/// not promise.
pub(crate) struct Progress<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T> Progress<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn change(&self, f: impl FnOnce(&mut T)) {
        f(&mut self.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_waiters();
    }

    /// Waits until this holds.
    pub(crate) async fn until(&self, holds: impl Fn(&T) -> bool) {
        loop {
            let changed = self.changed.notified();
            if holds(&self.value.lock().unwrap_or_else(PoisonError::into_inner)) {
                return;
            }
            changed.await;
        }
    }
}
