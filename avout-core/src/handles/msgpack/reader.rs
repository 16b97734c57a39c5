use rmp::Marker;
use serde::Deserialize;
use serde::de::DeserializeSeed;

use super::bytes::take_bytes;
use super::format::{Error, I128, MAX_DEPTH, MAX_WRAPPERS, SOME, U8_SEQUENCE, U128, too_deep};

/// Reads a value from MessagePack, of this version or as `rmp-serde` wrote it. A length in the bytes never leads to an
/// allocation.
pub(super) struct Deserializer<'de> {
    pub(super) rest: &'de [u8],
    depth: usize,
    wrappers: usize,
    pub(super) readable: bool,
    /// A value was read by the type in the bytes.
    pub(super) guessed: bool,
}

/// The head of some bytes.
pub(super) enum Head<'de> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    F32(f32),
    F64(f64),
    Text(&'de [u8]),
    Bytes(&'de [u8]),
    Array(u32),
    Map(u32),
    /// A nil in this many `Some`s.
    Some(u8),
    U8s(&'de [u8]),
    U128(u128),
    I128(i128),
}

impl<'de> Deserializer<'de> {
    pub(super) fn new(bytes: &'de [u8], readable: bool) -> Self {
        Self { rest: bytes, depth: 0, wrappers: 0, readable, guessed: false }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// The number of bytes left.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Reads any value: byte strings directly, and everything else through serde.
    #[inline]
    pub(super) fn take<T: Deserialize<'de>>(&mut self) -> Result<T, Error> {
        if matches!(self.rest.first(), Some(0xc7..=0xc9 | 0xd4..=0xd8)) {
            let before = self.rest;
            if let Head::U8s(bytes) = self.head()?
                && let Some(value) = take_bytes(bytes)
            {
                return Ok(value);
            }
            self.rest = before;
        }
        T::deserialize(self)
    }

    fn bytes(&mut self, length: usize) -> Result<&'de [u8], Error> {
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| Error("the value is cut".into()))?;
        self.rest = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or_else(|| Error("the value is cut".into()))?;
        self.rest = rest;
        Ok(*bytes)
    }

    fn length_8(&mut self) -> Result<usize, Error> {
        Ok(u8::from_be_bytes(self.array()?).into())
    }

    fn length_16(&mut self) -> Result<usize, Error> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    fn length_32(&mut self) -> Result<usize, Error> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    pub(super) fn head(&mut self) -> Result<Head<'de>, Error> {
        let signed = |value: i64| match u64::try_from(value) {
            Ok(value) => Head::Unsigned(value),
            Err(_) => Head::Negative(value),
        };
        let [first] = self.array()?;
        Ok(match Marker::from_u8(first) {
            Marker::Null => Head::Nil,
            Marker::False => Head::Bool(false),
            Marker::True => Head::Bool(true),
            Marker::FixPos(value) => Head::Unsigned(value.into()),
            Marker::U8 => Head::Unsigned(u8::from_be_bytes(self.array()?).into()),
            Marker::U16 => Head::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Head::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Head::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::FixNeg(value) => Head::Negative(value.into()),
            Marker::I8 => signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Head::F32(f32::from_be_bytes(self.array()?)),
            Marker::F64 => Head::F64(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(length) => Head::Text(self.bytes(length.into())?),
            Marker::Str8 => self.length_8().and_then(|length| self.bytes(length)).map(Head::Text)?,
            Marker::Str16 => self.length_16().and_then(|length| self.bytes(length)).map(Head::Text)?,
            Marker::Str32 => self.length_32().and_then(|length| self.bytes(length)).map(Head::Text)?,
            Marker::Bin8 => self.length_8().and_then(|length| self.bytes(length)).map(Head::Bytes)?,
            Marker::Bin16 => self.length_16().and_then(|length| self.bytes(length)).map(Head::Bytes)?,
            Marker::Bin32 => self.length_32().and_then(|length| self.bytes(length)).map(Head::Bytes)?,
            Marker::FixArray(length) => Head::Array(length.into()),
            Marker::Array16 => Head::Array(self.length_16()? as u32),
            Marker::Array32 => Head::Array(self.length_32()? as u32),
            Marker::FixMap(length) => Head::Map(length.into()),
            Marker::Map16 => Head::Map(self.length_16()? as u32),
            Marker::Map32 => Head::Map(self.length_32()? as u32),
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => self.length_8().and_then(|length| self.extension(length))?,
            Marker::Ext16 => self.length_16().and_then(|length| self.extension(length))?,
            Marker::Ext32 => self.length_32().and_then(|length| self.extension(length))?,
            Marker::Reserved => return Err(Error("0xc1 begins no value".into())),
        })
    }

    fn extension(&mut self, length: usize) -> Result<Head<'de>, Error> {
        let kind = i8::from_be_bytes(self.array()?);
        let bytes = self.bytes(length)?;
        match (kind, bytes) {
            (U8_SEQUENCE, bytes) => Ok(Head::U8s(bytes)),
            (SOME, [depth]) if (1..=MAX_DEPTH).contains(&usize::from(*depth)) => Ok(Head::Some(*depth)),
            (U128, bytes) if bytes.len() == 16 => Ok(Head::U128(wide(bytes)?)),
            (I128, bytes) if bytes.len() == 16 => Ok(Head::I128(wide(bytes)? as i128)),
            _ => Err(Error(format!("an extension of type {kind} and {length} bytes is unknown here"))),
        }
    }

    /// Skips one value, however deep it is.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        let mut left = 1_u64;
        while left > 0 {
            left -= 1;
            match self.head()? {
                Head::Array(length) => left += u64::from(length),
                Head::Map(length) => left += 2 * u64::from(length),
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn nested<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_deep());
        }
        let read = read(self)?;
        self.depth -= 1;
        Ok(read)
    }

    pub(super) fn wrapped<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.wrappers += 1;
        if self.wrappers > MAX_WRAPPERS {
            return Err(too_deep());
        }
        let read = read(self)?;
        self.wrappers -= 1;
        Ok(read)
    }

    /// A 128-bit integer. Earlier versions wrote all of them as 16 bytes.
    pub(super) fn integer<T: TryFrom<u128> + TryFrom<i128>>(
        &mut self,
        of: impl Fn([u8; 16]) -> T,
    ) -> Result<Option<T>, Error> {
        let before = self.rest;
        let read = match self.head()? {
            Head::Unsigned(value) => u128::from(value).try_into().ok(),
            Head::Negative(value) => i128::from(value).try_into().ok(),
            Head::U128(value) => value.try_into().ok(),
            Head::I128(value) => value.try_into().ok(),
            Head::Bytes(bytes) => bytes.try_into().ok().map(of),
            _ => None,
        };
        if read.is_none() {
            self.rest = before;
        }
        Ok(read)
    }

    pub(super) fn seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    /// Skips the data of a variant, which is nil.
    pub(super) fn take_nil(&mut self) -> Result<(), Error> {
        match self.head()? {
            Head::Nil | Head::Array(0) => Ok(()),
            _ => Err(Error("a variant that has no data has some".into())),
        }
    }
}

fn wide(bytes: &[u8]) -> Result<u128, Error> {
    let bytes = bytes.try_into().map_err(|_| Error("the value is cut".into()))?;
    Ok(u128::from_be_bytes(bytes))
}
