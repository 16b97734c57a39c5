//! What this client knows of the namespace's history, and how much of it is still true.
//!
//! A server that restarts, or a replica that is promoted, may have lost the last commits. So each server begins an *era* of
//! the namespace, which the first client that connects to it notes down together with the clock at that moment. Points of a
//! later era are greater than all of an earlier one, and a client knows by the clock at which its era ended whether
//! anything that it has seen is gone. See `docs/backends.md`.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use avout_core::Point;

/// The low bits of a point count commits; the high ones are the era's number.
const COUNT_BITS: u32 = 44;

/// A time during which one server kept the namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Era {
    /// 0 is before the first.
    pub(crate) number: u32,
    /// Drawn by chance: two histories that parted may each have an era of the same number.
    pub(crate) id: [u8; 8],
}

/// How much of an earlier era is a part of the current history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Survived {
    UpTo(u64),
    Nothing,
}

impl Survived {
    fn has(self, point: u64) -> bool {
        matches!(self, Self::UpTo(count) if count_of(point) <= count)
    }
}

/// Commits that the server had acknowledged and has no longer. It is the source of the
/// [`StoreLost`](avout_core::ErrorKind::StoreLost) error that tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LostCommits {
    /// The last point that this client has seen and that may be gone.
    pub seen: Point,
    /// What comes after this point in the earlier history is gone. `None`: nothing of the earlier history is known to be left.
    pub kept: Option<Point>,
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

#[derive(Debug)]
pub(crate) struct History {
    state: Mutex<State>,
    /// Points before this are of a history that was lost in part; 0 if none was.
    boundary: AtomicU64,
    /// There is something to tell.
    untold: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    era: Era,
    /// The latest point that this client has seen.
    seen: u64,
    earlier: Option<(Era, Survived)>,
    /// What nobody was told of yet.
    lost: Option<LostCommits>,
}

/// What became of the news that a connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// The connection is in the era that it was, or now is, current.
    Current,
    /// Another connection has learned something else meanwhile: ask again.
    Stale,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), boundary: AtomicU64::new(0), untold: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The era and the latest point that are known.
    pub(crate) fn known(&self) -> (Era, u64) {
        let state = self.lock();
        (state.era, state.seen)
    }

    /// The latest point that is known, if `era` is still the current one.
    pub(crate) fn seen(&self, era: Era) -> Option<u64> {
        let state = self.lock();
        (state.era == era).then_some(state.seen)
    }

    /// Takes in what a server told a new connection that knew `asked`.
    pub(crate) fn enter(&self, asked: Era, era: Era, clock: u64, survived: Option<Survived>) -> Entered {
        let mut state = self.lock();
        if state.era == era {
            state.seen = state.seen.max(clock);
            return Entered::Current;
        }
        if state.era != asked {
            return Entered::Stale;
        }
        if let Some(survived) = survived {
            if !survived.has(state.seen) {
                let seen = state.seen;
                self.lose(&mut state, era, seen, survived);
            }
            state.earlier = Some((state.era, survived));
        }
        state.era = era;
        state.seen = clock;
        Entered::Current
    }

    /// Takes in the point of a reply, of a connection in `era`. `false`: the reply is of a history that is over.
    pub(crate) fn observe(&self, era: Era, point: u64) -> bool {
        let mut state = self.lock();
        if state.era == era {
            state.seen = state.seen.max(point);
            return true;
        }
        let survived = state.earlier.filter(|(earlier, _)| *earlier == era).map_or(Survived::Nothing, |(_, kept)| kept);
        if !survived.has(point) {
            let current = state.era;
            self.lose(&mut state, current, point, survived);
        }
        false
    }

    fn lose(&self, state: &mut State, current: Era, seen: u64, survived: Survived) {
        self.boundary.store(u64::from(current.number) << COUNT_BITS, Ordering::Release);
        let era = seen >> COUNT_BITS << COUNT_BITS;
        let kept = match survived {
            Survived::UpTo(count) => Some(Point::new(era | count)),
            Survived::Nothing => None,
        };
        state.lost = Some(LostCommits { seen: Point::new(seen), kept });
        self.untold.store(true, Ordering::Release);
    }

    /// What was lost, to be told once.
    pub(crate) fn take_lost(&self) -> Option<LostCommits> {
        if !self.untold.swap(false, Ordering::AcqRel) {
            return None;
        }
        self.lock().lost.take()
    }

    /// Points before this one mean nothing to what this client still has in hand: see [`Cell`](crate::cell).
    pub(crate) fn boundary(&self) -> Point {
        Point::new(self.boundary.load(Ordering::Acquire))
    }
}

/// How many commits there were up to a point.
pub(crate) fn count_of(point: u64) -> u64 {
    point & ((1 << COUNT_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn era(number: u32, id: u8) -> Era {
        Era { number, id: [id; 8] }
    }

    fn point(era: u64, count: u64) -> u64 {
        era << COUNT_BITS | count
    }

    fn begun() -> History {
        let history = History::new();
        assert_eq!(history.enter(Era::default(), era(1, 1), point(1, 5), None), Entered::Current);
        assert!(history.observe(era(1, 1), point(1, 9)));
        history
    }

    /// Nothing is lost if all that was seen has survived.
    #[test]
    fn a_restart_without_loss_is_silent() {
        let history = begun();
        let entered = history.enter(era(1, 1), era(2, 2), point(2, 9), Some(Survived::UpTo(9)));
        assert_eq!(entered, Entered::Current);
        assert_eq!((history.take_lost(), history.boundary()), (None, Point::ZERO));
        assert_eq!(history.seen(era(2, 2)), Some(point(2, 9)));
        assert_eq!(history.seen(era(1, 1)), None);
        // A late reply from before, of what has survived.
        assert!(!history.observe(era(1, 1), point(1, 9)));
        assert_eq!(history.take_lost(), None);
    }

    /// What was seen and is gone is told once, and what is older than the new era is no longer trusted.
    #[test]
    fn a_loss_is_told_once() {
        let history = begun();
        history.enter(era(1, 1), era(2, 2), point(2, 8), Some(Survived::UpTo(8)));
        let lost = LostCommits { seen: Point::new(point(1, 9)), kept: Some(Point::new(point(1, 8))) };
        assert_eq!(history.take_lost(), Some(lost));
        assert_eq!(history.take_lost(), None);
        assert_eq!(history.boundary(), Point::new(point(2, 0)));
    }

    /// A reply of the old server that is only now taken in tells of a loss as well.
    #[test]
    fn a_late_reply_tells_of_a_loss() {
        let history = begun();
        history.enter(era(1, 1), era(2, 2), point(2, 9), Some(Survived::UpTo(9)));
        assert!(!history.observe(era(1, 1), point(1, 10)));
        assert_eq!(history.take_lost().map(|lost| lost.seen), Some(Point::new(point(1, 10))));
        assert_eq!(history.known(), (era(2, 2), point(2, 9)));
        assert_eq!(history.boundary(), Point::new(point(2, 0)));
    }

    /// An era of the same number in another history is another era.
    #[test]
    fn histories_that_parted_are_told_apart() {
        let history = begun();
        history.enter(era(1, 1), era(3, 3), point(3, 20), Some(Survived::Nothing));
        assert_eq!(history.take_lost().map(|lost| lost.kept), Some(None));
        // News for another era than the one that is known decide nothing.
        assert_eq!(history.enter(era(1, 1), era(4, 4), point(4, 0), Some(Survived::UpTo(20))), Entered::Stale);
    }
}
