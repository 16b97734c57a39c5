//! Who goes first in memory. A commit takes about a microsecond there, so nothing but to spin is as short as what there is
//! to wait for; and a thread whose processor has the records in its cache wins nearly every race against another.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};
use std::time::Instant;

/// How long commits are held back at most for one attempt, in nanoseconds. It takes a few microseconds, unless its body
/// waits for something or its thread has to.
const LONGEST: u64 = 20_000;

/// A transaction that loses again and again has the other threads of its client hold their commits back while it makes
/// one attempt.
///
/// It decides only who waits, and for how long at most; a commit compares as ever.
#[repr(align(128))]
pub(in crate::engine) struct Precedence {
    zero: Instant,
    /// Until when, in nanoseconds since `zero`. 0: nobody goes first.
    until: AtomicU64,
    /// The first thread that something was lost on.
    loser: OnceLock<ThreadId>,
    /// Something was lost on another one too.
    several: AtomicBool,
}

/// That a transaction goes first. Dropping it lets the others go on.
pub(super) struct First {
    precedence: Arc<Precedence>,
    until: u64,
}

impl Default for Precedence {
    fn default() -> Self {
        Self { zero: Instant::now(), until: AtomicU64::new(0), loser: OnceLock::new(), several: AtomicBool::new(false) }
    }
}

impl Precedence {
    fn now(&self) -> u64 {
        u64::try_from(self.zero.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Takes in that a transaction was lost here. Whether there are other threads to keep out of the way of: a thread
    /// by itself would wait for nobody.
    pub(super) fn lost(&self) -> bool {
        if self.several.load(Ordering::Relaxed) {
            return true;
        }
        let here = thread::current().id();
        let several = *self.loser.get_or_init(|| here) != here;
        if several {
            self.several.store(true, Ordering::Relaxed);
        }
        several
    }

    /// Ends it for who goes first until then. Another may do so by now.
    fn clear(&self, until: u64) {
        let _ = self.until.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Holds a commit back for who goes first.
    pub(super) fn wait(&self) {
        loop {
            let until = self.until.load(Ordering::Relaxed);
            if until == 0 {
                return;
            }
            if self.now() >= until {
                return self.clear(until);
            }
            spin_loop();
        }
    }
}

impl First {
    /// `None`: another goes first.
    pub(super) fn take(precedence: &Arc<Precedence>) -> Option<Self> {
        let (now, before) = (precedence.now(), precedence.until.load(Ordering::Relaxed));
        if now < before {
            return None;
        }
        let until = now + LONGEST;
        let taken = precedence.until.compare_exchange(before, until, Ordering::Relaxed, Ordering::Relaxed);
        taken.ok().map(|_| Self { precedence: Arc::clone(precedence), until })
    }
}

impl Drop for First {
    fn drop(&mut self) {
        self.precedence.clear(self.until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_waits_where_nobody_goes_first() {
        Precedence::default().wait();
    }

    #[test]
    fn one_goes_first_until_it_ends() {
        let precedence = Arc::new(Precedence::default());
        // Longer than any test takes.
        let until = u64::MAX;
        precedence.until.store(until, Ordering::Relaxed);
        let first = First { precedence: Arc::clone(&precedence), until };
        assert!(First::take(&precedence).is_none(), "two go first");
        drop(first);
        assert!(First::take(&precedence).is_some(), "one that has ended still goes first");
    }

    #[test]
    fn one_whose_time_is_over_ends_nobody_elses() {
        let precedence = Arc::new(Precedence::default());
        let late = First::take(&precedence);
        precedence.until.store(u64::MAX, Ordering::Relaxed);
        drop(late);
        assert_eq!(precedence.until.load(Ordering::Relaxed), u64::MAX);
    }

    #[test]
    fn nobody_waits_for_long_for_one_that_does_not_end() {
        let precedence = Precedence::default();
        let until = precedence.now() + LONGEST;
        precedence.until.store(until, Ordering::Relaxed);
        precedence.wait();
        assert!(precedence.now() >= until);
        assert_eq!(precedence.until.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_thread_by_itself_has_nobody_to_wait_for() {
        let precedence = Precedence::default();
        assert!(!precedence.lost());
        assert!(!precedence.lost());
        thread::scope(|scope| assert!(scope.spawn(|| precedence.lost()).join().is_ok_and(|several| several)));
        assert!(precedence.lost());
    }
}
