//! Clocks that run ahead: whoever has one sees others stand still, and takes them for dead at the first look. Here it is told that their
//! sessions live for no time at all, which looks the same.

use std::sync::Arc;

use avout_core::protocol::{CommitOutcome, Entry, Envelope, Record, Snapshot};
use avout_core::{Codec as _, Key, MessagePack, Payload};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// What the record of a session says: see `docs/protocol.md#sessions`.
#[derive(Serialize, Deserialize)]
struct Heartbeat {
    beat: u64,
    ttl: u64,
    #[serde(default)]
    seats: u32,
}

/// A value as such a client sees it.
pub(crate) fn value(key: &Key, bytes: &Bytes) -> Bytes {
    seen(key, bytes).unwrap_or_else(|| bytes.clone())
}

/// `None`: as all see it.
fn seen(key: &Key, bytes: &Bytes) -> Option<Bytes> {
    let session = key.as_str().strip_prefix("/.avout/sessions/")?;
    if session.contains('/') {
        return None;
    }
    let sealed = Envelope::open(bytes).ok()?;
    let heartbeat: Heartbeat = MessagePack.decode(&sealed.value).ok()?;
    let heartbeat = MessagePack.encode(&Heartbeat { ttl: 0, ..heartbeat }).ok()?;
    Envelope::seal(sealed.codec, &sealed.type_tag, &heartbeat).ok()
}

/// Records as such a client sees them.
pub(crate) fn snapshot(keys: &[Key], snapshot: &mut Snapshot) {
    for (key, entry) in keys.iter().zip(&mut snapshot.entries) {
        if let Some(Entry { record, .. }) = entry
            && let Payload::Inline(bytes) = &record.payload
            && let Some(bytes) = seen(key, bytes)
        {
            *record = Arc::new(Record { payload: Payload::Inline(bytes), ..Record::clone(record) });
        }
    }
}

/// The same of what a conflict tells.
pub(crate) fn outcome(outcome: &mut CommitOutcome) {
    if let CommitOutcome::Conflict(conflict) = outcome
        && let Some(fresh) = &mut conflict.fresh
    {
        snapshot(&conflict.stale, fresh);
    }
}
