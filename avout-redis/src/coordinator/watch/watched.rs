use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use avout_core::Result;
use avout_core::backend::Wake;
use avout_core::backend::time::from_others;
use tokio::sync::Notify;

use crate::wire::lost_namespace;

/// The bells by channel.
#[derive(Default)]
pub(super) struct Watched(Mutex<HashMap<String, Vec<Arc<Signal>>>>);

/// One watcher's bell. It rings once for any number of changes while nobody listens.
#[derive(Default)]
pub(super) struct Signal {
    pub(super) bell: Notify,
    pub(super) lost: AtomicBool,
    pub(super) gone: AtomicBool,
}

impl Watched {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<Arc<Signal>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a watcher of these channels.
    pub(super) fn register(&self, channels: &[String]) -> Arc<Signal> {
        let signal = Arc::<Signal>::default();
        let mut watched = self.lock();
        for channel in channels {
            watched.entry(channel.clone()).or_default().push(Arc::clone(&signal));
        }
        signal
    }

    /// Takes it out again; gives the channels that nobody watches any more.
    pub(super) fn remove(&self, channels: Vec<String>, signal: &Arc<Signal>) -> Vec<String> {
        let mut silent = Vec::new();
        let mut watched = self.lock();
        for channel in channels {
            if let Some(signals) = watched.get_mut(&channel) {
                signals.retain(|other| !Arc::ptr_eq(other, signal));
                if signals.is_empty() {
                    watched.remove(&channel);
                    silent.push(channel);
                }
            }
        }
        silent
    }

    pub(super) fn ring(&self, channel: &str) {
        if let Some(signals) = self.lock().get(channel) {
            signals.iter().for_each(|signal| signal.bell.notify_one());
        }
    }

    pub(super) fn ring_all(&self, mark: impl Fn(&Signal)) {
        for signal in self.lock().values().flatten() {
            mark(signal);
            signal.bell.notify_one();
        }
    }

    pub(super) fn channels(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }
}

impl Signal {
    /// Waits for the next change.
    pub(super) async fn rung(&self) -> Result<Wake> {
        if !self.gone.load(Ordering::Acquire) {
            from_others(self.bell.notified()).await;
        }
        if self.gone.load(Ordering::Acquire) {
            return Err(lost_namespace());
        }
        Ok(if self.lost.swap(false, Ordering::AcqRel) { Wake::Lost } else { Wake::Changed })
    }
}
