use std::sync::{Arc, LazyLock};

use bytes::{BufMut, Bytes};

use super::bytes::Reader;
use super::{ClientId, CodecId, Entry, Key, Meta, Payload, Realm, Record, Resolution};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u8 = 1;

/// The meta of the engine's own records, whose payloads are formats of this module.
static OWN: LazyLock<Arc<Meta>> = LazyLock::new(|| {
    Arc::new(Meta { realm: Realm::new(0), codec: CodecId(127), type_tag: "avout".into(), history: 0 })
});

fn own_record(bytes: Vec<u8>) -> Record {
    Record::first(Arc::clone(&OWN), Payload::Inline(bytes.into()))
}

fn own_payload<'a>(entry: &'a Entry, what: &'static str) -> Result<&'a Bytes> {
    match &entry.record.payload {
        Payload::Inline(bytes) => Ok(bytes),
        Payload::Shared(_) | Payload::Stored { .. } | Payload::Deleted => {
            Err(Error::new(ErrorKind::Corrupt, format!("no {what} in a record of avout's own")))
        }
    }
}

/// What a client's slot says of the last commit that used it.
///
/// Each commit of a client puts one of its slots with the commit's sequence number, expecting the slot's
/// last revision. So a lost reply is decided by the slot alone: the client *fences*, that is, it puts
/// the same sequence number as not committed, with the same expectation. One of the two puts comes first,
/// and the other one fails for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotState {
    /// The commit's number in this slot.
    pub sequence: u64,
    /// Whether the commit took effect; else it was fenced off and never will.
    pub committed: bool,
}

impl SlotState {
    /// The key of a client's slot.
    pub fn key(client: ClientId, slot: u32) -> Key {
        Key::reserved(&format!("slots/{client}/{slot}"))
    }

    /// What the keys of all slots lie under.
    pub fn prefix() -> Key {
        static KEY: LazyLock<Key> = LazyLock::new(|| Key::reserved("slots"));
        KEY.clone()
    }

    /// The record that says this.
    pub fn to_record(self) -> Record {
        let mut out = Vec::with_capacity(10);
        out.put_u8(FORMAT);
        out.put_u8(self.committed.into());
        out.put_u64(self.sequence);
        own_record(out)
    }

    /// What a slot's entry says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is no slot.
    pub fn from_entry(entry: &Entry) -> Result<Self> {
        let mut reader = Reader::new(own_payload(entry, "slot")?, "slot");
        reader.format(FORMAT)?;
        let committed = reader.u8()? == 1;
        let sequence = reader.u64()?;
        reader.end()?;
        Ok(Self { sequence, committed })
    }
}

/// The floor: a record with an epoch. An attempt that began under an older epoch can no longer commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Floor {
    /// It only grows. 0 where there is no record yet.
    pub epoch: u64,
}

impl Floor {
    /// The floor's key.
    pub fn key() -> Key {
        static KEY: LazyLock<Key> = LazyLock::new(|| Key::reserved("floor"));
        KEY.clone()
    }

    /// The record that says this.
    pub fn to_record(self) -> Record {
        numbered(self.epoch)
    }

    /// What the floor's entry says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is no floor.
    pub fn from_entry(entry: Option<&Entry>) -> Result<Self> {
        Ok(Self { epoch: number(entry, "floor")? })
    }
}

/// The turn: a record that each removal of records for good replaces, where a coordinator's revisions may come again.
///
/// Its own never do, since it is not removed. So a removal that expects the turn as it was when the record to be removed was
/// seen takes effect once, and only if nothing was removed since: what has the record's revision is still that record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Turn {
    /// How many removals there were.
    pub number: u64,
}

impl Turn {
    /// The turn's key.
    pub fn key() -> Key {
        static KEY: LazyLock<Key> = LazyLock::new(|| Key::reserved("turn"));
        KEY.clone()
    }

    /// The record that says this.
    pub fn to_record(self) -> Record {
        numbered(self.number)
    }

    /// What the turn's entry says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is no turn.
    pub fn from_entry(entry: Option<&Entry>) -> Result<Self> {
        Ok(Self { number: number(entry, "turn")? })
    }
}

/// A record of the engine's own that holds a number.
fn numbered(number: u64) -> Record {
    let mut out = Vec::with_capacity(9);
    out.put_u8(FORMAT);
    out.put_u64(number);
    own_record(out)
}

/// The number of such a record; 0 where there is none.
fn number(entry: Option<&Entry>, what: &'static str) -> Result<u64> {
    let Some(entry) = entry else {
        return Ok(0);
    };
    let mut reader = Reader::new(own_payload(entry, what)?, what);
    reader.format(FORMAT)?;
    let number = reader.u64()?;
    reader.end()?;
    Ok(number)
}

/// What to do next to find out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotDecision {
    /// It is known.
    Known(Resolution),
    /// The commit may still arrive: fence it, expecting the slot as it was just seen.
    Fence,
    /// The slot went on, or was retired: nothing tells any more.
    Lost,
}

impl SlotState {
    /// Decides a commit of `sequence`, sent under the floor's `epoch`, by its slot and the floor, both
    /// of one snapshot.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if one of the entries is not what it should be.
    pub fn decide(slot: Option<&Entry>, floor: Option<&Entry>, sequence: u64, epoch: u64) -> Result<SlotDecision> {
        let Some(entry) = slot else {
            // A slot is retired only after the floor was raised. So under the same floor it was
            // never written; under a later one it may have been written and retired since.
            let same = Floor::from_entry(floor)?.epoch == epoch;
            return Ok(if same { SlotDecision::Fence } else { SlotDecision::Lost });
        };
        let state = Self::from_entry(entry)?;
        Ok(match state.sequence.cmp(&sequence) {
            std::cmp::Ordering::Less => SlotDecision::Fence,
            std::cmp::Ordering::Equal if state.committed => SlotDecision::Known(Resolution::Committed(entry.point)),
            std::cmp::Ordering::Equal => SlotDecision::Known(Resolution::NotCommitted),
            std::cmp::Ordering::Greater => SlotDecision::Lost,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Point, Revision};

    fn entry(record: Record) -> Entry {
        Entry { revision: Revision::number(1), point: Point::new(9), record: Arc::new(record) }
    }

    /// The slot tells of each lost reply: done, fenced off, still open, or no longer known.
    #[test]
    fn a_slot_decides() {
        let slot = |sequence, committed| entry(SlotState { sequence, committed }.to_record());
        let decide =
            |slot: Option<&Entry>, floor: Option<&Entry>| SlotState::decide(slot, floor, 5, 0).expect("a slot");
        assert_eq!(decide(None, None), SlotDecision::Fence);
        assert_eq!(decide(Some(&slot(4, true)), None), SlotDecision::Fence);
        assert_eq!(decide(Some(&slot(4, false)), None), SlotDecision::Fence);
        let committed = SlotDecision::Known(Resolution::Committed(Point::new(9)));
        assert_eq!(decide(Some(&slot(5, true)), None), committed);
        assert_eq!(decide(Some(&slot(5, false)), None), SlotDecision::Known(Resolution::NotCommitted));
        assert_eq!(decide(Some(&slot(6, true)), None), SlotDecision::Lost);
        let raised = entry(Floor { epoch: 1 }.to_record());
        assert_eq!(decide(None, Some(&raised)), SlotDecision::Lost);
        assert_eq!(decide(Some(&slot(5, true)), Some(&raised)), committed);
    }
}
