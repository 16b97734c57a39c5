use rmp::encode;
use serde::Serialize;

use super::bytes_of;
use super::format::{Error, MAX_DEPTH, MAX_WRAPPERS, U8_SEQUENCE, too_deep};

/// Writes a value as MessagePack.
pub(super) struct Serializer {
    pub(super) out: Vec<u8>,
    pub(super) readable: bool,
    depth: usize,
    wrappers: usize,
}

impl Serializer {
    pub(super) fn new(readable: bool) -> Self {
        Self { out: Vec::with_capacity(64), readable, depth: 0, wrappers: 0 }
    }

    /// Writes any value: byte strings directly, and everything else through serde.
    pub(super) fn put<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        match bytes_of(value) {
            Some(bytes) => self.put_u8s(bytes),
            None => value.serialize(self),
        }
    }

    /// Writes a sequence of `u8` in its shortest form.
    pub(super) fn put_u8s(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if is_short(bytes) {
            encode::write_array_len(&mut self.out, bytes.len() as u32)?;
        } else {
            encode::write_ext_meta(&mut self.out, length(bytes.len())?, U8_SEQUENCE)?;
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn enter(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(too_deep()) } else { Ok(()) }
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Writes the content of a `Some` or a newtype.
    pub(super) fn put_inner<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.wrappers += 1;
        if self.wrappers > MAX_WRAPPERS {
            return Err(too_deep());
        }
        self.put(value)?;
        self.wrappers -= 1;
        Ok(())
    }

    /// Writes the name of a variant, and that one value follows.
    pub(super) fn put_variant(&mut self, variant: &str) -> Result<(), Error> {
        encode::write_map_len(&mut self.out, 1)?;
        Ok(encode::write_str(&mut self.out, variant)?)
    }

    pub(super) fn put_wide(&mut self, kind: i8, bytes: [u8; 16]) -> Result<(), Error> {
        encode::write_ext_meta(&mut self.out, 16, kind)?;
        self.out.extend_from_slice(&bytes);
        Ok(())
    }
}

/// Whether a sequence of `u8` is shortest as an array of numbers.
pub(super) fn is_short(bytes: &[u8]) -> bool {
    bytes.len() < 16 && bytes.iter().all(|byte| *byte < 128)
}

pub(super) fn length(length: usize) -> Result<u32, Error> {
    u32::try_from(length).map_err(|_| Error("a sequence, map or text has less than 4 Gi elements".to_owned()))
}
