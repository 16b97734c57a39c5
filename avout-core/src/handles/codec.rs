use std::error::Error as StdError;
use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::msgpack::{self, MAX_DEPTH};
use super::tag;
use super::tree::Tree;
use crate::protocol::CodecId;

/// Turns values of `T` into bytes and back.
///
/// # Contract
/// `decode(encode(v))` is equal to `v`: `encode` refuses a value that would not come back the same. Bytes given to
/// `decode` were written by this codec for a type with one of these tags, whole and unchanged: the envelope around them
/// has been checked. They may still be of an older or newer form of the type; a `decode` that cannot read them returns
/// an error and does not panic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot encode and decode `{T}`",
    label = "`{T}`, or a type in it, lacks `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "if it says `!`, the type was not named: `stm.open_ref::<Account>(\"/account\")`"
)]
pub trait Codec<T>: Send + Sync + 'static {
    /// The number that marks values of this codec. Use 128 and up for codecs of your own.
    fn id(&self) -> CodecId;

    /// Encodes a value.
    ///
    /// # Errors
    /// Any error; it becomes the source of a [`Codec`](crate::ErrorKind::Codec).
    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause>;

    /// Decodes a value.
    ///
    /// # Errors
    /// Any error; it becomes the source of a [`Codec`](crate::ErrorKind::Codec).
    fn decode(&self, bytes: &[u8]) -> Result<T, Cause>;

    /// The names of the type in tags, of at most 255 bytes each. The first is written beside values; values with any of
    /// these names are read. The default is the type's Rust name without modules.
    fn type_tags(&self) -> Vec<String> {
        tag::by_rust_name::<T>()
    }
}

/// MessagePack with named fields: the default. Fields can be added with `#[serde(default)]`.
///
/// Byte strings take one byte for each byte, also in a `Vec<u8>`. Values that MessagePack cannot tell apart, such as
/// `None` and `Some(None)`, are written as an extension. Each value is read back before it is stored, and refused if it
/// does not come back the same: a 128-bit integer in an untagged or internally tagged enum or in a flattened field; a
/// repeated key; a field that is written and not read; a variant of an untagged enum that would come back as an earlier
/// one. Fields with `#[serde(skip)]` come back as their default.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

pub(super) type Cause = Box<dyn StdError + Send + Sync>;

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn id(&self) -> CodecId {
        CodecId::MESSAGE_PACK
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause> {
        let bytes = msgpack::to_vec(value, false)?;
        let Err(cause) = comes_back_from_msgpack(value, &bytes) else {
            return Ok(bytes);
        };
        // Serde's buffers claim to be a text format, so a type with another form for text, such as `IpAddr`, can be
        // read from them in that form.
        let as_text = msgpack::to_vec(value, true).ok();
        as_text.filter(|bytes| comes_back_from_msgpack(value, bytes).is_ok()).ok_or(cause)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Cause> {
        Ok(msgpack::from_slice(bytes)?.value)
    }

    fn type_tags(&self) -> Vec<String> {
        tag::by_serde::<T>(false)
    }
}

/// Refuses a value that differs from the one read back from these bytes.
fn comes_back_from_msgpack<T: Serialize + DeserializeOwned>(value: &T, bytes: &[u8]) -> Result<(), Cause> {
    let back = msgpack::from_slice::<T>(bytes).map_err(unreadable)?;
    // If the type alone decided how to read, equal bytes are equal values.
    if !back.guessed && msgpack::to_vec(&back.value, back.readable)? == bytes {
        return Ok(());
    }
    is_same(value, &back.value, back.readable)
}

fn unreadable(cause: impl Display) -> Cause {
    let message = format!(
        "it could be written, but not read again ({cause}): let Serialize and Deserialize agree, give fields that may be left out a \
         default, and keep this type out of flattened fields and of enums that are untagged or tagged inside"
    );
    message.into()
}

/// Refuses a value that is not equal to this one.
fn is_same<T: Serialize>(value: &T, back: &T, readable: bool) -> Result<(), Cause> {
    match Tree::of(value, readable)?.equals(Tree::of(back, readable)?) {
        true => Ok(()),
        false => Err("it would come back as another value: let Serialize and Deserialize agree, tell the variants of an enum apart by a \
                      tag, and flatten neither an Option nor several maps"
            .into()),
    }
}

/// JSON, for values that other programs read.
///
/// Values that JSON cannot hold are refused: keys that are not text, a number or `bool`; floating-point numbers that
/// are not finite; `Some` around a value that is itself `null`, such as `Some(None)`; and those that [`MessagePack`]
/// refuses.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn id(&self) -> CodecId {
        CodecId::JSON
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause> {
        // First, because this check is the one that minds how deep the value is.
        msgpack::to_vec(value, true)?;
        let bytes = serde_json::to_vec(value)?;
        check_json_depth(&bytes)?;
        let back = Codec::<T>::decode(self, &bytes).map_err(unreadable)?;
        is_same(value, &back, true)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Cause> {
        check_json_depth(bytes)?;
        Ok(serde_json::from_slice(bytes)?)
    }

    fn type_tags(&self) -> Vec<String> {
        tag::by_serde::<T>(true)
    }
}

/// Refuses text that is nested too deep, in both directions: `serde_json` has a limit for reading and none for writing.
fn check_json_depth(text: &[u8]) -> Result<(), Cause> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => depth += 1,
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err("the value is nested too deep".into());
        }
    }
    Ok(())
}

/// No encoding: for values of any type, in stores that live in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl<T> Codec<T> for InProcess {
    fn id(&self) -> CodecId {
        CodecId::IN_PROCESS
    }

    fn encode(&self, _: &T) -> Result<Vec<u8>, Cause> {
        Err("the in-process codec has no bytes; it is for stores in this process".into())
    }

    fn decode(&self, _: &[u8]) -> Result<T, Cause> {
        Err("the in-process codec has no bytes; it is for stores in this process".into())
    }
}

#[cfg(test)]
mod asymmetric;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod tests;
