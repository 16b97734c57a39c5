//! The steps of the sweeper.

use super::setup::{REFS, Setup};
use super::state::{Content, Name, Removal, SlotEntry, State, Sweeper, Target};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sweep {
    /// Looks for tombstones, and for slots of clients that seem to be dead.
    Look,
    /// Raises the floor.
    Raise,
    /// Fences a client that seems to be dead, in place of raising the floor.
    Fence(usize),
    /// Reads what a record points at.
    ReadRecord(usize),
    /// Deletes a value that no record pointed at when it was read.
    Delete(usize, Name),
    /// A request to remove a tombstone or a slot arrives.
    Remove(Removal),
    /// Ends this sweep, for another one.
    End,
}

impl State {
    pub(crate) fn sweeps(&self, setup: &Setup, sweeps: &mut Vec<Sweep>) {
        let sweeper = &self.sweeper;
        sweeps
            .extend(self.removals.iter().filter(|removal| self.removable(setup, removal)).copied().map(Sweep::Remove));
        let looks = setup.sweeps_tombstones || setup.sweeps_slots;
        let begun = sweeper.raised.is_some() || sweeper.suspect.is_some();
        if !begun && sweeper.left > 0 {
            if looks && setup.rules.look_first && !sweeper.looked {
                sweeps.push(Sweep::Look);
            } else if setup.rules.raise {
                let refused = sweeper.looked && setup.rules.raise_checks_turn && sweeper.turn != self.turn;
                sweeps.push(if refused { Sweep::Look } else { Sweep::Raise });
            } else {
                sweeps.extend((0..2).map(Sweep::Fence));
            }
        }
        if !begun {
            return;
        }
        if looks && !sweeper.looked {
            sweeps.push(Sweep::Look);
        }
        if sweeper.left > 0 {
            sweeps.push(Sweep::End);
        }
        if setup.stored {
            sweeps.extend((0..REFS).filter(|k| sweeper.pointers[*k].is_none()).map(Sweep::ReadRecord));
            let stale = self.store.iter().filter(|(k, name)| sweeper.may_delete(*k, *name));
            sweeps.extend(stale.map(|(k, name)| Sweep::Delete(*k, *name)));
        }
    }

    pub(crate) fn sweep(&mut self, setup: &Setup, sweep: Sweep) {
        match sweep {
            Sweep::Look => {
                let tombstones = (0..REFS).filter(|_| setup.sweeps_tombstones).filter_map(|k| {
                    let entry = self.refs[k].filter(|entry| entry.content == Content::Deleted)?;
                    Some((Target::Tombstone(k), entry.revision))
                });
                let slots = self.slots.iter().filter(|_| setup.sweeps_slots);
                let slots = slots.map(|(&(client, slot), entry)| (Target::Slot(client, slot), entry.revision));
                self.sweeper.found = tombstones.chain(slots).collect();
                self.sweeper.looked = true;
                self.sweeper.turn = self.turn;
                if self.sweeper.raised.is_some() {
                    self.send_removals();
                }
            }
            Sweep::Raise => {
                self.floor += 1;
                self.sweeper.raised = Some(self.floor);
                self.sweeper.left -= 1;
                self.send_removals();
            }
            Sweep::Fence(c) => {
                self.point += 1;
                let key = (self.clients[c].id, self.clients[c].slot);
                let sequence = self.slots.get(&key).map_or(0, |slot| slot.sequence) + 1;
                let slot = SlotEntry { revision: self.point, point: self.point, sequence, committed: false };
                self.slots.insert(key, slot);
                self.sweeper.suspect = Some(self.clients[c].id);
                self.sweeper.left -= 1;
            }
            Sweep::ReadRecord(k) => {
                self.sweeper.pointers[k] = Some(self.refs[k].and_then(|entry| entry.content.name()));
            }
            Sweep::Delete(k, name) => {
                self.store.remove(&(k, name));
                self.swept = true;
            }
            Sweep::Remove(removal) => self.remove(setup, removal),
            Sweep::End => self.sweeper = Sweeper { left: self.sweeper.left, ..Sweeper::default() },
        }
    }

    fn send_removals(&mut self) {
        let found = std::mem::take(&mut self.sweeper.found);
        let (epoch, turn) = (self.floor, self.turn);
        self.removals.extend(found.into_iter().map(|(target, revision)| Removal { target, revision, turn, epoch }));
    }
}

impl Sweeper {
    fn may_delete(&self, k: usize, name: Name) -> bool {
        let unreferenced = self.pointers[k].is_some_and(|pointer| pointer != Some(name));
        let older = self.raised.is_some_and(|epoch| name.version().epoch < epoch.into());
        unreferenced && (older || self.suspect == Some(name.client))
    }
}
