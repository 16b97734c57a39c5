//! The state: a coordinator, a store, requests under way, clients, a sweeper, and what an onlooker knows of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, LazyLock};

use avout_core::protocol::{
    ClientId, CodecId, Entry, Floor, Meta, Payload, Point, Realm, Record, Revision, SlotDecision, SlotState, Version,
};

use super::setup::REFS;

/// The name of an attempt's commit and of the values it writes, small for the checker.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Name {
    pub(crate) epoch: u8,
    pub(crate) client: u8,
    pub(crate) slot: u8,
    pub(crate) sequence: u8,
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { epoch, client, slot, sequence } = self;
        write!(f, "{epoch}-{client}-{slot}-{sequence}")
    }
}

impl Name {
    pub(crate) fn version(self) -> Version {
        Version {
            epoch: self.epoch.into(),
            client: ClientId::new(self.client.into()),
            slot: self.slot.into(),
            sequence: self.sequence.into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Content {
    Value(Name),
    Deleted,
}

impl Content {
    pub(crate) fn name(self) -> Option<Name> {
        match self {
            Self::Value(name) => Some(name),
            Self::Deleted => None,
        }
    }
}

/// A ref's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RefEntry {
    pub(crate) revision: u8,
    pub(crate) point: u8,
    pub(crate) content: Content,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SlotEntry {
    pub(crate) revision: u8,
    pub(crate) point: u8,
    pub(crate) sequence: u8,
    pub(crate) committed: bool,
}

/// What a commit expects of a key that it names: a revision, or that it is absent.
pub(crate) type Expected = Option<Option<u8>>;

/// A commit request, or a fence. One under way may arrive at any time, any number of times, or never.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Request {
    pub(crate) name: Name,
    pub(crate) fence: bool,
    pub(crate) txn: u8,
    pub(crate) refs: [Expected; REFS],
    pub(crate) slot: Expected,
    pub(crate) floor: Option<u8>,
    pub(crate) writes: [Option<Content>; REFS],
    /// What the body saw; only the onlooker uses it.
    pub(crate) reads: [Option<Name>; REFS],
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", if self.fence { "fence" } else { "commit" }, self.name)
    }
}

/// What an attempt works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) entries: [Option<RefEntry>; REFS],
    /// The floor that it began under.
    pub(crate) floor: u8,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Begin,
    /// The first ref is read, at this point.
    Half {
        first: Option<RefEntry>,
        point: u8,
        floor: u8,
        extend: bool,
    },
    /// Values go to the store; these are still to be written.
    Prewrite {
        view: View,
        left: [bool; REFS],
    },
    Await(View),
    /// The reply is lost, or given up. `fenced`: a fence was sent.
    Settle {
        view: View,
        fenced: bool,
    },
    AwaitFence(View),
    Done,
}

impl Step {
    pub(crate) fn view(&self) -> Option<&View> {
        match self {
            Self::Prewrite { view, .. } | Self::Await(view) | Self::Settle { view, .. } | Self::AwaitFence(view) => {
                Some(view)
            }
            Self::Begin | Self::Half { .. } | Self::Done => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Client {
    pub(crate) id: u8,
    /// Its place in the script.
    pub(crate) txn: u8,
    pub(crate) attempts: u8,
    pub(crate) slot: u8,
    pub(crate) slot_revision: Option<u8>,
    /// The epoch of all commits that use the slot.
    pub(crate) slot_epoch: u8,
    pub(crate) sequence: u8,
    /// The floor's epoch as the client last saw it.
    pub(crate) floor: Option<u8>,
    pub(crate) step: Step,
}

impl Client {
    pub(crate) fn new(id: u8, txn: u8) -> Self {
        Self {
            id,
            txn,
            attempts: 0,
            slot: 0,
            slot_revision: None,
            slot_epoch: 0,
            sequence: 0,
            floor: None,
            step: Step::Begin,
        }
    }

    pub(crate) fn name(&self, view: &View) -> Name {
        Name { epoch: view.floor, client: self.id, slot: self.slot, sequence: self.sequence }
    }

    /// Whether it waits for the reply to this request.
    pub(crate) fn awaits(&self, request: &Request) -> bool {
        match &self.step {
            Step::Await(view) => !request.fence && self.name(view) == request.name,
            Step::AwaitFence(view) => request.fence && self.name(view) == request.name,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) struct Sweeper {
    /// How many sweeps may still begin.
    pub(crate) left: u8,
    /// It looked for tombstones and slots in this sweep.
    pub(crate) looked: bool,
    /// The turn when it looked.
    pub(crate) turn: u8,
    /// The floor is raised to this epoch: values of older ones may go.
    pub(crate) raised: Option<u8>,
    /// The client that was fenced instead.
    pub(crate) suspect: Option<u8>,
    /// What each record points at, once it was read.
    pub(crate) pointers: [Option<Option<Name>>; REFS],
    /// What was found to remove, with its revision.
    pub(crate) found: BTreeMap<Target, u8>,
}

/// A record that the sweeper removes for good: a tombstone, or the slot of a client, with its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    Tombstone(usize),
    Slot(u8, u8),
}

/// A request of the sweeper under way. A sweep sends them one by one: each expects the turn that the one before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Removal {
    pub(crate) target: Target,
    pub(crate) revision: u8,
    /// The turn that it expects.
    pub(crate) turn: u8,
    /// The epoch of its sweep.
    pub(crate) epoch: u8,
}

/// What a client reports of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verdict {
    Committed {
        point: u8,
    },
    /// The slot told that it took effect. `fenced`: after a fence that lost.
    Found {
        point: u8,
        fenced: bool,
    },
    Conflict,
    FloorConflict,
    Fenced,
    Unknown,
}

impl Verdict {
    pub(crate) fn committed(self) -> Option<u8> {
        match self {
            Self::Committed { point } | Self::Found { point, .. } => Some(point),
            _ => None,
        }
    }

    pub(crate) fn not_committed(self) -> bool {
        matches!(self, Self::Conflict | Self::FloorConflict | Self::Fenced)
    }
}

/// A commit that took effect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Effect {
    pub(crate) point: u8,
    pub(crate) name: Name,
    pub(crate) txn: u8,
    pub(crate) reads: [Option<Name>; REFS],
    pub(crate) writes: [Option<Content>; REFS],
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct State {
    /// Of the last commit. Raising the floor and removing records take none: their order is in the state without it.
    pub(crate) point: u8,
    pub(crate) refs: [Option<RefEntry>; REFS],
    pub(crate) slots: BTreeMap<(u8, u8), SlotEntry>,
    /// The floor's epoch, which stands for its revision too: neither comes twice.
    pub(crate) floor: u8,
    /// The values of each ref's container, but for orphans that nothing can point at any more.
    pub(crate) store: BTreeSet<(usize, Name)>,
    pub(crate) net: BTreeSet<Request>,
    pub(crate) clients: [Client; 2],
    pub(crate) next_id: u8,
    pub(crate) crashes: u8,
    pub(crate) sweeper: Sweeper,
    pub(crate) removals: BTreeSet<Removal>,
    /// The revision of a record that each removal puts.
    pub(crate) turn: u8,
    // What only the onlooker knows.
    pub(crate) effects: Vec<Effect>,
    pub(crate) verdicts: BTreeMap<Name, Verdict>,
    pub(crate) swept: bool,
}

/// The values at the beginning.
pub(crate) const FIRST: Name = Name { epoch: 0, client: 255, slot: 0, sequence: 0 };

pub(crate) fn entry(revision: u8, point: u8, record: Record) -> Entry {
    Entry { revision: Revision::number(revision.into()), point: Point::new(point.into()), record: Arc::new(record) }
}

impl State {
    /// What the library decides by a client's slot and the floor as they are now.
    pub(crate) fn decide(&self, client: &Client, epoch: u8) -> SlotDecision {
        let slot = self.slots.get(&(client.id, client.slot)).map(|slot| {
            let says = SlotState { sequence: slot.sequence.into(), committed: slot.committed };
            entry(slot.revision, slot.point, says.to_record())
        });
        let floor = (self.floor > 0).then(|| entry(self.floor, 0, Floor { epoch: self.floor.into() }.to_record()));
        SlotState::decide(slot.as_ref(), floor.as_ref(), client.sequence.into(), epoch.into())
            .expect("the model's entries are well formed")
    }
}

/// The record of an entry, as the library has it; it keeps no history.
pub(crate) fn record(content: Content) -> Record {
    static META: LazyLock<Arc<Meta>> = LazyLock::new(|| {
        Arc::new(Meta { realm: Realm::new(1), codec: CodecId(1), type_tag: "model".into(), history: 0 })
    });
    let payload = match content {
        Content::Value(name) => Payload::Stored { realm: META.realm, version: name.version() },
        Content::Deleted => Payload::Deleted,
    };
    Record::first(Arc::clone(&META), payload)
}

/// Whether the library's successor of an entry no longer points at the entry's value.
pub(crate) fn trims(old: &RefEntry, new: Content) -> bool {
    let (earlier, later) = (record(old.content), record(new));
    let next = earlier.succeed(Point::new(old.point.into()), later.meta, later.payload);
    old.content.name().is_some_and(|name| next.trimmed.iter().any(|(_, version)| *version == name.version()))
}
