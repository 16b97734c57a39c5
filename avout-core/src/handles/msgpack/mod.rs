//! MessagePack as avout writes it: the format of `rmp-serde` with named fields, and extension types for values that
//! MessagePack itself cannot tell apart or has no short form for.
//!
//! | extension | its bytes | what it is |
//! | --- | --- | --- |
//! | 1 | a number n | n times `Some` around what is nil by itself |
//! | 2 | the elements | a sequence of `u8`: an element takes a byte |
//! | 3 | 16, big-endian | a `u128` of more than 64 bits |
//! | 4 | 16, big-endian | a negative `i128` of more than 64 bits |

mod bytes;
mod de;
mod elements;
mod format;
mod only_u8;
mod reader;
mod seq;
mod ser;
mod writer;

use serde::de::DeserializeOwned;
use serde::{Serialize, de::Error as _};

pub(super) use bytes::bytes_of;
pub(super) use format::{Error, MAX_DEPTH};

/// Encodes a value. `readable`: the value describes itself as to a text format.
pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T, readable: bool) -> Result<Vec<u8>, Error> {
    let mut serializer = writer::Serializer::new(readable);
    serializer.put(value)?;
    Ok(serializer.out)
}

/// The result of reading.
pub(super) struct Decoded<T> {
    pub(super) value: T,
    /// A part of it was read by the type in the bytes, so it may be of another type.
    pub(super) guessed: bool,
    pub(super) readable: bool,
}

/// Decodes all of these bytes, in either form.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<Decoded<T>, Error> {
    read(bytes, false).or_else(|error| read(bytes, true).map_err(|_| error))
}

fn read<T: DeserializeOwned>(bytes: &[u8], readable: bool) -> Result<Decoded<T>, Error> {
    let mut deserializer = reader::Deserializer::new(bytes, readable);
    let value = deserializer.take()?;
    match deserializer.is_at_end() {
        true => Ok(Decoded { value, guessed: deserializer.guessed, readable }),
        false => Err(Error::custom("there are bytes behind the value's end")),
    }
}
