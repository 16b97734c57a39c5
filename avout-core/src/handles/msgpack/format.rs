//! What reading and writing share: errors, extension types and limits.

use std::fmt;

/// The fault of a value or of bytes.
#[derive(Debug)]
pub(in crate::handles) struct Error(pub(super) String);

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

pub(super) fn too_deep() -> Error {
    Error(format!("the value is nested more than {MAX_DEPTH} levels deep"))
}

/// How deep a value may be nested: reading recurses, and untrusted input must not be able to exhaust the stack.
pub(in crate::handles) const MAX_DEPTH: usize = 64;

/// How many `Some`s and newtypes may be nested. They take no bytes, so they do not count as levels of the depth.
pub(super) const MAX_WRAPPERS: usize = 256;

/// The extension types.
pub(super) const SOME: i8 = 1;
pub(super) const U8_SEQUENCE: i8 = 2;
pub(super) const U128: i8 = 3;
pub(super) const I128: i8 = 4;
