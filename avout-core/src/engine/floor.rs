use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::error::Result;
use crate::protocol::{Entry, Floor, Revision};

/// The floor as this client last saw it.
#[derive(Clone, Debug)]
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
    /// The first one, which is most often the only one: every attempt of every thread asks for it.
    first: OnceLock<KnownFloor>,
    /// There is a later one.
    raised: AtomicBool,
    later: Mutex<Option<KnownFloor>>,
}

impl FloorCell {
    pub(crate) fn get(&self) -> Option<KnownFloor> {
        if self.raised.load(Ordering::Acquire) {
            return self.later.lock().unwrap_or_else(PoisonError::into_inner).clone();
        }
        self.first.get().cloned()
    }

    /// Takes in a floor, unless a later one is known.
    pub(crate) fn learn(&self, floor: &KnownFloor) {
        let first = self.first.get_or_init(|| floor.clone());
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        let known = later.as_ref().unwrap_or(first);
        if known.epoch < floor.epoch || (known.epoch == floor.epoch && known.revision != floor.revision) {
            *later = Some(floor.clone());
            self.raised.store(true, Ordering::Release);
        }
    }
}
