//! MessagePack as avout writes it: what `rmp-serde` writes with named fields, and extension types for what MessagePack
//! itself cannot tell apart or has no cheap form for.
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
mod only_u8;
mod seq;
mod ser;

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Serialize, de::Error as _};

pub(super) use bytes::bytes_of;
use bytes::take_bytes;

/// How deep a value may be nested: reading recurses, and input that is not trusted must not be able to exhaust the
/// stack.
pub(super) const MAX_DEPTH: usize = 64;

/// How many `Some` and newtypes may lie around each other. They take no bytes, so they are no levels of the depth.
const MAX_WRAPPERS: usize = 256;

/// The extension types.
const SOME: i8 = 1;
const U8_SEQUENCE: i8 = 2;
const U128: i8 = 3;
const I128: i8 = 4;

/// What is wrong with a value or with bytes.
#[derive(Debug)]
pub(super) struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl serde::ser::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl serde::de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl From<rmp::encode::ValueWriteError> for Error {
    fn from(error: rmp::encode::ValueWriteError) -> Self {
        Self(error.to_string())
    }
}

fn too_deep() -> Error {
    Error(format!("the value is nested more than {MAX_DEPTH} levels deep"))
}

/// The value's bytes. `readable`: as it describes itself to formats that are text.
pub(super) fn to_vec<T: Serialize + ?Sized>(value: &T, readable: bool) -> Result<Vec<u8>, Error> {
    let mut serializer = ser::Serializer::new(readable);
    serializer.put(value)?;
    Ok(serializer.out)
}

/// What was read.
pub(super) struct Decoded<T> {
    pub(super) value: T,
    /// Some of it was read as what the bytes say that it is, so that it may be of another type.
    pub(super) guessed: bool,
    pub(super) readable: bool,
}

/// The value of all of these bytes, written one way or the other.
pub(super) fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<Decoded<T>, Error> {
    read(bytes, false).or_else(|error| read(bytes, true).map_err(|_| error))
}

fn read<T: DeserializeOwned>(bytes: &[u8], readable: bool) -> Result<Decoded<T>, Error> {
    let mut deserializer = de::Deserializer::new(bytes, readable);
    let value = deserializer.take()?;
    match deserializer.is_at_end() {
        true => Ok(Decoded { value, guessed: deserializer.guessed, readable }),
        false => Err(Error::custom("there are bytes behind the value's end")),
    }
}
