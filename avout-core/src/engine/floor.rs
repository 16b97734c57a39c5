use std::sync::{Mutex, PoisonError};

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
pub(crate) struct FloorCell(Mutex<Option<KnownFloor>>);

impl FloorCell {
    pub(crate) fn get(&self) -> Option<KnownFloor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes in a floor, unless a later one is known.
    pub(crate) fn learn(&self, floor: &KnownFloor) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().is_none_or(|known| known.epoch <= floor.epoch) {
            *known = Some(floor.clone());
        }
    }
}
