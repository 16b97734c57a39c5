use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes};

use super::bytes::{Reader, put_short_text};
use super::packed::{Packed, payload_size, put_payload, read_payload};
use super::{ClientId, CodecId, History, MAX_HISTORY, MAX_HISTORY_BYTES, Meta, Payload, Point, Realm, Version};
use crate::error::Result;

const FORMAT: u8 = 2;

/// What the coordinator keeps for a key: the current payload, a short history, and meta.
///
/// The point of the current payload is not in the record but in the
/// [`Entry`](super::Entry) around it, since nobody knows it before the commit.
#[derive(Clone, Debug)]
pub struct Record {
    /// What stays the same over the ref's life.
    pub meta: Arc<Meta>,
    /// The current payload.
    pub payload: Payload,
    /// Earlier payloads, newest first, each with the point where it took effect.
    pub history: History,
    /// Who asked others to wait.
    pub reservation: Option<Reservation>,
}

/// A request that others wait before they write this record: a transaction that was lost again and again puts it into the records
/// that it needs. It decides only who waits; a commit compares as ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The transaction that made it.
    pub holder: Holder,
    /// How long the others wait at most, each by its own clock. Zero: it is over, nobody waits.
    pub lease: Duration,
    /// Where the current payload took effect, which is earlier than the entry's point.
    pub since: Point,
}

/// A transaction that holds reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its client.
    pub client: ClientId,
    /// Its number among the client's.
    pub number: u64,
}

/// A record that follows another, and what it no longer keeps.
#[derive(Debug)]
pub struct Succession {
    /// The new record.
    pub record: Record,
    /// Values in stores that no record points at once the new one is committed.
    pub trimmed: Vec<(Realm, Version)>,
}

impl Record {
    /// A first record, with no history.
    pub fn first(meta: Arc<Meta>, payload: Payload) -> Self {
        Self { meta, payload, history: History::default(), reservation: None }
    }

    /// Where the current payload took effect; `point` is the entry's point.
    pub fn since(&self, point: Point) -> Point {
        self.reservation.as_ref().map_or(point, |reservation| reservation.since)
    }

    /// All payloads that it holds with the points where they took effect, newest first; `point` is the entry's point.
    pub fn payloads(&self, point: Point) -> impl Iterator<Item = (Point, &Payload)> {
        std::iter::once((self.since(point), &self.payload)).chain(&self.history)
    }

    /// The same record with a reservation; `point` is the entry's point.
    #[must_use]
    pub fn reserved(&self, point: Point, holder: Holder, lease: Duration) -> Self {
        let reservation = Reservation { holder, lease, since: self.since(point) };
        Self { reservation: Some(reservation), ..self.clone() }
    }

    /// Whether this transaction has a reservation in it.
    pub fn is_reserved_by(&self, holder: Holder) -> bool {
        self.reservation.as_ref().is_some_and(|reservation| reservation.holder == holder)
    }

    /// The same record with its reservation over. It does not go before the record is written: where the payload took effect is told
    /// by nothing else.
    #[must_use]
    pub fn released(&self) -> Self {
        let over = |reservation: &Reservation| Reservation { lease: Duration::ZERO, ..reservation.clone() };
        Self { reservation: self.reservation.as_ref().map(over), ..self.clone() }
    }

    /// The record after this one, whose entry's point is `point`: `payload` in front, this one's payload
    /// at the head of the history, the history cut to its budget, and no reservation.
    pub fn succeed(&self, point: Point, meta: Arc<Meta>, payload: Payload) -> Succession {
        let limit = usize::from(meta.history.min(MAX_HISTORY));
        if let Some(history) = self.history.with(self.since(point), &self.payload, limit) {
            return Succession { record: Self { meta, payload, history, reservation: None }, trimmed: Vec::new() };
        }
        if let Some((history, trimmed)) = self.history.with_bytes(self.since(point), &self.payload, &meta, limit) {
            return Succession { record: Self { meta, payload, history, reservation: None }, trimmed };
        }
        let mut history = Vec::with_capacity(limit.min(self.history.len() + 1));
        let mut trimmed = Vec::new();
        let mut bytes = 0;
        let mut full = false;
        for (point, payload) in self.payloads(point) {
            bytes += payload.inline_bytes();
            // Once one is left out all older ones are: a gap would show a wrong value at a point inside it.
            // The newest is kept whatever its size.
            full = full || history.len() == limit || (bytes > MAX_HISTORY_BYTES && !history.is_empty());
            if !full {
                history.push((point, payload.clone()));
            } else {
                trimmed.extend(payload.stored());
            }
        }
        Succession { record: Self { meta, payload, history: history.into(), reservation: None }, trimmed }
    }

    /// The payload that was current at `at`, with the point where it took effect; `point` is the
    /// entry's point. `None` if that is further back than the history reaches.
    pub fn at(&self, point: Point, at: Point) -> Option<(Point, &Payload)> {
        self.payloads(point).find(|(since, _)| *since <= at)
    }

    /// All payloads that the record points at in stores, the current one included.
    pub fn stored(&self) -> impl Iterator<Item = (Realm, Version)> {
        std::iter::once(&self.payload)
            .chain(self.history.iter().map(|(_, payload)| payload))
            .filter_map(Payload::stored)
    }

    /// How many bytes [`encode`](Self::encode) gives.
    pub fn encoded_size(&self) -> usize {
        let reservation = if self.reservation.is_some() { 36 } else { 0 };
        let history = self.history.entries(&self.meta).map_or(0, |entries| entries.len());
        28 + self.meta.type_tag.len() + reservation + payload_size(&self.payload) + history
    }

    /// The record as bytes, for coordinators outside this process.
    ///
    /// ```text
    /// format u8 | realm 16 | codec u8 | history limit u16 | tag length u8, tag | payload
    ///   | entries u16, each: step varint, earlier | reservation | CRC-32 of all before
    /// step: of the first entry its point, of the others how far it is before that of the entry in front
    /// payload: 0 (deleted) | 1, length u32, envelope | 2, realm 16, version 36
    /// earlier: 4 * length + kind as varint, then by kind 0 (deleted) nothing | 1, an envelope of that length
    ///   | 2, realm 16, version 36 | 3, a value of that length without its envelope; the length of 0 and 2 is 0
    /// reservation: 0 (none) | 1, client 16, number u64, lease in ms u32, since u64
    /// varint: seven bits a byte, the lowest first, 128 added to all bytes but the last
    /// ```
    ///
    /// # Errors
    /// [`Unsupported`] if a payload is a shared value, which has no bytes. [`Corrupt`] if the points of the history do not fall;
    /// those of [`succeed`](Self::succeed) do.
    ///
    /// [`Unsupported`]: crate::ErrorKind::Unsupported
    /// [`Corrupt`]: crate::ErrorKind::Corrupt
    ///
    /// # Panics
    /// If the type tag has more than 255 bytes; refs refuse such tags when they are made.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(self.encoded_size());
        out.put_u8(FORMAT);
        out.put_u128(self.meta.realm.number());
        out.put_u8(self.meta.codec.0);
        out.put_u16(self.meta.history);
        put_short_text(&mut out, &self.meta.type_tag);
        put_payload(&mut out, &self.payload)?;
        out.put_u16(u16::try_from(self.history.len()).expect("succeed keeps at most MAX_HISTORY"));
        out.put_slice(&self.history.entries(&self.meta)?);
        match &self.reservation {
            None => out.put_u8(0),
            Some(Reservation { holder, lease, since }) => {
                out.put_u8(1);
                out.put_u128(holder.client.number());
                out.put_u64(holder.number);
                out.put_u32(u32::try_from(lease.as_millis()).unwrap_or(u32::MAX));
                out.put_u64(since.number());
            }
        }
        out.put_u32(crc32fast::hash(&out));
        Ok(out)
    }

    /// The record that [`encode`](Self::encode) gave these bytes for. Inline values are parts of
    /// `bytes`, not copies.
    ///
    /// # Errors
    /// [`Corrupt`](crate::ErrorKind::Corrupt) says what is wrong with the bytes. They are taken as untrusted:
    /// nothing is allocated by a length that they claim.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes, "record");
        reader.format(FORMAT)?;
        let realm = Realm::new(u128::from_be_bytes(reader.array()?));
        let codec = CodecId(reader.u8()?);
        let limit = reader.u16()?;
        let type_tag = reader.short_text()?.into();
        let meta = Arc::new(Meta { realm, codec, type_tag, history: limit });
        let payload = read_payload(&mut reader, bytes, &meta)?;
        let entries = reader.u16()?;
        if entries > MAX_HISTORY {
            return Err(reader.corrupt("its history is too long"));
        }
        let history = History::packed(Packed::read(&mut reader, bytes, Arc::clone(&meta), entries)?);
        let reservation = match reader.u8()? {
            0 => None,
            1 => Some(Reservation {
                holder: Holder { client: ClientId::new(u128::from_be_bytes(reader.array()?)), number: reader.u64()? },
                lease: Duration::from_millis(reader.u32()?.into()),
                since: Point::new(reader.u64()?),
            }),
            _ => return Err(reader.corrupt("a reservation of unknown kind")),
        };
        let checksum = reader.u32()?;
        reader.end()?;
        if checksum != crc32fast::hash(&bytes[..bytes.len() - 4]) {
            return Err(reader.corrupt("its checksum is wrong"));
        }
        Ok(Self { meta, payload, history, reservation })
    }
}

#[cfg(test)]
#[path = "record/tests.rs"]
mod tests;
