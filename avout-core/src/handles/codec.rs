use std::error::Error as StdError;
use std::io::Cursor;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::{Value, rust_types};
use crate::engine::Coder;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{CodecId, Envelope, Shared};

/// How deep a value may be nested: decoding recurses, and input that is not trusted must not be able to exhaust the
/// stack.
const MAX_DEPTH: usize = 64;

type Cause = Box<dyn StdError + Send + Sync>;

/// Turns values of `T` into bytes and back.
///
/// # Contract
/// `decode(encode(v))` is equal to `v`. Bytes are those of this codec and of a type with the same tag, whole
/// and unchanged: the envelope around them has been checked. They may still be of an older or newer
/// form of the type, and a `decode` that cannot read them gives an error and does not panic.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot encode and decode `{T}`",
    label = "`{T}`, or a type in it, lacks `#[derive(serde::Serialize, serde::Deserialize)]`",
    note = "if it says `!`, the type was not named: `stm.open_ref::<Account>(\"/account\")`"
)]
pub trait Codec<T>: Send + Sync + 'static {
    /// The number that tells values of this codec from others'. From 128 on for codecs of your own.
    fn id(&self) -> CodecId;

    /// The value's bytes.
    ///
    /// # Errors
    /// Any, and it becomes the source of an [`ErrorKind::Codec`].
    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause>;

    /// The bytes' value.
    ///
    /// # Errors
    /// Any, and it becomes the source of an [`ErrorKind::Codec`].
    fn decode(&self, bytes: &[u8]) -> Result<T, Cause>;
}

/// MessagePack with named fields: the default. Fields can be added with `#[serde(default)]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct MessagePack;

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn id(&self) -> CodecId {
        CodecId::MESSAGE_PACK
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause> {
        let mut bytes = Vec::with_capacity(64);
        value.serialize(&mut rmp_serde::Serializer::new(&mut bytes).with_struct_map())?;
        check_depth(&bytes)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Cause> {
        check_depth(bytes)?;
        let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes));
        let value = T::deserialize(&mut deserializer)?;
        match deserializer.position() == bytes.len() as u64 {
            true => Ok(value),
            false => Err("there are bytes behind the value's end".into()),
        }
    }
}

/// Refuses bytes that are nested too deep, both ways, so that what can be written can be read. `rmp_serde`'s own limit does not
/// count the levels of enums, and its typed decoding of them recurses without end.
fn check_depth(bytes: &[u8]) -> Result<(), Cause> {
    // Each level takes a byte at least.
    if bytes.len() > MAX_DEPTH {
        let mut deserializer = rmp_serde::Deserializer::new(Cursor::new(bytes));
        deserializer.set_max_depth(MAX_DEPTH);
        IgnoredAny::deserialize(&mut deserializer)?;
    }
    Ok(())
}

/// JSON, for values that other programs read. Maps need keys that JSON can hold, and floating-point numbers that are not
/// finite cannot be stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn id(&self) -> CodecId {
        CodecId::JSON
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause> {
        let bytes = serde_json::to_vec(value)?;
        check_json_depth(&bytes)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Cause> {
        check_json_depth(bytes)?;
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// Refuses text that is nested too deep, both ways: `serde_json` has a limit when it reads and none when it writes.
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

/// No bytes at all: for values of any type, in stores that live in this process.
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

/// A codec for one type and tag, as the engine uses it.
pub(super) struct TypedCoder<T, C> {
    codec: C,
    type_tag: Box<str>,
    types: PhantomData<fn() -> T>,
}

impl<T: 'static, C> TypedCoder<T, C> {
    pub(super) fn new(codec: C, type_tag: Box<str>) -> Self {
        rust_types::remember::<T>();
        Self { codec, type_tag, types: PhantomData }
    }

    fn other_type(&self, found: &str) -> Error {
        let message = format!("made with type {found}, opened with type {}: open it as it was made", self.type_tag);
        Error::new(ErrorKind::Mismatch, message)
    }
}

impl<T: Value, C: Codec<T>> Coder for TypedCoder<T, C> {
    fn encode(&self, value: &Shared) -> Result<Bytes> {
        let value: &T = value.downcast_ref().ok_or_else(|| self.other_type(&rust_types::name_of(value)))?;
        let bytes = self
            .codec
            .encode(value)
            .map_err(|cause| Error::new(ErrorKind::Codec, "the value cannot be encoded").with_source(cause))?;
        Envelope::seal(self.codec.id(), &self.type_tag, &bytes)
    }

    fn decode(&self, bytes: &Bytes) -> Result<Shared> {
        let Envelope { codec, type_tag, value } = Envelope::open(bytes)?;
        if *type_tag != *self.type_tag {
            return Err(self.other_type(&type_tag));
        }
        if codec != self.codec.id() {
            let message =
                format!("made with codec {}, opened with codec {}: open it as it was made", codec.0, self.codec.id().0);
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        let decoded = self.codec.decode(&value).map_err(|cause| {
            let message = format!("the bytes are not a value of type {}", self.type_tag);
            Error::new(ErrorKind::Codec, message).with_source(cause)
        })?;
        Ok(Arc::new(decoded))
    }

    fn check(&self, value: &Shared) -> Result<()> {
        if value.is::<T>() { Ok(()) } else { Err(self.other_type(&rust_types::name_of(value))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Nested {
        Leaf,
        Deeper(Box<Nested>),
    }

    fn nested(depth: usize) -> Nested {
        (0..depth).fold(Nested::Leaf, |inner, _| Nested::Deeper(Box::new(inner)))
    }

    /// A value that is nested too deep is refused on a small stack, and does not exhaust it.
    #[test]
    fn refuses_deep_values() {
        let on_small_stack = std::thread::Builder::new().stack_size(512 * 1024).spawn(|| {
            for depth in 0..MAX_DEPTH + 20 {
                match MessagePack.encode(&nested(depth)) {
                    Ok(bytes) => assert_eq!(MessagePack.decode(&bytes).ok(), Some(nested(depth)), "{depth}"),
                    Err(_) => assert!(depth > MAX_DEPTH / 2, "{depth}"),
                }
            }
            for depth in 0..MAX_DEPTH + 20 {
                match MessagePack.encode(&nested(depth)) {
                    Ok(bytes) => assert_eq!(MessagePack.decode(&bytes).ok(), Some(nested(depth)), "{depth}"),
                    Err(_) => assert!(depth > MAX_DEPTH / 2, "{depth}"),
                }
                match Json.encode(&nested(depth)) {
                    Ok(bytes) => assert_eq!(Json.decode(&bytes).ok(), Some(nested(depth)), "{depth}"),
                    Err(_) => assert!(depth > MAX_DEPTH, "{depth}"),
                }
            }
            assert!(MessagePack.encode(&nested(300)).is_err());
            assert!(Json.encode(&nested(300)).is_err());
            let mut deep = vec![0x81, 0xa6];
            deep.extend(b"Deeper");
            let deep = deep.repeat(100_000);
            assert!(Codec::<Nested>::decode(&MessagePack, &deep).is_err());
        });
        on_small_stack.expect("a thread").join().expect("no overflow");
    }

    /// Bytes behind the value's end are refused.
    #[test]
    fn refuses_trailing_bytes() {
        assert!(Codec::<u8>::decode(&MessagePack, &[7]).is_ok());
        assert!(Codec::<u8>::decode(&MessagePack, &[7, 7]).is_err());
        assert!(Codec::<u8>::decode(&Json, b"7 7").is_err());
    }

    proptest! {
        /// Arbitrary bytes give a value or an error, and never a panic.
        #[test]
        fn survives_arbitrary_bytes(bytes: Vec<u8>) {
            let _ = Codec::<Nested>::decode(&MessagePack, &bytes);
            let _ = Codec::<Vec<Option<String>>>::decode(&MessagePack, &bytes);
            let _ = Codec::<std::collections::HashMap<u64, Nested>>::decode(&Json, &bytes);
        }
    }
}
