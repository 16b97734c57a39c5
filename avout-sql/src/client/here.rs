//! When a commit may be done on the thread of its caller.
//!
//! The writer's thread has to be woken for a request, and the caller for its answer. Each takes tens of microseconds, a commit to
//! a good disk about a hundred. So a commit that nobody else would share, and that nobody else would have to wait for, is done at
//! once by its caller. That blocks a thread of the async runtime for as long as the disk takes, and is allowed only if
//!
//! - the runtime has other threads for all its other tasks,
//! - no other request to write is under way, after the caller gave way once: commits which one task begins together share a SQLite
//!   transaction, and a task that the caller has just woken, which tokio runs on the same thread and on no other, runs before the disk is
//!   waited for,
//! - commits have been [`QUICK`] of late, and this one is small,
//! - and there is nothing else to do: the lock is free, the connection works, the log need not be written back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};

/// How long commits may take on average.
const QUICK: Duration = Duration::from_millis(2);

/// The most that a commit on its caller's thread writes, about.
const SMALL: usize = 64 << 10;

/// Requests to write that are under way.
#[derive(Default)]
pub(crate) struct Open(AtomicUsize);

/// One of them, until it is dropped.
pub(crate) struct Opened<'a>(&'a Open);

impl Open {
    pub(crate) fn enter(&self) -> Opened<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Opened(self)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether nobody writes, and the thread of the caller can be spared: a read may use the writer's connection.
    pub(crate) fn is_idle(&self) -> bool {
        self.count() == 0 && runtime_has_room()
    }
}

impl Opened<'_> {
    /// Whether there is no other.
    pub(crate) fn is_alone(&self) -> bool {
        self.0.count() == 1
    }

    /// Whether this one may be done here, as far as others are concerned. Lets them have their turn.
    pub(crate) async fn is_spared(&self, bytes: usize) -> bool {
        if bytes > SMALL || !self.is_alone() || !runtime_has_room() {
            return false;
        }
        tokio::task::yield_now().await;
        self.is_alone() && runtime_has_room()
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether a thread of the runtime can be spared: there is one for each task but the caller, which may be a task or not.
fn runtime_has_room() -> bool {
    Handle::try_current().is_ok_and(|runtime| {
        let metrics = runtime.metrics();
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread && metrics.num_alive_tasks() <= metrics.num_workers()
    })
}

/// How long commits take: a moving average.
pub(crate) struct Pace(Duration);

impl Pace {
    /// Slow, until it is known better.
    pub(crate) fn new() -> Self {
        Self(QUICK * 4)
    }

    #[cfg(test)]
    pub(crate) fn quick() -> Self {
        Self(Duration::ZERO)
    }

    pub(crate) fn note(&mut self, took: Duration) {
        self.0 = (self.0 * 7 + took) / 8;
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.0 <= QUICK
    }
}
