//! Tokio's clock where tests have paused it.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant as SystemInstant};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;

/// Whether tokio's clock is paused here (`tokio::time::pause`, in tests): it stands still while the system's runs.
pub fn is_clock_paused() -> bool {
    // No other flavor can be paused.
    if !Handle::try_current().is_ok_and(|current| current.runtime_flavor() == RuntimeFlavor::CurrentThread) {
        return false;
    }
    let before = Instant::now();
    let system = SystemInstant::now();
    while SystemInstant::now() == system {}
    Instant::now() == before
}

/// Keeps a paused clock where it is, until it is dropped.
///
/// A paused clock runs ahead to the next timer whenever its runtime is idle, even while it waits for another thread or
/// a server. Every request would then be late.
#[must_use]
#[derive(Debug)]
pub struct HeldClock {
    _end: Option<Sender<()>>,
}

impl HeldClock {
    /// Holds tokio's clock, if it is paused here.
    pub fn here() -> Self {
        Self::for_at_most(Duration::MAX)
    }

    pub(super) fn for_at_most(limit: Duration) -> Self {
        if !is_clock_paused() {
            return Self { _end: None };
        }
        // The clock waits for work on a thread that may block.
        let (end, ended) = channel::<()>();
        Handle::current().spawn_blocking(move || ended.recv_timeout(limit));
        Self { _end: Some(end) }
    }
}
