//! The steps of a client.

use avout_core::protocol::{Point, Reading, Resolution, SlotDecision, classify};

use super::coordinator::Stale;
use super::setup::{Kind, REFS, Setup};
use super::state::{Client, Content, Name, Request, State, Step, Verdict, View, entry, record, trims};

/// What a client's transaction writes, or `None` if a ref is there, or is not, against its will: then it fails at once.
fn writes(kind: Kind, view: &View, name: Name) -> Option<[Option<Content>; REFS]> {
    let there = view.names().map(|name| name.is_some());
    let value = Some(Content::Value(name));
    let mut writes = [None; REFS];
    match kind {
        Kind::Write(k) if there[k] => writes[k] = value,
        Kind::WriteBoth if there == [true; REFS] => writes = [value; REFS],
        Kind::Destroy(k) if there[k] => writes[k] = Some(Content::Deleted),
        Kind::Create(k) if !there[k] => writes[k] = value,
        _ => return None,
    }
    Some(writes)
}

impl State {
    pub(crate) fn read(&mut self, setup: &Setup, c: usize) {
        let floor = *self.clients[c].floor.get_or_insert(self.floor);
        match self.clients[c].step {
            Step::Begin if setup.reads_apart => {
                let (first, point) = (self.refs[0], self.point);
                self.clients[c].step = Step::Half { first, point, floor, extend: false };
            }
            Step::Half { first, point, floor, extend: false } => {
                let second = self.refs[1].map(|second| entry(second.revision, second.point, record(second.content)));
                let (read_point, now) = (Point::new(point.into()), Point::new(self.point.into()));
                if setup.rules.extend && classify(read_point, now, [second.as_ref()]) == Reading::Extend {
                    self.clients[c].step = Step::Half { first, point, floor, extend: true };
                } else {
                    self.plan(setup, c, View { entries: [first, self.refs[1]], floor });
                }
            }
            Step::Half { first, floor, .. } => {
                if first.map(|entry| entry.revision) == self.refs[0].map(|entry| entry.revision) {
                    self.plan(setup, c, View { entries: self.refs, floor });
                } else {
                    self.again(setup, c, None);
                }
            }
            _ => self.plan(setup, c, View { entries: self.refs, floor }),
        }
    }

    /// Begins the commit of an attempt.
    fn plan(&mut self, setup: &Setup, c: usize, view: View) {
        let client = &mut self.clients[c];
        if client.slot_epoch != view.floor && setup.rules.slot_serves_one_epoch {
            if client.sequence > 0 {
                client.abandon();
            }
            client.slot_epoch = view.floor;
        }
        client.sequence += 1;
        let Some(writes) = self.writes(setup, c, &view) else {
            return self.next_txn(setup, c);
        };
        let left = writes.map(|write| setup.stored && matches!(write, Some(Content::Value(_))));
        self.clients[c].step = Step::Prewrite { view, left };
    }

    fn writes(&self, setup: &Setup, c: usize, view: &View) -> Option<[Option<Content>; REFS]> {
        let client = &self.clients[c];
        writes(setup.scripts[c][usize::from(client.txn)], view, client.name(view))
    }

    pub(crate) fn prewrite(&mut self, c: usize, k: usize) {
        let client = &mut self.clients[c];
        if let Step::Prewrite { view, left } = &mut client.step {
            left[k] = false;
            let view = *view;
            self.store.insert((k, client.name(&view)));
        }
    }

    pub(crate) fn send(&mut self, setup: &Setup, c: usize, view: View) {
        let writes = self.writes(setup, c, &view).expect("the plan was made for this view");
        let client = &mut self.clients[c];
        let mut request = setup.request(&view, client.name(&view), client.txn, writes);
        request.slot = setup.rules.slot_in_commit.then_some(client.slot_revision);
        client.step = Step::Await(view);
        self.net.insert(request);
    }

    /// The reply is lost, or comes too late.
    pub(crate) fn time_out(&mut self, c: usize) {
        match self.clients[c].step {
            Step::Await(view) => self.clients[c].step = Step::Settle { view, fenced: false },
            Step::AwaitFence(view) => self.clients[c].step = Step::Settle { view, fenced: true },
            _ => {}
        }
    }

    /// Looks at the slot, and decides or fences.
    pub(crate) fn settle(&mut self, setup: &Setup, c: usize, view: View, fenced: bool) {
        let client = &self.clients[c];
        let (name, slot) = (client.name(&view), self.slots.get(&(client.id, client.slot)).copied());
        match self.decide(client, view.floor) {
            SlotDecision::Known(Resolution::Committed(point)) => {
                let point = u8::try_from(point.number()).expect("the model's points are small");
                self.clients[c].slot_revision = slot.map(|slot| slot.revision);
                self.committed(setup, c, &view, Verdict::Found { point, fenced });
            }
            SlotDecision::Known(Resolution::NotCommitted) => {
                self.fenced(setup, c, view, slot.map(|slot| slot.revision))
            }
            SlotDecision::Fence if !setup.rules.fence => self.fenced(setup, c, view, slot.map(|slot| slot.revision)),
            SlotDecision::Fence => {
                let (slot, floor) = (Some(slot.map(|slot| slot.revision)), Some(self.floor));
                let nothing = Request {
                    name,
                    fence: true,
                    txn: client.txn,
                    refs: [None; REFS],
                    slot,
                    floor,
                    writes: [None; REFS],
                    reads: [None; REFS],
                };
                self.clients[c].step = Step::AwaitFence(view);
                self.net.insert(nothing);
            }
            SlotDecision::Lost => {
                self.verdicts.insert(name, Verdict::Unknown);
                self.clients[c].abandon();
                self.next_txn(setup, c);
            }
        }
    }

    /// The reply to a request arrives.
    pub(crate) fn reply(&mut self, setup: &Setup, c: usize, stale: &Stale) {
        match self.clients[c].step {
            Step::Await(view) if stale.any() => self.conflict(setup, c, view, stale),
            Step::Await(view) => {
                self.clients[c].slot_revision = self.slot_revision(c);
                let point = self.point;
                self.committed(setup, c, &view, Verdict::Committed { point });
            }
            Step::AwaitFence(_) if stale.any() => self.time_out(c),
            Step::AwaitFence(view) => self.fenced(setup, c, view, self.slot_revision(c)),
            _ => {}
        }
    }

    fn slot_revision(&self, c: usize) -> Option<u8> {
        let client = &self.clients[c];
        self.slots.get(&(client.id, client.slot)).map(|slot| slot.revision)
    }

    /// The value that nothing points at any more may be deleted, and is at once.
    fn committed(&mut self, setup: &Setup, c: usize, view: &View, verdict: Verdict) {
        let writes = self.writes(setup, c, view).expect("the plan was made for this view");
        for (k, (new, old)) in writes.into_iter().zip(view.entries).enumerate() {
            if setup.stored
                && let (Some(new), Some(old)) = (new, old)
                && trims(&old, new)
                && let Some(name) = old.content.name()
            {
                self.store.remove(&(k, name));
            }
        }
        self.verdicts.insert(self.clients[c].name(view), verdict);
        self.next_txn(setup, c);
    }

    /// The commit did not take effect and never will: the same is tried again under another name.
    fn fenced(&mut self, setup: &Setup, c: usize, view: View, revision: Option<u8>) {
        self.clients[c].slot_revision = revision;
        self.discard(setup, c, &view, Verdict::Fenced);
        self.again(setup, c, Some(view));
    }

    fn conflict(&mut self, setup: &Setup, c: usize, mut view: View, stale: &Stale) {
        if stale.slot && setup.rules.own_slot_decides {
            return self.time_out(c);
        }
        self.discard(setup, c, &view, if stale.floor { Verdict::FloorConflict } else { Verdict::Conflict });
        if stale.slot {
            self.clients[c].abandon();
        }
        if !stale.floor {
            return self.again(setup, c, None);
        }
        if setup.rules.read_again {
            self.clients[c].floor = None;
            return self.again(setup, c, None);
        }
        for k in 0..REFS {
            if stale.refs[k] {
                view.entries[k] = self.refs[k];
            }
        }
        view.floor = self.floor;
        self.clients[c].floor = Some(self.floor);
        self.again(setup, c, Some(view));
    }

    /// What an attempt wrote into stores may be deleted, and it is at once: no later moment can do more harm.
    fn discard(&mut self, setup: &Setup, c: usize, view: &View, verdict: Verdict) {
        let (name, writes) = (self.clients[c].name(view), self.writes(setup, c, view).expect("it was planned"));
        self.verdicts.insert(name, verdict);
        for k in (0..REFS).filter(|k| writes[*k].is_some()) {
            self.store.remove(&(k, name));
        }
    }

    /// Another attempt, with what this one had seen or from the start.
    fn again(&mut self, setup: &Setup, c: usize, view: Option<View>) {
        let client = &mut self.clients[c];
        client.attempts += 1;
        if client.attempts == setup.attempts {
            return self.next_txn(setup, c);
        }
        match view {
            Some(view) => self.plan(setup, c, view),
            None => client.step = Step::Begin,
        }
    }

    fn next_txn(&mut self, setup: &Setup, c: usize) {
        let client = &mut self.clients[c];
        client.txn += 1;
        client.attempts = 0;
        if usize::from(client.txn) == setup.scripts[c].len() {
            *client = Client { step: Step::Done, ..Client::new(client.id, client.txn) };
        } else {
            client.step = Step::Begin;
        }
    }

    /// The client is gone, and comes back as a new one, which runs the transaction that was under way.
    pub(crate) fn crash(&mut self, c: usize) {
        self.clients[c] = Client::new(self.next_id, self.clients[c].txn);
        self.next_id += 1;
        self.crashes -= 1;
    }
}

impl Client {
    /// Never uses its slot again.
    fn abandon(&mut self) {
        self.slot += 1;
        self.slot_revision = None;
        self.sequence = 0;
    }
}
