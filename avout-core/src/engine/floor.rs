use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::Result;
use crate::protocol::{Entry, Floor, Revision};

/// The floor as this client last saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownFloor {
    pub(crate) epoch: u64,
    /// `None`: there is no floor record yet.
    pub(crate) revision: Option<Revision>,
}

impl KnownFloor {
    pub(crate) fn from_entry(entry: Option<&Entry>) -> Result<Self> {
        let epoch = Floor::from_entry(entry).map_err(|error| error.at(&Floor::key()))?.epoch;
        Ok(Self { epoch, revision: entry.map(|entry| entry.revision.clone()) })
    }
}

/// The latest floor that any read or conflict of this client brought along.
#[derive(Default)]
pub(crate) struct FloorCell {
    /// The first one, which is the only one of a client that does not live long: every attempt of every thread asks for it.
    first: OnceLock<KnownFloor>,
    /// There is a later one.
    raised: AtomicBool,
    /// The later one, where its revision is a number.
    quick: Quick,
    later: Mutex<Option<KnownFloor>>,
}

impl FloorCell {
    pub(crate) fn get(&self) -> Option<KnownFloor> {
        if self.raised.load(Ordering::Acquire) {
            let quick = self.quick.get();
            return quick.or_else(|| self.later.lock().unwrap_or_else(PoisonError::into_inner).clone());
        }
        self.first.get().cloned()
    }

    /// Takes in a floor, unless a later one is known.
    pub(crate) fn learn(&self, floor: &KnownFloor) {
        let first = self.first.get_or_init(|| floor.clone());
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let known = later.as_ref().unwrap_or(first);
        if known.epoch < floor.epoch || (known.epoch == floor.epoch && known.revision != floor.revision) {
            self.set(&mut later, floor);
        }
    }

    /// Takes in a floor that was read because the one that was known is not the current one, or may not be. It may be an
    /// earlier one: a coordinator that loses its last commits in a failover loses a raise. Should it be out of date, the next
    /// commit finds out.
    pub(crate) fn correct(&self, floor: &KnownFloor) {
        let first = self.first.get_or_init(|| floor.clone());
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let known = later.as_ref().unwrap_or(first);
        if known.epoch != floor.epoch || known.revision != floor.revision {
            self.set(&mut later, floor);
        }
    }

    fn set(&self, later: &mut Option<KnownFloor>, floor: &KnownFloor) {
        self.quick.set(floor);
        *later = Some(floor.clone());
        self.raised.store(true, Ordering::Release);
    }
}

/// A floor that threads read without writing anything that they share: a lock would be handed from core to core with each
/// transaction. It is a sequence lock (Boehm, "Can Seqlocks Get Along With Programming Language Memory Models?", 2012).
#[derive(Default)]
struct Quick {
    /// Odd while it is written, and 0 if nothing was.
    round: AtomicU64,
    epoch: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
}

impl Quick {
    /// `None`: it is not here, or is being written.
    fn get(&self) -> Option<KnownFloor> {
        let before = self.round.load(Ordering::Acquire);
        let [epoch, high, low] = [&self.epoch, &self.high, &self.low].map(|part| part.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        if before == 0 || before % 2 == 1 || self.round.load(Ordering::Relaxed) != before {
            return None;
        }
        let revision = Some(Revision::number(u128::from(high) << 64 | u128::from(low)));
        Some(KnownFloor { epoch, revision })
    }

    /// The caller sees to it that there is one at a time.
    fn set(&self, floor: &KnownFloor) {
        let round = self.round.load(Ordering::Relaxed) | 1;
        self.round.store(round, Ordering::Relaxed);
        fence(Ordering::Release);
        // One that is no number leaves it closed until the next one.
        let Some(number) = floor.revision.as_ref().and_then(Revision::as_number) else { return };
        self.epoch.store(floor.epoch, Ordering::Relaxed);
        self.high.store((number >> 64) as u64, Ordering::Relaxed);
        self.low.store(number as u64, Ordering::Relaxed);
        self.round.store(round + 1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floor(epoch: u64, revision: Revision) -> KnownFloor {
        KnownFloor { epoch, revision: Some(revision) }
    }

    /// The latest floor is known, whatever its revision is, and an earlier one is not taken.
    #[test]
    fn the_latest_is_known() {
        let cell = FloorCell::default();
        assert!(cell.get().is_none());
        let number = Revision::number(u128::from(u64::MAX) << 60);
        let all = [number.clone(), Revision::number(7), Revision::text("seven"), Revision::text("eight"), number];
        for (epoch, revision) in (1..).zip(all) {
            cell.learn(&floor(epoch, revision.clone()));
            cell.learn(&KnownFloor { epoch: 0, revision: None });
            let known = cell.get().expect("it was learned");
            assert_eq!((known.epoch, known.revision), (epoch, Some(revision)));
        }
        cell.correct(&KnownFloor { epoch: 0, revision: None });
        let known = cell.get().expect("it was corrected");
        assert_eq!((known.epoch, known.revision), (0, None));
    }

    /// Whoever reads while it is raised sees one floor or another, and no mixture.
    #[test]
    fn no_mixture_is_seen() {
        const LAST: u64 = 100_000;
        let cell = FloorCell::default();
        let of = |epoch: u64| Revision::number(u128::from(epoch) << 64 | u128::from(epoch));
        cell.learn(&floor(1, of(1)));
        std::thread::scope(|scope| {
            scope.spawn(|| (2..=LAST).for_each(|epoch| cell.learn(&floor(epoch, of(epoch)))));
            let mut seen = 0;
            while seen < LAST {
                let known = cell.get().expect("it was learned");
                assert!(known.epoch >= seen && known.revision == Some(of(known.epoch)), "{known:?} after {seen}");
                seen = known.epoch;
            }
        });
    }
}
