use std::collections::{BTreeSet, VecDeque};

use super::found::AT_ONCE;
use super::found::Found;
use super::report::SweepReport;
use super::sessions::Sessions;
use crate::backend::page::Walk;
use crate::engine::client::Engine;
use crate::engine::floor::KnownFloor;
use crate::error::Result;
use crate::protocol::{Entry, Floor, Key, Payload, Point, Realm, Revision, SlotState, Turn};

/// The observations of a sweep before it raises the floor.
pub(super) struct Look {
    /// The floor at its beginning; the raise expects it unchanged.
    pub(super) floor: KnownFloor,
    /// The epoch to which the sweep before raised it.
    pub(super) since: Option<Point>,
    pub(super) turn: SeenTurn,
    /// The records to be removed, as they were found.
    pub(super) found: VecDeque<Found>,
    /// The stores that records point into.
    pub(super) realms: BTreeSet<Realm>,
    pub(super) sessions: Sessions,
}

/// The turn as it was found, or as the sweep's own last removal left it.
pub(super) struct SeenTurn {
    pub(super) turn: Turn,
    pub(super) revision: Option<Revision>,
}

impl Engine {
    /// Reads the floor and the turn, before any key is listed.
    pub(super) async fn begin_look(&self) -> Result<Look> {
        let snapshot = self.read(&[Floor::key(), Turn::key()], self.deadline()).await?;
        let floor = snapshot.entries.first().and_then(Option::as_ref);
        let turn = snapshot.entries.get(1).and_then(Option::as_ref);
        Ok(Look {
            floor: KnownFloor::from_entry(floor)?,
            since: floor.map(|entry| entry.point),
            turn: SeenTurn {
                turn: Turn::from_entry(turn).map_err(|error| error.at(&Turn::key()))?,
                revision: turn.map(|entry| entry.revision.clone()),
            },
            found: VecDeque::new(),
            realms: BTreeSet::new(),
            sessions: Sessions::default(),
        })
    }

    /// The next records to be looked at.
    pub(super) async fn next_records(&self, left: &mut Walk) -> Result<Vec<Key>> {
        let (root, own) = (Key::root(), [Floor::key(), Turn::key()]);
        loop {
            let page = async |after: Option<Key>| {
                self.until(self.deadline(), || self.coordinator.list(&root, after.as_ref())).await
            };
            let mut keys = left.next(AT_ONCE, page).await?;
            let listed = keys.len();
            keys.retain(|key| !own.contains(key));
            if !keys.is_empty() || listed == 0 {
                return Ok(keys);
            }
        }
    }

    /// Takes note of the records that may be removed once the floor is raised.
    pub(super) async fn look_at(&self, look: &mut Look, keys: &[Key], report: &mut SweepReport) -> Result<()> {
        let mut seats = Vec::new();
        for (key, entry) in keys.iter().zip(self.entries_of(keys).await?) {
            match entry {
                Ok(Some(entry)) if look.sessions.take_in(self, look.since, key, &entry, &mut seats) => {}
                Ok(Some(entry)) => look.take_in(key, &entry),
                Ok(None) => {}
                Err(error) => report.skip(key, error),
            }
        }
        look.found.extend(self.look_at_seats(&mut look.sessions, seats).await?);
        Ok(())
    }
}

impl Look {
    fn take_in(&mut self, key: &Key, entry: &Entry) {
        self.realms.extend(entry.record.stored().map(|(realm, _)| realm));
        let slot = key.is_under(&SlotState::prefix());
        let unused = self.since.is_some_and(|since| entry.point < since);
        // A commit uses a slot only under the epoch in which the slot was first written. So a slot that was not used
        // since the last raise of the floor has at most a commit in flight from before that.
        let removable = match slot {
            true => unused,
            false => matches!(entry.record.payload, Payload::Deleted) && (entry.record.reservation.is_none() || unused),
        };
        if removable {
            self.found.push_back(Found { key: key.clone(), revision: entry.revision.clone(), slot, session: false });
        }
    }
}
