//! Who goes first in memory. A commit takes about a microsecond there, so nothing but to spin is as short as what there is
//! to wait for; and a thread whose processor has the records in its cache wins nearly every race against another.

use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::runtime::{Handle, RuntimeFlavor};

use super::Engine;

/// How long commits are held back at most for one attempt, in nanoseconds. It takes a few microseconds, unless its body
/// waits for something or its thread has to.
const LONGEST: u64 = 20_000;

/// A transaction that loses again and again has the other threads of its client hold their commits back while it makes
/// one attempt.
///
/// It decides only who waits, and for how long at most; a commit compares as ever.
#[repr(align(128))]
pub(super) struct Precedence {
    zero: Instant,
    /// Until when, in nanoseconds since `zero`. 0: nobody goes first.
    until: AtomicU64,
}

/// That a transaction goes first. Dropping it lets the others go on.
pub(super) struct First {
    engine: Arc<Engine>,
    until: u64,
}

impl Default for Precedence {
    fn default() -> Self {
        Self { zero: Instant::now(), until: AtomicU64::new(0) }
    }
}

impl Precedence {
    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Holds a commit back for who goes first.
    pub(super) fn wait(&self) {
        loop {
            let until = self.until.load(Ordering::Relaxed);
            if until == 0 || self.now() >= until {
                return;
            }
            spin_loop();
        }
    }
}

impl First {
    /// `None`: another goes first.
    pub(super) fn take(engine: &Arc<Engine>) -> Option<Self> {
        let precedence = &engine.precedence;
        let (now, before) = (precedence.now(), precedence.until.load(Ordering::Relaxed));
        if now < before {
            return None;
        }
        let until = now + LONGEST;
        let taken = precedence.until.compare_exchange(before, until, Ordering::Relaxed, Ordering::Relaxed);
        taken.ok().map(|_| Self { engine: Arc::clone(engine), until })
    }
}

impl Drop for First {
    fn drop(&mut self) {
        // Another may have it by now.
        let _ = self.engine.precedence.until.compare_exchange(self.until, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Whether other threads run tasks while this one spins.
pub(super) fn others_run() -> bool {
    Handle::try_current().is_ok_and(|runtime| {
        runtime.runtime_flavor() == RuntimeFlavor::MultiThread && runtime.metrics().num_workers() > 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_where_nobody_goes_first() {
        Precedence::default().wait();
    }

    #[test]
    fn nobody_waits_for_long_for_one_that_does_not_end() {
        let precedence = Precedence::default();
        precedence.until.store(precedence.now() + LONGEST, Ordering::Relaxed);
        precedence.wait();
        assert!(precedence.now() >= precedence.until.load(Ordering::Relaxed));
    }
}
