//! Waiting for a time, under any executor.
//!
//! A timer of tokio's belongs to the runtime around it when it is made: without one it panics, and it ends with it.
//! These timers belong to [`runtime`], so they work under any executor, and in a future that is moved from one runtime
//! to another.

use std::future::IntoFuture;
use std::time::Duration;

use tokio::time::{Instant, Sleep, Timeout};

pub use super::clock::{HeldClock, is_clock_paused};
use super::tasks::runtime;

/// How long others have, by the system's clock, before a paused clock runs ahead.
const MOMENT: Duration = Duration::from_millis(20);

/// As [`tokio::time::sleep`].
pub fn sleep(duration: Duration) -> Sleep {
    let runtime = runtime();
    let _context = runtime.enter();
    tokio::time::sleep(duration)
}

/// As [`tokio::time::sleep_until`].
pub fn sleep_until(deadline: Instant) -> Sleep {
    // Rather than the deadline itself: the clocks of two runtimes differ if one was paused for a while.
    sleep(deadline.saturating_duration_since(Instant::now()))
}

/// As [`tokio::time::timeout`].
pub fn timeout<F: IntoFuture>(duration: Duration, future: F) -> Timeout<F::IntoFuture> {
    let runtime = runtime();
    let _context = runtime.enter();
    tokio::time::timeout(duration, future)
}

/// As [`tokio::time::timeout_at`].
pub fn timeout_at<F: IntoFuture>(deadline: Instant, future: F) -> Timeout<F::IntoFuture> {
    timeout(deadline.saturating_duration_since(Instant::now()), future)
}

/// Waits for something that another client may cause, at any time or never. It comes by the system's clock, so a paused
/// clock runs ahead only when nothing has come for a moment.
pub async fn from_others<F: Future>(what: F) -> F::Output {
    let _held = HeldClock::for_at_most(MOMENT);
    what.await
}

#[cfg(test)]
mod tests {
    use std::time::Instant as SystemInstant;

    use super::*;
    use futures_util::future::pending;
    use tokio::runtime::Builder;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(5);

    /// Timers work outside any runtime, and continue when the runtime has ended that they were made on.
    #[test]
    fn timers_need_no_runtime() {
        let begun = SystemInstant::now();
        futures_executor::block_on(sleep(SHORT));
        futures_executor::block_on(sleep_until(Instant::now() + SHORT));
        futures_executor::block_on(timeout(SHORT, pending::<()>())).expect_err("it is pending for ever");
        let mut moved = Box::pin(sleep(SHORT));
        let first = Builder::new_current_thread().enable_all().build().expect("a runtime");
        first.block_on(async { assert!(futures_util::poll!(&mut moved).is_pending()) });
        drop(first);
        futures_executor::block_on(moved);
        assert!(begun.elapsed() >= SHORT * 4);
    }

    /// A clock is paused from `pause` to `resume`, whatever it was advanced by meanwhile.
    #[tokio::test]
    async fn a_paused_clock_is_noticed() {
        assert!(!is_clock_paused());
        tokio::time::pause();
        assert!(is_clock_paused());
        sleep(LONG).await;
        assert!(is_clock_paused());
        tokio::time::resume();
        assert!(!is_clock_paused());
        let begun = SystemInstant::now();
        timeout_at(Instant::now() + SHORT, pending::<()>()).await.expect_err("it is pending for ever");
        assert!(begun.elapsed() < LONG / 60, "the clock was an hour ahead");
    }

    /// On simulated time all timers are the runtime's own, and its clock runs ahead unless it is held.
    #[tokio::test(start_paused = true)]
    async fn a_held_clock_waits_for_other_threads() {
        let answer_of_a_thread = || {
            let (answer, answered) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                std::thread::sleep(SHORT * 4);
                answer.send(())
            });
            answered
        };
        timeout(LONG, answer_of_a_thread()).await.expect_err("the clock ran ahead");
        let held = HeldClock::here();
        timeout(LONG, answer_of_a_thread()).await.expect("the clock was held").expect("an answer");
        drop(held);
        let begun = SystemInstant::now();
        sleep(LONG).await;
        assert!(begun.elapsed() < LONG / 60);
    }
}
