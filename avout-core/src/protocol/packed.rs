//! Payloads as they lie in a record's bytes.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes};

use super::bytes::{Reader, put_varint};
use super::{Envelope, MAX_HISTORY_BYTES, Meta, Payload, Point, Realm, Version};
use crate::error::{Error, ErrorKind, Result};

const DELETED: u64 = 0;
const INLINE: u64 = 1;
const STORED: u64 = 2;
/// A value without its envelope, which says nothing that the record's meta does not say.
const BARE: u64 = 3;

/// A history as the bytes that it was read from, or is to be written as.
///
/// Most records are read only to be followed by another one. So nothing is made of the entries before somebody looks at them, and
/// those that are kept are copied as they are.
#[derive(Clone)]
pub(super) struct Packed {
    /// Whose codec and type tag bare values have.
    meta: Arc<Meta>,
    /// Of each the point and the payload; of the first its point, and of the others by how much it is before that of the one
    /// in front.
    entries: Bytes,
    length: u16,
    unpacked: OnceLock<Vec<(Point, Payload)>>,
}

/// What is seen of a payload without taking it out.
struct Glimpse<'a> {
    kind: u64,
    /// The value, or where it lies.
    bytes: &'a [u8],
}

impl Packed {
    /// None yet.
    pub(super) fn empty(meta: Arc<Meta>) -> Self {
        Self { meta, entries: Bytes::new(), length: 0, unpacked: OnceLock::new() }
    }

    /// These, newest first.
    ///
    /// # Errors
    /// One of them has no bytes, or they are out of order.
    pub(super) fn of<'a>(meta: Arc<Meta>, list: impl Iterator<Item = (Point, &'a Payload)>) -> Result<Self> {
        let (mut entries, mut length, mut newer) = (Vec::new(), 0, None);
        for (point, payload) in list {
            let step = match newer {
                None => point.number(),
                Some(newer) => step(newer, point)
                    .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the history of a record is out of order"))?,
            };
            put_varint(&mut entries, step);
            put_entry(&mut entries, payload, &meta)?;
            newer = Some(point);
            length += 1;
        }
        Ok(Self { meta, entries: entries.into(), length, unpacked: OnceLock::new() })
    }

    /// The next so many entries of a record, which are checked.
    pub(super) fn read(reader: &mut Reader<'_>, whole: &Bytes, meta: Arc<Meta>, length: u16) -> Result<Self> {
        let all = reader.rest();
        let mut points = Points::default();
        for _ in 0..length {
            points.read(reader)?;
            glimpse(reader)?;
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

    pub(super) fn into_entries(self) -> Bytes {
        self.entries
    }

    pub(super) fn list(&self) -> &[(Point, Payload)] {
        self.unpacked.get_or_init(|| {
            let mut reader = Reader::new(&self.entries, "record");
            let mut points = Points::default();
            let entry = |_| Ok((points.read(&mut reader)?, glimpse(&mut reader)?.payload(&self.entries, &self.meta)?));
            let entries: Result<_> = (0..self.length).map(entry).collect();
            entries.expect(CHECKED)
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
        let mut entries = Vec::with_capacity(20 + payload_size(payload) + earlier.len());
        let mut trimmed = Vec::new();
        let mut length = 0;
        if limit == 0 {
            trimmed.extend(payload.stored());
        } else {
            put_varint(&mut entries, point.number());
            put_entry(&mut entries, payload, meta).ok()?;
            length = 1;
        }
        let mut bytes = payload.inline_bytes();
        let mut full = false;
        // The point of the one that was in front till now, and where its payload begins; and where the last one ends that stays.
        let mut second = None;
        let mut end = 0;
        let mut reader = Reader::new(earlier, "record");
        for _ in 0..self.length {
            let number = reader.varint().expect(CHECKED);
            second.get_or_insert((Point::new(number), earlier.len() - reader.rest().len()));
            let seen = glimpse(&mut reader).expect(CHECKED);
            bytes += seen.inline_bytes(meta);
            // Once one is left out all older ones are: a gap would show a wrong value at a point inside it.
            full = full || usize::from(length) == limit || bytes > MAX_HISTORY_BYTES;
            if full {
                trimmed.extend(seen.stored());
            } else {
                length += 1;
                end = earlier.len() - reader.rest().len();
            }
        }
        if let Some((older, begin)) = second.filter(|(_, begin)| *begin < end) {
            put_varint(&mut entries, step(point, older)?);
            entries.put_slice(&earlier[begin..end]);
        }
        let packed = Self { meta: Arc::clone(meta), entries: entries.into(), length, unpacked: OnceLock::new() };
        Some((packed, trimmed))
    }
}

const CHECKED: &str = "the entries were checked when they were read";

/// Reads the points of entries, which fall strictly.
#[derive(Default)]
struct Points(Option<Point>);

impl Points {
    fn read(&mut self, reader: &mut Reader<'_>) -> Result<Point> {
        let number = reader.varint()?;
        let point = match self.0 {
            None => Point::new(number),
            Some(newer) => match newer.number().checked_sub(number) {
                Some(older) if number > 0 => Point::new(older),
                _ => return Err(reader.corrupt("its history is out of order")),
            },
        };
        self.0 = Some(point);
        Ok(point)
    }
}

/// By how much a point is before a newer one. `None`: it is not.
fn step(newer: Point, older: Point) -> Option<u64> {
    newer.number().checked_sub(older.number()).filter(|step| *step > 0)
}

impl<'a> Glimpse<'a> {
    /// Behind a head.
    fn at(reader: &mut Reader<'a>, kind: u64, length: u64) -> Result<Self> {
        let bytes = match kind {
            INLINE | BARE => reader.slice(usize::try_from(length).map_err(|_| reader.corrupt("it ends too early"))?)?,
            STORED if length == 0 => {
                let bytes = reader.slice(POINTER_BYTES)?;
                pointer(&mut Reader::new(bytes, "record"))?;
                bytes
            }
            DELETED if length == 0 => &[],
            _ => return Err(reader.corrupt("a payload of unknown kind")),
        };
        Ok(Self { kind, bytes })
    }

    /// The payload; a bare value gets its envelope back.
    fn payload(self, whole: &Bytes, meta: &Meta) -> Result<Payload> {
        Ok(match self.kind {
            INLINE => Payload::Inline(whole.slice_ref(self.bytes)),
            BARE => Payload::Inline(Envelope::seal(meta.codec, &meta.type_tag, self.bytes)?),
            STORED => {
                let (realm, version) = pointer(&mut Reader::new(self.bytes, "record"))?;
                Payload::Stored { realm, version }
            }
            _ => Payload::Deleted,
        })
    }

    /// As [`Payload::inline_bytes`].
    fn inline_bytes(&self, meta: &Meta) -> usize {
        match self.kind {
            INLINE => self.bytes.len(),
            BARE => Envelope::size(&meta.type_tag, self.bytes.len()),
            _ => 0,
        }
    }

    /// As [`Payload::stored`].
    fn stored(&self) -> Option<(Realm, Version)> {
        (self.kind == STORED).then(|| pointer(&mut Reader::new(self.bytes, "record")).expect(CHECKED))
    }
}

/// How many bytes [`put_payload`] writes.
pub(super) fn payload_size(payload: &Payload) -> usize {
    match payload {
        Payload::Inline(bytes) => 5 + bytes.len(),
        Payload::Stored { .. } => 1 + POINTER_BYTES,
        Payload::Shared(_) | Payload::Deleted => 1,
    }
}

/// A realm and a version.
const POINTER_BYTES: usize = 16 + Version::ENCODED_BYTES;

/// The kind of a payload, and how many bytes of a value it has.
fn head(payload: &Payload) -> Result<(u64, usize)> {
    match payload {
        Payload::Deleted => Ok((DELETED, 0)),
        Payload::Inline(bytes) => Ok((INLINE, bytes.len())),
        Payload::Stored { .. } => Ok((STORED, 0)),
        Payload::Shared(_) => Err(Error::new(
            ErrorKind::Unsupported,
            "a value with the in-process codec can be kept in the memory of this process only",
        )),
    }
}

/// What stands behind the head.
fn put_rest(out: &mut Vec<u8>, payload: &Payload) {
    match payload {
        Payload::Inline(bytes) => out.put_slice(bytes),
        Payload::Stored { realm, version } => {
            out.put_u128(realm.number());
            out.put_slice(&version.encode());
        }
        Payload::Shared(_) | Payload::Deleted => {}
    }
}

/// Writes an earlier payload; an inline value without its envelope, if the record's meta says all that the envelope does.
fn put_entry(out: &mut Vec<u8>, payload: &Payload, meta: &Meta) -> Result<()> {
    if let Payload::Inline(bytes) = payload
        && let Some(value) = Envelope::value_of(bytes, meta.codec, &meta.type_tag)
    {
        put_varint(out, (value.len() as u64) << 2 | BARE);
        out.put_slice(value);
        return Ok(());
    }
    let (kind, length) = head(payload)?;
    put_varint(out, (length as u64) << 2 | kind);
    put_rest(out, payload);
    Ok(())
}

/// Writes the current payload. Its head has a fixed size, so that what a record has beside its value does not depend on that.
pub(super) fn put_payload(out: &mut Vec<u8>, payload: &Payload) -> Result<()> {
    let (kind, length) = head(payload)?;
    out.put_u8(kind as u8);
    if kind == INLINE {
        let length = u32::try_from(length)
            .map_err(|_| Error::new(ErrorKind::TooLarge, "an inline value has less than 4 GiB"))?;
        out.put_u32(length);
    }
    put_rest(out, payload);
    Ok(())
}

/// Reads the current payload.
pub(super) fn read_payload(reader: &mut Reader<'_>, whole: &Bytes, meta: &Meta) -> Result<Payload> {
    let kind = reader.u8()?.into();
    let length = match kind {
        INLINE => reader.u32()?.into(),
        BARE => return Err(reader.corrupt("a payload of unknown kind")),
        _ => 0,
    };
    Glimpse::at(reader, kind, length)?.payload(whole, meta)
}

/// Checks an earlier payload and passes it by.
fn glimpse<'a>(reader: &mut Reader<'a>) -> Result<Glimpse<'a>> {
    let head = reader.varint()?;
    Glimpse::at(reader, head & 3, head >> 2)
}

fn pointer(reader: &mut Reader<'_>) -> Result<(Realm, Version)> {
    let realm = Realm::new(u128::from_be_bytes(reader.array()?));
    Ok((realm, Version::read(reader)?))
}
