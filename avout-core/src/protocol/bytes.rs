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

    /// Bytes behind their 32-bit length.
    pub(super) fn long(&mut self) -> Result<&'a [u8]> {
        let length = self.u32()? as usize;
        self.slice(length)
    }

    /// Bytes behind their 32-bit length, as a part of `whole` without a copy.
    pub(super) fn long_bytes(&mut self, whole: &Bytes) -> Result<Bytes> {
        Ok(whole.slice_ref(self.long()?))
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Checks the format's version byte.
    pub(super) fn format(&mut self, known: u8) -> Result<()> {
        self.format_from(known, known)
    }

    /// Checks the format's version byte, where earlier ones are known, too.
    pub(super) fn format_from(&mut self, oldest: u8, known: u8) -> Result<()> {
        match self.u8()? {
            found if (oldest..=known).contains(&found) => Ok(()),
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
