//! Reading and writing the fixed parts of stored formats.

use bytes::{BufMut, Bytes};

use crate::error::{Error, ErrorKind, Result};

/// Reads a stored format from the front; every step is checked against what is left.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(super) fn corrupt(&self, why: &str) -> Error {
        Error::new(ErrorKind::Corrupt, format!("not a {} as it was written: {why}", self.what))
    }

    pub(super) fn slice(&mut self, length: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(length) {
            Some((slice, rest)) => {
                self.rest = rest;
                Ok(slice)
            }
            None => Err(self.corrupt("it ends too early")),
        }
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let slice = self.slice(N)?;
        Ok(slice.try_into().expect("the slice has the length that was asked for"))
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(u8::from_be_bytes(self.array()?))
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    /// A text of at most 255 bytes, behind its length.
    pub(super) fn short_text(&mut self) -> Result<&'a str> {
        let length = self.u8()?.into();
        let bytes = self.slice(length)?;
        std::str::from_utf8(bytes).map_err(|_| self.corrupt("a text in it is not UTF-8"))
    }

    /// Bytes behind their 32-bit length, as a part of `whole` without a copy.
    pub(super) fn long_bytes(&mut self, whole: &Bytes) -> Result<Bytes> {
        let length = self.u32()? as usize;
        Ok(whole.slice_ref(self.slice(length)?))
    }

    /// What [`put_varint`] wrote.
    pub(super) fn varint(&mut self) -> Result<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits << shift;
            if byte < 0x80 {
                // Each number has one form: no zeros in front, and nothing above 64 bits.
                let is_shortest = byte != 0 || shift == 0;
                return match is_shortest && (bits << shift) >> shift == bits {
                    true => Ok(number),
                    false => Err(self.corrupt("a number in it has another form")),
                };
            }
        }
        Err(self.corrupt("a number in it is too long"))
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks the format's version byte.
    pub(super) fn format(&mut self, known: u8) -> Result<()> {
        match self.u8()? {
            found if found == known => Ok(()),
            found => Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "a {} of format {found}, and this library knows format {known}: \
                     it was written by another version of avout, or is foreign",
                    self.what
                ),
            )),
        }
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt("there is more behind its end")) }
    }
}

/// Writes a text of at most 255 bytes behind its length.
pub(super) fn put_short_text(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).expect("the text was checked to be short");
    out.put_u8(length);
    out.put_slice(text.as_bytes());
}

/// A number in seven bits a byte, the lowest first; all bytes but the last have their highest bit set.
pub(super) fn put_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every number comes back from as few bytes as it needs, and from no others.
    #[test]
    fn numbers_have_one_form() {
        let edges = (0..u64::BITS).flat_map(|bit| [(1 << bit) - 1, 1 << bit, (1 << bit) + 1]).chain([u64::MAX]);
        for number in edges {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            let bits = u64::BITS - number.leading_zeros();
            assert_eq!(bytes.len(), bits.div_ceil(7).max(1) as usize, "{number}");
            let mut reader = Reader::new(&bytes, "number");
            assert_eq!(reader.varint().expect("whole"), number);
            reader.end().expect("all was read");
            assert!(Reader::new(&bytes[..bytes.len() - 1], "number").varint().is_err());
            *bytes.last_mut().expect("not empty") |= 0x80;
            bytes.push(0);
            assert!(Reader::new(&bytes, "number").varint().is_err(), "{number} with a zero in front");
        }
        let too_large = [[0xff; 9].as_slice(), &[2]].concat();
        assert!(Reader::new(&too_large, "number").varint().is_err());
        assert!(Reader::new(&[0xff; 11], "number").varint().is_err());
    }
}
