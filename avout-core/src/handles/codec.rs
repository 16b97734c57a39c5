use std::error::Error as StdError;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Value;
use crate::engine::Coder;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{CodecId, Envelope, Shared};

/// How deep a value may be nested. Deeper ones are refused both ways: decoding recurses, and input that is not
/// trusted must not be able to exhaust the stack.
const MAX_DEPTH: usize = 96;

type Cause = Box<dyn StdError + Send + Sync>;

/// Turns values of `T` into bytes and back.
///
/// # Contract
/// `decode(encode(v))` is equal to `v`. Bytes are those of this codec and of a type with the same tag, whole
/// and unchanged: the envelope around them has been checked. They may still be of an older or newer
/// form of the type, and a `decode` that cannot read them gives an error and does not panic.
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

impl<T: Serialize + DeserializeOwned> Codec<T> for MessagePack {
    fn id(&self) -> CodecId {
        CodecId::MESSAGE_PACK
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause> {
        let mut bytes = Vec::with_capacity(64);
        let mut serializer = rmp_serde::Serializer::new(&mut bytes).with_struct_map();
        serializer.unstable_set_max_depth(MAX_DEPTH);
        value.serialize(&mut serializer)?;
        Ok(bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Cause> {
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
        deserializer.set_max_depth(MAX_DEPTH);
        let value = T::deserialize(&mut deserializer)?;
        if deserializer.get_ref().is_empty() { Ok(value) } else { Err("there are bytes behind the value's end".into()) }
    }
}

/// JSON, for values that other programs read. Maps need keys that JSON can hold, and floating-point numbers that are not
/// finite cannot be stored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn id(&self) -> CodecId {
        CodecId::JSON
    }

    fn encode(&self, value: &T) -> Result<Vec<u8>, Cause> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode(&self, bytes: &[u8]) -> Result<T, Cause> {
        Ok(serde_json::from_slice(bytes)?)
    }
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

impl<T, C> TypedCoder<T, C> {
    pub(super) fn new(codec: C, type_tag: Box<str>) -> Self {
        Self { codec, type_tag, types: PhantomData }
    }

    fn other_type(&self, found: &str) -> Error {
        let message = format!("made with type {found}, opened with type {}: open it as it was made", self.type_tag);
        Error::new(ErrorKind::Mismatch, message)
    }
}

impl<T: Value, C: Codec<T>> Coder for TypedCoder<T, C> {
    fn encode(&self, value: &Shared) -> Result<Bytes> {
        let value: &T = value.downcast_ref().ok_or_else(|| self.other_type("another"))?;
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
        if value.is::<T>() { Ok(()) } else { Err(self.other_type("another")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Deserialize;

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
            assert_eq!(MessagePack.decode(&MessagePack.encode(&nested(20)).expect("shallow")).ok(), Some(nested(20)));
            assert!(MessagePack.encode(&nested(5000)).is_err());
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
