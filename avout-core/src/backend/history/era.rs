use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Losses, LostCommits};
use crate::protocol::Point;

/// A time during which a namespace's history is known to continue without a loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Era {
    /// 0 is before the first era.
    pub number: u32,
    /// A random number: two histories that parted may each have an era of the same number.
    pub id: [u8; 8],
}

impl Era {
    /// A new era, like no other.
    pub fn begin(number: u32) -> Self {
        Self { number, id: rand::random() }
    }
}

/// How much of an earlier era is a part of the current history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survived {
    /// The commits of the era up to this count.
    UpTo(u64),
    /// As far as is known, nothing.
    Nothing,
}

impl Survived {
    /// Whether the commit with this count is a part of the current history.
    pub fn has(self, count: u64) -> bool {
        matches!(self, Self::UpTo(kept) if count <= kept)
    }
}

/// A client's knowledge when it enters the namespace with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Known {
    /// The era that it takes for the current one.
    pub era: Era,
    /// The latest point that it has seen in that era.
    pub seen: u64,
}

/// The outcome of entering the namespace with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The connection is in the era that was current, or is current now.
    Current,
    /// Another connection has learned something else meanwhile: ask again.
    Stale,
}

/// The history that a reply belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observed {
    /// Of the current one.
    Current,
    /// An era that is over, and the commit in the reply has survived. What it says of other keys may be stale.
    Kept,
    /// An era that is over, and the commit in the reply is not known to have survived. If it was acknowledged so,
    /// report it as [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown), and its slot decides.
    Gone,
}

impl Observed {
    /// Whether it is of the current history.
    pub fn is_current(self) -> bool {
        self == Self::Current
    }
}

/// One client's knowledge of the namespace's history, and how much of it is still true.
///
/// A point is a number of a commit. A backend may put the number of the era into its upper bits, so that points of a later era
/// are greater than all of an earlier one; the bits below then count commits.
#[derive(Debug)]
pub struct History {
    state: Mutex<State>,
    count_bits: u32,
    /// Points before this belong to a history that was lost in part; 0 if none was.
    boundary: AtomicU64,
    losses: Arc<Losses>,
}

#[derive(Debug, Default)]
struct State {
    known: Known,
    /// The history went back in the current era: no reply belongs to it any more until the namespace is entered again.
    over: bool,
    earlier: Option<Earlier>,
}

/// The era before the current one.
#[derive(Clone, Copy, Debug)]
struct Earlier {
    era: Era,
    survived: Survived,
    /// A loss in it was reported. Late replies tell of the same loss.
    reported: bool,
}

impl History {
    /// Nothing is known yet. The lower `count_bits` of a point count commits, and the bits above are the number of the
    /// era; with 64 there is no era in a point, and points may repeat after a loss.
    pub fn new(count_bits: u32, losses: Arc<Losses>) -> Self {
        Self { state: Mutex::default(), count_bits: count_bits.clamp(1, 64), boundary: AtomicU64::new(0), losses }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to report losses.
    pub fn losses(&self) -> &Arc<Losses> {
        &self.losses
    }

    /// The present knowledge.
    pub fn known(&self) -> Known {
        self.lock().known
    }

    /// The latest known point, if `era` is still the current one. Ask before a request is sent: its reply must not be
    /// before this point.
    pub fn seen(&self, era: Era) -> Option<u64> {
        let state = self.lock();
        (state.known.era == era && !state.over).then_some(state.known.seen)
    }

    /// Takes in the store's answer to a new connection that knew `asked`: the current era, its clock, and how much has
    /// survived of the era that was asked about. `None`: that era has not ended, or there was none.
    pub fn enter(&self, asked: Known, era: Era, clock: u64, survived: Option<Survived>) -> Entered {
        let mut state = self.lock();
        if state.known.era == era {
            if state.over {
                (state.over, state.known.seen) = (false, clock);
            } else if asked.era == era && clock < asked.seen {
                self.lose(era, asked.seen, Survived::UpTo(self.count_of(clock)));
                state.known.seen = clock;
            }
            state.known.seen = state.known.seen.max(clock);
            return Entered::Current;
        }
        if state.known.era != asked.era {
            return Entered::Stale;
        }
        if let Some(survived) = survived {
            let Known { era: earlier, seen } = state.known;
            let lost = !survived.has(self.count_of(seen));
            if lost {
                self.lose(era, seen, survived);
            }
            state.earlier = Some(Earlier { era: earlier, survived, reported: lost || state.over });
        }
        if state.known.era != Era::default() {
            self.losses.turn();
        }
        (state.known, state.over) = (Known { era, seen: clock }, false);
        Entered::Current
    }

    /// Takes in the point of a reply on a connection in `era`.
    pub fn observe(&self, era: Era, point: u64) -> Observed {
        let mut state = self.lock();
        if state.known.era == era {
            if state.over {
                return Observed::Gone;
            }
            state.known.seen = state.known.seen.max(point);
            return Observed::Current;
        }
        let current = state.known.era;
        match &mut state.earlier {
            Some(earlier) if earlier.era == era => {
                if earlier.survived.has(self.count_of(point)) {
                    return Observed::Kept;
                }
                if !std::mem::replace(&mut earlier.reported, true) {
                    self.lose(current, point, earlier.survived);
                }
            }
            // An era that is long over: nobody was told this reply, so there is no loss to report.
            _ => {}
        }
        Observed::Gone
    }

    /// Takes in that a reply in `era` had a clock before `since`, which was known ([`seen`](Self::seen)) when the
    /// request was sent: an older state was restored. The era is over then, and the namespace must be entered again.
    pub fn went_back(&self, era: Era, since: u64, clock: u64) {
        let mut state = self.lock();
        // A request that was sent before an earlier loss tells of that loss.
        if state.known.era == era && !state.over && clock < since && since <= state.known.seen {
            self.lose(era, state.known.seen, Survived::UpTo(self.count_of(clock)));
            (state.over, state.known.seen) = (true, clock);
        }
    }

    fn lose(&self, current: Era, seen: u64, survived: Survived) {
        let mask = self.mask();
        if self.count_bits < 64 {
            self.boundary.store(u64::from(current.number) << self.count_bits, Ordering::Release);
        }
        let kept = match survived {
            Survived::UpTo(count) => Some(Point::new(seen & !mask | count & mask)),
            Survived::Nothing => None,
        };
        self.losses.report(LostCommits::new(Point::new(seen), kept));
    }

    /// Where the current history begins for a client that has seen commits which are lost: points before this one mean
    /// nothing for the client's open work. [`Point::ZERO`] if none are lost, or if there is no era in a point.
    pub fn boundary(&self) -> Point {
        Point::new(self.boundary.load(Ordering::Acquire))
    }

    /// How many commits of its era there were up to a point.
    pub fn count_of(&self, point: u64) -> u64 {
        point & self.mask()
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.count_bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT_BITS: u32 = 44;

    fn era(number: u32, id: u8) -> Era {
        Era { number, id: [id; 8] }
    }

    fn point(era: u64, count: u64) -> u64 {
        era << COUNT_BITS | count
    }

    fn known(era: Era, seen: u64) -> Known {
        Known { era, seen }
    }

    fn begun() -> (History, Known) {
        let history = History::new(COUNT_BITS, Arc::default());
        assert_eq!(history.enter(Known::default(), era(1, 1), point(1, 5), None), Entered::Current);
        assert!(history.observe(era(1, 1), point(1, 9)).is_current());
        let known = history.known();
        (history, known)
    }

    /// All reported losses, oldest first.
    fn lost(history: &History) -> Vec<LostCommits> {
        let losses = history.losses();
        (0..losses.count()).filter_map(|told| losses.after(told)).map(|(_, lost)| lost).collect()
    }

    fn loss(seen: u64, kept: Option<u64>) -> LostCommits {
        LostCommits::new(Point::new(seen), kept.map(Point::new))
    }

    /// Nothing is lost if all commits that were seen have survived.
    #[test]
    fn a_restart_without_loss_is_silent() {
        let (history, asked) = begun();
        let entered = history.enter(asked, era(2, 2), point(2, 9), Some(Survived::UpTo(9)));
        assert_eq!(entered, Entered::Current);
        assert_eq!((lost(&history), history.boundary()), (vec![], Point::ZERO));
        assert_eq!(history.seen(era(2, 2)), Some(point(2, 9)));
        assert_eq!(history.seen(era(1, 1)), None);
        // A late reply from before, about commits that have survived.
        assert_eq!(history.observe(era(1, 1), point(1, 9)), Observed::Kept);
        assert_eq!(lost(&history), []);
    }

    /// Lost commits that were seen are reported once, even if late replies tell of more of them; and points before the
    /// new era are no longer trusted.
    #[test]
    fn a_loss_is_reported_once() {
        let (history, asked) = begun();
        history.enter(asked, era(2, 2), point(2, 8), Some(Survived::UpTo(8)));
        assert_eq!(history.observe(era(1, 1), point(1, 12)), Observed::Gone);
        assert_eq!(lost(&history), [loss(point(1, 9), Some(point(1, 8)))]);
        assert_eq!(history.boundary(), Point::new(point(2, 0)));
    }

    /// A late reply of the old server tells of a loss as well.
    #[test]
    fn a_late_reply_tells_of_a_loss() {
        let (history, asked) = begun();
        history.enter(asked, era(2, 2), point(2, 9), Some(Survived::UpTo(9)));
        assert_eq!(history.observe(era(1, 1), point(1, 10)), Observed::Gone);
        assert_eq!(lost(&history), [loss(point(1, 10), Some(point(1, 9)))]);
        assert_eq!(history.known(), known(era(2, 2), point(2, 9)));
        assert_eq!(history.boundary(), Point::new(point(2, 0)));
    }

    /// An era of the same number in another history is another era.
    #[test]
    fn histories_that_parted_are_told_apart() {
        let (history, asked) = begun();
        history.enter(asked, era(3, 3), point(3, 20), Some(Survived::Nothing));
        assert_eq!(lost(&history), [loss(point(1, 9), None)]);
        // News about an era other than the known one decides nothing.
        assert_eq!(history.enter(asked, era(4, 4), point(4, 0), Some(Survived::UpTo(20))), Entered::Stale);
    }

    /// If points have no era in them, a clock that went back is a loss, which is reported once, and its era is over
    /// until the namespace is entered again.
    #[test]
    fn a_clock_that_went_back_is_a_loss() {
        let history = History::new(64, Arc::default());
        history.enter(Known::default(), era(1, 1), 20, None);
        let since = history.seen(era(1, 1)).expect("it is current");
        history.went_back(era(1, 1), since, 15);
        history.went_back(era(1, 1), since, 16);
        assert_eq!(lost(&history), [loss(20, Some(15))]);
        assert_eq!((history.seen(era(1, 1)), history.observe(era(1, 1), 25)), (None, Observed::Gone));
        let asked = history.known();
        // Another client has committed meanwhile.
        assert_eq!(history.enter(asked, era(2, 2), 17, Some(Survived::UpTo(17))), Entered::Current);
        assert_eq!(history.observe(era(1, 1), 25), Observed::Gone);
        assert_eq!((lost(&history).len(), history.seen(era(2, 2))), (1, Some(17)));
        // From a request that was sent before.
        history.went_back(era(2, 2), since, 18);
        assert_eq!((lost(&history).len(), history.boundary()), (1, Point::ZERO));
    }

    /// The same if the loss is found by entering, and no new era was begun.
    #[test]
    fn an_older_clock_when_entering_is_a_loss() {
        let history = History::new(64, Arc::default());
        history.enter(Known::default(), era(1, 1), 20, None);
        history.enter(history.known(), era(1, 1), 12, None);
        assert_eq!((lost(&history), history.seen(era(1, 1))), (vec![loss(20, Some(12))], Some(12)));
        history.enter(history.known(), era(1, 1), 12, None);
        assert_eq!(lost(&history).len(), 1);
    }
}
