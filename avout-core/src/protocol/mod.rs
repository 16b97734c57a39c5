//! The protocol: plain data and pure rules. Nothing here awaits, reads a clock or draws a number.
//!
//! The whole is told in `docs/protocol.md`; these modules are the parts of it that decide.

mod bytes;
mod commit;
mod envelope;
mod history;
mod id;
mod key;
mod meta;
mod packed;
mod parse;
mod payload;
mod point;
mod reading;
mod receipt;
mod record;
mod session;
mod slot;
mod version;

pub use commit::{Check, Commit, CommitOutcome, Committed, Conflict, Delete, Entry, Put, Snapshot};
pub use envelope::{CodecId, Envelope};
pub use history::{History, HistoryIter};
pub use id::{ClientId, Realm, SessionId};
pub use key::{Key, MAX_KEY_BYTES};
pub use meta::{MAX_HISTORY, MAX_HISTORY_BYTES, Meta};
pub use payload::{Payload, Shared, State};
pub use point::{Point, Revision};
pub use reading::{Reading, classify};
pub use receipt::{Receipt, Resolution};
pub use record::{Holder, Record, Reservation, Succession};
pub(crate) use session::{Heartbeat, SessionKey};
pub use slot::{Floor, SlotDecision, SlotState, Turn};
pub use version::Version;
