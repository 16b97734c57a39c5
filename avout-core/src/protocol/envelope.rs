use bytes::{BufMut, Bytes};

use super::bytes::{Reader, put_short_text};
use crate::error::{Error, ErrorKind, Result};

const FORMAT: u8 = 1;

/// Which codec made a value's bytes.
///
/// avout's own codecs have numbers below 128; a codec of an application's own takes one from 128 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodecId(pub u8);

impl CodecId {
    /// Values that never leave the process.
    pub const IN_PROCESS: Self = Self(0);
    /// MessagePack with named fields.
    pub const MESSAGE_PACK: Self = Self(1);
    /// JSON.
    pub const JSON: Self = Self(2);
}

/// What every stored value is wrapped in: format, codec, type tag, length and checksum.
///
/// A value that was cut, changed, lengthened, or written for another type is told from one that is
/// whole before anything decodes it.
///
/// ```text
/// format u8 | codec u8 | tag length u8, tag | value length u32 | value | CRC-32 of all before
/// ```
pub struct Envelope {
    /// The codec that made the value's bytes.
    pub codec: CodecId,
    /// The type that they were made from, as its ref names it.
    pub type_tag: String,
    /// The encoded value.
    pub value: Bytes,
}

impl Envelope {
    /// Wraps an encoded value.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] if it has 4 GiB or more.
    ///
    /// # Panics
    /// If `type_tag` has more than 255 bytes; refs and atoms refuse such tags when they are made.
    pub fn seal(codec: CodecId, type_tag: &str, value: &[u8]) -> Result<Bytes> {
        let length = u32::try_from(value.len())
            .map_err(|_| Error::new(ErrorKind::TooLarge, "an encoded value has less than 4 GiB"))?;
        let mut out = Vec::with_capacity(Self::size(type_tag, value.len()));
        out.put_u8(FORMAT);
        out.put_u8(codec.0);
        put_short_text(&mut out, type_tag);
        out.put_u32(length);
        out.put_slice(value);
        out.put_u32(crc32fast::hash(&out));
        Ok(out.into())
    }

    /// How many bytes the envelope of a value has, with the value.
    pub(super) fn size(type_tag: &str, value: usize) -> usize {
        value + type_tag.len() + 11
    }

    /// The value in an envelope that is whole and has just this codec and type: [`seal`](Self::seal) gives the same bytes again.
    pub(super) fn value_of<'a>(bytes: &'a [u8], codec: CodecId, type_tag: &str) -> Option<&'a [u8]> {
        let (checked, checksum) = bytes.split_last_chunk::<4>()?;
        let tag = type_tag.as_bytes();
        let rest = checked.strip_prefix(&[FORMAT, codec.0, u8::try_from(tag.len()).ok()?])?.strip_prefix(tag)?;
        let (length, value) = rest.split_first_chunk::<4>()?;
        let whole = u32::from_be_bytes(*length) as usize == value.len()
            && u32::from_be_bytes(*checksum) == crc32fast::hash(checked);
        whole.then_some(value)
    }

    /// Opens what [`seal`](Self::seal) made. The value is a part of `bytes`, not a copy.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] says what is wrong with the bytes.
    pub fn open(bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes, "value");
        reader.format(FORMAT)?;
        let codec = CodecId(reader.u8()?);
        let type_tag = reader.short_text()?.to_owned();
        let value = reader.long_bytes(bytes)?;
        let checksum = reader.u32()?;
        reader.end()?;
        if checksum != crc32fast::hash(&bytes[..bytes.len() - 4]) {
            return Err(reader.corrupt("its checksum is wrong"));
        }
        Ok(Self { codec, type_tag, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Arbitrary bytes are refused, and never panic.
        #[test]
        fn refuses_arbitrary_bytes(bytes: Vec<u8>) {
            prop_assert!(Envelope::open(&bytes.into()).is_err());
        }

        /// A value comes back; with any one byte changed, or cut anywhere, it is refused.
        #[test]
        fn comes_back_or_is_refused(value: Vec<u8>, tag in "[a-zA-Z<>]{0,40}", at: prop::sample::Index, flip in 1u8..) {
            let sealed = Envelope::seal(CodecId::JSON, &tag, &value).expect("small");
            let opened = Envelope::open(&sealed).expect("whole");
            prop_assert_eq!(Envelope::value_of(&sealed, CodecId::JSON, &tag), Some(&value[..]));
            prop_assert_eq!(Envelope::value_of(&sealed, CodecId::MESSAGE_PACK, &tag), None);
            prop_assert_eq!(Envelope::value_of(&sealed, CodecId::JSON, &format!("{tag}x")), None);
            prop_assert_eq!((opened.codec, &opened.type_tag, &opened.value[..]), (CodecId::JSON, &tag, &value[..]));
            let mut changed = sealed.to_vec();
            let at = at.index(changed.len());
            changed[at] ^= flip;
            prop_assert_eq!(Envelope::value_of(&changed, CodecId::JSON, &tag), None);
            prop_assert_eq!(Envelope::value_of(&sealed[..at], CodecId::JSON, &tag), None);
            prop_assert!(Envelope::open(&changed.into()).is_err());
            prop_assert!(Envelope::open(&sealed.slice(..at)).is_err());
        }
    }
}
