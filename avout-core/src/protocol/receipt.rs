use std::fmt;

use bytes::Bytes;

use super::{ClientId, Point};

/// What it takes to find out the outcome of a commit whose reply was lost.
///
/// It has a text form, so that it can be logged and resolved by another process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// A slot decides.
    Slot {
        /// The slot's client.
        client: ClientId,
        /// The client's slot.
        slot: u32,
        /// The commit's number in the slot.
        sequence: u64,
        /// The floor's epoch when the commit was sent.
        epoch: u64,
    },
    /// The coordinator itself decides; the bytes are its own.
    Native(Bytes),
}

/// How a commit whose reply was lost ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// It took effect, at this point.
    Committed(Point),
    /// It did not and never will.
    NotCommitted,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slot { client, slot, sequence, epoch } => write!(f, "slot:{client}:{slot}:{sequence}:{epoch}"),
            Self::Native(bytes) => {
                f.write_str("native:")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}
