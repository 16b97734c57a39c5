//! The coordinator: an atomic compare-and-commit, and requests that arrive when they like.

use super::setup::{FloorCheck, REFS, Setup};
use super::state::{Content, Effect, Name, RefEntry, Removal, Request, SlotEntry, State, Step, Target, View};

/// Which expectations of a request do not hold.
pub(crate) struct Stale {
    pub(crate) refs: [bool; REFS],
    pub(crate) slot: bool,
    pub(crate) floor: bool,
}

impl Stale {
    pub(crate) fn any(&self) -> bool {
        self.refs.contains(&true) || self.slot || self.floor
    }
}

impl Setup {
    /// The request of an attempt, but for its slot.
    pub(crate) fn request(&self, view: &View, name: Name, txn: u8, writes: [Option<Content>; REFS]) -> Request {
        let named = |k: &usize| writes[*k].is_some() || self.rules.read_checks;
        let revision = |k: usize| view.entries[k].map(|entry| entry.revision);
        let checks_floor = match self.rules.floor_check {
            FloorCheck::Always => true,
            FloorCheck::WhereNeeded => self.stored || !self.unique_revisions,
            FloorCheck::Never => false,
        };
        Request {
            name,
            fence: false,
            txn,
            refs: std::array::from_fn(|k| Some(k).filter(named).map(revision)),
            slot: None,
            floor: checks_floor.then_some(view.floor),
            writes,
            reads: view.names(),
        }
    }
}

impl View {
    /// What the body sees.
    pub(crate) fn names(&self) -> [Option<Name>; REFS] {
        self.entries.map(|entry| entry.and_then(|entry| entry.content.name()))
    }
}

impl State {
    fn slot_of(&self, request: &Request) -> Option<u8> {
        self.slots.get(&(request.name.client, request.name.slot)).map(|slot| slot.revision)
    }

    pub(crate) fn stale(&self, request: &Request) -> Stale {
        let stale =
            |k: usize| request.refs[k].is_some_and(|expected| expected != self.refs[k].map(|entry| entry.revision));
        Stale {
            refs: std::array::from_fn(stale),
            slot: request.slot.is_some_and(|expected| expected != self.slot_of(request)),
            floor: request.floor.is_some_and(|expected| expected != self.floor),
        }
    }

    fn next_revision(&self, setup: &Setup, before: Option<u8>) -> u8 {
        if setup.unique_revisions { self.point } else { before.map_or(0, |revision| revision + 1) }
    }

    /// Applies a request of which nothing is stale.
    pub(crate) fn apply(&mut self, setup: &Setup, request: &Request) {
        self.point += 1;
        for k in 0..REFS {
            if let Some(content) = request.writes[k] {
                let revision = self.next_revision(setup, self.refs[k].map(|entry| entry.revision));
                self.refs[k] = Some(RefEntry { revision, point: self.point, content });
            }
        }
        if request.slot.is_some() {
            let revision = self.next_revision(setup, self.slot_of(request));
            let (Name { client, slot, sequence, .. }, committed) = (request.name, !request.fence);
            self.slots.insert((client, slot), SlotEntry { revision, point: self.point, sequence, committed });
        }
        if !request.fence {
            let Request { name, txn, reads, writes, .. } = request.clone();
            self.effects.push(Effect { point: self.point, name, txn, reads, writes });
        }
    }

    pub(crate) fn removable(&self, setup: &Setup, removal: &Removal) -> bool {
        let revision = match removal.target {
            Target::Tombstone(k) => self.refs[k].map(|entry| entry.revision),
            Target::Slot(client, slot) => self.slots.get(&(client, slot)).map(|slot| slot.revision),
        };
        revision == Some(removal.revision) && (!setup.rules.removal_takes_turn || removal.turn == self.turn)
    }

    pub(crate) fn remove(&mut self, setup: &Setup, removal: Removal) {
        self.swept = true;
        if setup.rules.removal_takes_turn {
            self.turn += 1;
            self.removals.remove(&removal);
            let removals = std::mem::take(&mut self.removals);
            let next = |other: Removal| Removal { turn: removal.turn + 1, ..other };
            let same = |other: &Removal| (other.epoch, other.turn) == (removal.epoch, removal.turn);
            self.removals = removals.into_iter().map(|other| if same(&other) { next(other) } else { other }).collect();
        }
        match removal.target {
            Target::Tombstone(k) => self.refs[k] = None,
            Target::Slot(client, slot) => {
                self.slots.remove(&(client, slot));
            }
        }
    }

    /// Forgets what can no longer matter: orphans, and requests that can never take effect and whose reply nobody
    /// awaits.
    pub(crate) fn prune(&mut self, setup: &Setup) {
        let mut net = std::mem::take(&mut self.net);
        net.retain(|request| {
            self.clients.iter().any(|client| client.awaits(request)) || self.may_apply(setup, request)
        });
        self.net = net;
        let mut store = std::mem::take(&mut self.store);
        store.retain(|(k, name)| self.may_point_at(*k, *name));
        self.store = store;
        let turn = self.turn;
        self.removals.retain(|removal| !setup.rules.removal_takes_turn || removal.turn == turn);
    }

    /// Whether a record points at a value or a commit still may make one do so.
    fn may_point_at(&self, k: usize, name: Name) -> bool {
        self.refs[k].is_some_and(|entry| entry.content == Content::Value(name))
            || self.net.iter().any(|request| request.writes[k] == Some(Content::Value(name)))
            || self
                .clients
                .iter()
                .any(|client| matches!(&client.step, Step::Prewrite { view, .. } if client.name(view) == name))
    }

    fn may_apply(&self, setup: &Setup, request: &Request) -> bool {
        let stale = self.stale(request);
        // A revision that is gone comes back only where revisions are not unique, an absence only by a sweep.
        let for_ever = |expected: Option<Option<u8>>, sweeps: bool| match expected.flatten() {
            Some(_) => setup.unique_revisions || !sweeps,
            None => !sweeps,
        };
        !(stale.floor
            || stale.slot && for_ever(request.slot, setup.sweeps_slots)
            || (0..REFS).any(|k| stale.refs[k] && for_ever(request.refs[k], setup.sweeps_tombstones)))
    }
}
