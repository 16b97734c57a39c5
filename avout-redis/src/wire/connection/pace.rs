//! How soon a connection that ended is made again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(2);
/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(5);

/// The first connection that ends is made again at once, and those that end soon after each other ever later.
#[derive(Debug, Default)]
pub(crate) struct Pace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    ended: u32,
    not_before: Option<Instant>,
}

impl Pace {
    /// The server ended what had lasted so long, or was left.
    pub(crate) fn ended(&self, lasted: Duration) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.not_before.is_some_and(|then| Instant::now() < then) {
            return;
        }
        state.ended = if lasted >= GOOD { 0 } else { (state.ended + 1).min(16) };
        let pause = match state.ended {
            0 => Duration::ZERO,
            ended => (FIRST * 2_u32.pow(ended - 1)).min(LONGEST),
        };
        state.not_before = Some(Instant::now() + pause.mul_f64(0.5 + rand::random::<f64>() / 2.0));
    }

    /// How long to wait before the next one.
    pub(crate) fn pause(&self) -> Duration {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.not_before.map_or(Duration::ZERO, |then| then.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A good connection is made again at once, and bad ones with pauses that grow up to a bound.
    #[test]
    fn bad_connections_are_made_ever_later() {
        let pace = Pace::default();
        assert_eq!(pace.pause(), Duration::ZERO);
        pace.ended(GOOD);
        assert_eq!(pace.pause(), Duration::ZERO);
        for _ in 0..3 {
            pace.ended(Duration::ZERO);
        }
        assert!(
            pace.pause() > FIRST / 4 && pace.pause() <= FIRST,
            "{:?}: those that end together count once",
            pace.pause()
        );
        for _ in 0..20 {
            pace.0.lock().expect("no panic").not_before = None;
            pace.ended(Duration::ZERO);
        }
        assert!(pace.pause() > LONGEST / 4 && pace.pause() <= LONGEST, "{:?}", pace.pause());
    }
}
