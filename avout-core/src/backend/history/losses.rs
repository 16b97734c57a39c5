use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

use crate::protocol::Point;

/// Commits that a store had acknowledged and lost. It is the source of the [`StoreLost`](crate::ErrorKind::StoreLost)
/// error that tells of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LostCommits {
    /// The last point that this client has seen and that may be lost.
    pub seen: Point,
    /// The earlier history is lost after this point. `None`: as far as is known, all of it is.
    pub kept: Option<Point>,
}

/// At most this many losses are kept. A listener that is further behind is told of these only.
const KEPT: usize = 64;

impl LostCommits {
    /// The loss of the commits that were seen up to `seen`, of which those up to `kept` are left.
    pub const fn new(seen: Point, kept: Option<Point>) -> Self {
        Self { seen, kept }
    }
}

impl fmt::Display for LostCommits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kept {
            Some(kept) => write!(f, "what was committed after {kept}, up to {} at least, is gone", self.seen),
            None => write!(f, "what was committed up to {} may be gone", self.seen),
        }
    }
}

impl StdError for LostCommits {}

/// Where a backend reports the loss of commits that its client had seen.
///
/// Losses are numbered, from 1 on. Each listener keeps the number of the last loss that it was told of, so that it is
/// told of each loss once, independently of others. A backend only reports: its requests continue with the present
/// state of the store.
#[derive(Debug, Default)]
pub struct Losses {
    /// The number of the last loss.
    count: AtomicU64,
    lost: Mutex<VecDeque<LostCommits>>,
    turns: AtomicU64,
    reported: Notify,
}

impl Losses {
    /// No losses so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reports a loss.
    ///
    /// # Contract
    /// Report it before any answer that rests on the remaining history: the engine asks after each answer whether a
    /// loss was reported, and stops all work that began before it.
    pub fn report(&self, lost: LostCommits) {
        tracing::warn!(%lost, "the store has lost commits that it had acknowledged");
        let mut held = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        if held.len() == KEPT {
            held.pop_front();
        }
        held.push_back(lost);
        self.count.fetch_add(1, Ordering::SeqCst);
        drop(held);
        self.turn();
        self.reported.notify_waiters();
    }

    /// Reports that the history may have changed without a known loss: another server has taken over. Writes without a
    /// point, such as signs of life, may be lost all the same, and are checked again.
    pub fn turn(&self) {
        self.turns.fetch_add(1, Ordering::SeqCst);
    }

    /// How often the history may have changed: with each loss, and with each [`turn`](Self::turn).
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::SeqCst)
    }

    /// How many losses were reported. This is cheap: one atomic.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// The next loss after number `told`, with its own number; `None` if there is none yet.
    pub fn after(&self, told: u64) -> Option<(u64, LostCommits)> {
        if self.count() <= told {
            return None;
        }
        let held = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = self.count() - held.len() as u64;
        let next = told.max(forgotten) + 1;
        let at = usize::try_from(next - forgotten - 1).ok()?;
        held.get(at).map(|lost| (next, *lost))
    }

    /// Waits until there is a loss after number `told`.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub async fn reported(&self, told: u64) {
        loop {
            let mut woken = pin!(self.reported.notified());
            // From here on it is notified of losses that the look below misses.
            woken.as_mut().enable();
            if self.count() > told {
                return;
            }
            woken.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(seen: u64) -> LostCommits {
        LostCommits::new(Point::new(seen), None)
    }

    /// Each listener is told of each loss once, by its own position.
    #[test]
    fn each_listener_has_its_own_position() {
        let losses = Losses::new();
        assert_eq!((losses.count(), losses.after(0)), (0, None));
        losses.report(lost(5));
        losses.report(lost(7));
        assert_eq!(losses.after(0), Some((1, lost(5))));
        assert_eq!(losses.after(1), Some((2, lost(7))));
        assert_eq!(losses.after(2), None);
        // Another listener still gets all of them.
        assert_eq!(losses.after(0), Some((1, lost(5))));
    }

    /// A listener that is far behind is told of the last losses.
    #[test]
    fn what_is_kept_is_bounded() {
        let losses = Losses::new();
        let all = KEPT as u64 + 10;
        (1..=all).for_each(|seen| losses.report(lost(seen)));
        assert_eq!(losses.after(0), Some((11, lost(11))));
        assert_eq!(losses.after(all - 1), Some((all, lost(all))));
        assert_eq!(losses.after(all), None);
    }

    /// A waiting listener is told of a loss, also of one that was reported before.
    #[tokio::test]
    async fn a_loss_wakes_those_who_wait() {
        let losses = Losses::new();
        let wait = losses.reported(0);
        tokio::join!(wait, async { losses.report(lost(1)) });
        losses.reported(0).await;
    }
}
