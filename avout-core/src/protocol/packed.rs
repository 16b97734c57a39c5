//! Payloads as they lie in a record's bytes.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes};

use super::bytes::Reader;
use super::record::{MAX_HISTORY_BYTES, Meta};
use super::{Envelope, Payload, Point, Realm, Version};
use crate::error::{Error, ErrorKind, Result};

const DELETED: u8 = 0;
const INLINE: u8 = 1;
const STORED: u8 = 2;
const BARE: u8 = 3;

/// A history as the bytes that it was read from, or is to be written as.
///
/// Most records are read only to be followed by another one. So nothing is made of the entries before somebody looks at them, and
/// those that are kept are copied as they are.
#[derive(Clone)]
pub(super) struct Packed {
    /// Whose codec and type tag bare values have.
    meta: Arc<Meta>,
    entries: Bytes,
    length: u16,
    unpacked: OnceLock<Vec<(Point, Payload)>>,
}

/// What is seen of a payload without taking it out.
struct Glimpse {
    /// As [`Payload::inline_bytes`].
    inline_bytes: usize,
    stored: Option<(Realm, Version)>,
}

impl Packed {
    /// None yet.
    pub(super) fn empty(meta: Arc<Meta>) -> Self {
        Self { meta, entries: Bytes::new(), length: 0, unpacked: OnceLock::new() }
    }

    /// The next so many entries of a record, which are checked.
    pub(super) fn read(reader: &mut Reader<'_>, whole: &Bytes, meta: Arc<Meta>, length: u16) -> Result<Self> {
        let all = reader.rest();
        let mut newer = None;
        for _ in 0..length {
            let point = reader.u64()?;
            if newer.is_some_and(|newer| newer <= point) {
                return Err(reader.corrupt("its history is out of order"));
            }
            newer = Some(point);
            glimpse(reader, &meta)?;
        }
        let entries = whole.slice_ref(&all[..all.len() - reader.rest().len()]);
        Ok(Self { meta, entries, length, unpacked: OnceLock::new() })
    }

    pub(super) fn len(&self) -> usize {
        self.length.into()
    }

    /// The entries' bytes, if bare values in a record of this meta are what they are here.
    pub(super) fn entries(&self, meta: &Arc<Meta>) -> Option<&Bytes> {
        let same = || (self.meta.codec, &self.meta.type_tag) == (meta.codec, &meta.type_tag);
        (Arc::ptr_eq(&self.meta, meta) || same()).then_some(&self.entries)
    }

    pub(super) fn list(&self) -> &[(Point, Payload)] {
        self.unpacked.get_or_init(|| {
            let mut reader = Reader::new(&self.entries, "record");
            let entry = |_| Ok((Point::new(reader.u64()?), read_payload(&mut reader, &self.entries, &self.meta)?));
            let entries: Result<_> = (0..self.length).map(entry).collect();
            entries.expect("the entries were checked when they were read")
        })
    }

    /// The history with one more in front, of a record with this meta, cut to `limit` and [`MAX_HISTORY_BYTES`]; and what it no
    /// longer holds in stores. `None`: the payload has no bytes, or the type is another one.
    pub(super) fn with(
        &self,
        point: Point,
        payload: &Payload,
        meta: &Arc<Meta>,
        limit: usize,
    ) -> Option<(Self, Vec<(Realm, Version)>)> {
        let earlier = self.entries(meta)?;
        let mut entries = Vec::with_capacity(8 + payload_size(payload) + earlier.len());
        entries.put_u64(point.number());
        put_entry(&mut entries, payload, meta).ok()?;
        let (mut length, mut bytes, mut cut) = (0, payload.inline_bytes(), 0);
        let mut trimmed = Vec::new();
        if limit == 0 {
            entries.clear();
            trimmed.extend(payload.stored());
        } else {
            length = 1;
        }
        let mut reader = Reader::new(earlier, "record");
        let mut full = false;
        for _ in 0..self.length {
            let seen = reader.u64().and_then(|_| glimpse(&mut reader, meta));
            let Glimpse { inline_bytes, stored } = seen.expect("the entries were checked when they were read");
            bytes += inline_bytes;
            // Once one is left out all older ones are: a gap would show a wrong value at a point inside it.
            full = full || usize::from(length) == limit || bytes > MAX_HISTORY_BYTES;
            if full {
                trimmed.extend(stored);
            } else {
                length += 1;
                cut = earlier.len() - reader.rest().len();
            }
        }
        entries.put_slice(&earlier[..cut]);
        let packed = Self { meta: Arc::clone(meta), entries: entries.into(), length, unpacked: OnceLock::new() };
        Some((packed, trimmed))
    }
}

/// How many bytes [`put_payload`] writes.
pub(super) fn payload_size(payload: &Payload) -> usize {
    match payload {
        Payload::Inline(bytes) => 5 + bytes.len(),
        Payload::Stored { .. } => 17 + Version::ENCODED_BYTES,
        Payload::Shared(_) | Payload::Deleted => 1,
    }
}

/// Writes a payload; an inline value without its envelope, if the record's meta says all that the envelope does.
fn put_entry(out: &mut Vec<u8>, payload: &Payload, meta: &Meta) -> Result<()> {
    let Payload::Inline(bytes) = payload else { return put_payload(out, payload) };
    let Some(value) = Envelope::value_of(bytes, meta.codec, &meta.type_tag) else { return put_payload(out, payload) };
    out.put_u8(BARE);
    put_long(out, value)
}

pub(super) fn put_payload(out: &mut Vec<u8>, payload: &Payload) -> Result<()> {
    match payload {
        Payload::Deleted => out.put_u8(DELETED),
        Payload::Inline(bytes) => {
            out.put_u8(INLINE);
            put_long(out, bytes)?;
        }
        Payload::Stored { realm, version } => {
            out.put_u8(STORED);
            out.put_u128(realm.number());
            out.put_slice(&version.encode());
        }
        Payload::Shared(_) => {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "a value with the in-process codec can be kept in the memory of this process only",
            ));
        }
    }
    Ok(())
}

fn put_long(out: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len())
        .map_err(|_| Error::new(ErrorKind::TooLarge, "an inline value has less than 4 GiB"))?;
    out.put_u32(length);
    out.put_slice(bytes);
    Ok(())
}

pub(super) fn read_payload(reader: &mut Reader<'_>, whole: &Bytes, meta: &Meta) -> Result<Payload> {
    match reader.u8()? {
        DELETED => Ok(Payload::Deleted),
        INLINE => Ok(Payload::Inline(reader.long_bytes(whole)?)),
        STORED => Ok(Payload::Stored {
            realm: Realm::new(u128::from_be_bytes(reader.array()?)),
            version: Version::read(reader)?,
        }),
        BARE => Ok(Payload::Inline(Envelope::seal(meta.codec, &meta.type_tag, reader.long()?)?)),
        _ => Err(reader.corrupt("a payload of unknown kind")),
    }
}

fn glimpse(reader: &mut Reader<'_>, meta: &Meta) -> Result<Glimpse> {
    let (inline_bytes, stored) = match reader.u8()? {
        DELETED => (0, None),
        INLINE => (reader.long()?.len(), None),
        STORED => {
            let realm = Realm::new(u128::from_be_bytes(reader.array()?));
            (0, Some((realm, Version::read(reader)?)))
        }
        BARE => (Envelope::size(&meta.type_tag, reader.long()?.len()), None),
        _ => return Err(reader.corrupt("a payload of unknown kind")),
    };
    Ok(Glimpse { inline_bytes, stored })
}
