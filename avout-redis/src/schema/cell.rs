//! What lies in the hash of cells: 16 bytes of revision, that is the point and a number drawn by chance, and after that a record
//! or an atom's state. A number by chance makes a revision unlike any other, whatever history the server has lost.

use std::sync::Arc;

use avout_core::backend::history::Era;
use avout_core::protocol::{Entry, Point, Record, Reservation, Revision};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::Value;

/// The low bits of a point count commits; the high ones are the era's number.
pub(crate) const COUNT_BITS: u32 = 44;
/// The field of the clock.
pub(crate) const CLOCK: &str = "";
/// The field that is there from the first watch on: only then are changes told.
pub(crate) const WATCHED: &str = "watched";
pub(crate) const REVISION_BYTES: usize = 16;

/// The namespace's era and last point.
pub(crate) struct Clock {
    pub(crate) id: [u8; 8],
    pub(crate) point: u64,
}

impl Clock {
    /// `None`: there is no clock, and so no namespace.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let Value::BulkString(bytes) = value else { return None };
        let (id, point) = bytes.split_at_checked(8)?;
        Some(Self { id: id.try_into().ok()?, point: u64::from_be_bytes(point.try_into().ok()?) })
    }

    pub(crate) fn is_of(&self, era: Era) -> bool {
        self.id == era.id
    }
}

/// The point of a write, as its script answers.
pub(crate) fn point(value: &Value) -> Option<u64> {
    let Value::BulkString(bytes) = value else { return None };
    Some(u64::from_be_bytes(bytes.as_slice().try_into().ok()?))
}

/// The revision of what is written at `point`.
pub(crate) fn revision(point: u64, nonce: u64) -> Revision {
    Revision::number(u128::from(point) << 64 | u128::from(nonce))
}

/// The bytes that a script compares. What is not a revision of ours is unlike any; and `None` is absence.
pub(crate) fn expected(revision: Option<&Revision>) -> ([u8; REVISION_BYTES], usize) {
    match revision {
        None => ([0; REVISION_BYTES], 0),
        Some(revision) => (revision.as_number().unwrap_or(0).to_be_bytes(), REVISION_BYTES),
    }
}

/// A cell's revision, point and content; `None` if there is no cell.
pub(crate) fn split(value: Value) -> Result<Option<(Revision, Point, Bytes)>> {
    let bytes = match value {
        Value::Nil => return Ok(None),
        Value::BulkString(bytes) => Bytes::from(bytes),
        _ => return Err(corrupt()),
    };
    let head: [u8; REVISION_BYTES] =
        bytes.get(..REVISION_BYTES).and_then(|head| head.try_into().ok()).ok_or_else(corrupt)?;
    let number = u128::from_be_bytes(head);
    let point = Point::new((number >> 64) as u64);
    Ok(Some((Revision::number(number), point, bytes.slice(REVISION_BYTES..))))
}

/// The point of the latest of some cells. Of one that is not there it is the clock's: it may have been removed just before.
pub(crate) fn latest(cells: &[Value], clock: u64) -> u64 {
    let point = |cell: &Value| match cell {
        Value::BulkString(bytes) => bytes.first_chunk().map(|point| u64::from_be_bytes(*point)),
        _ => None,
    };
    cells.iter().map(|cell| point(cell).unwrap_or(clock)).max().unwrap_or(0)
}

/// A record's entry. `boundary` is where the current history begins for a client that has seen commits which are lost.
///
/// Such a client may have attempts under way that have read what is lost. To them every record is changed at the boundary, and its
/// history from before tells nothing: so they find what they have read changed, or no value at their read point, and none of them
/// sees both histories.
pub(crate) fn entry(value: Value, boundary: Point) -> Result<Option<Entry>> {
    let Some((revision, point, bytes)) = split(value)? else { return Ok(None) };
    let mut record = Record::decode(&bytes)?;
    if boundary > Point::ZERO {
        let kept = record.history.iter().filter(|(point, _)| *point >= boundary);
        record.history = kept.map(|(point, payload)| (point, payload.clone())).collect();
        if let Some(Reservation { since, .. }) = &mut record.reservation {
            *since = boundary.max(*since);
        }
    }
    Ok(Some(Entry { revision, point: point.max(boundary), record: Arc::new(record) }))
}

fn corrupt() -> Error {
    Error::new(ErrorKind::Corrupt, "a cell of the namespace is not as avout wrote it")
}
