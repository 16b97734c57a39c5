use std::any::TypeId;
use std::error::Error as StdError;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::coder::{Tags, TypedCoder};
use super::{Codec, MessagePack, Value, cloned};
use crate::engine::{Coder, caught};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Envelope, Shared};

/// A value of any type, which can be moved and removed without knowing its type.
#[derive(Clone)]
pub(crate) enum Item {
    /// The value as this process put it.
    Value { value: Shared, seal: fn(&Shared) -> Result<Bytes> },
    /// The encoded value in its envelope.
    Sealed(Bytes),
}

type Cause = Box<dyn StdError + Send + Sync>;

impl Item {
    pub(crate) fn new<T: Value + Serialize + DeserializeOwned>(value: T) -> Self {
        Self::Value { value: Arc::new(value), seal: seal::<T> }
    }

    /// The encoded value in its envelope.
    pub(crate) fn sealed(&self) -> Result<Bytes> {
        match self {
            Self::Value { value, seal } => seal(value),
            Self::Sealed(bytes) => Ok(bytes.clone()),
        }
    }

    /// The value as one of this type, whatever type it was put as.
    pub(crate) fn open<T: Value + Serialize + DeserializeOwned>(&self) -> Result<T, Cause> {
        let open = || match self {
            Self::Value { value, .. } if value.is::<T>() => Ok(cloned(Arc::clone(value))?),
            _ => Self::decode(&Envelope::open(&self.sealed()?)?),
        };
        caught("reading the value", || Ok(open()))?
    }

    /// Decodes the value in an envelope as one of this type.
    pub(crate) fn decode<T: Value + Serialize + DeserializeOwned>(envelope: &Envelope) -> Result<T, Cause> {
        match envelope.codec == Codec::<T>::id(&MessagePack) {
            true => MessagePack.decode(&envelope.value),
            false => Err(format!("it was made with codec {}", envelope.codec.0).into()),
        }
    }

    /// This process's name for a type.
    pub(crate) fn tag_of<T: Serialize + DeserializeOwned>() -> String {
        Codec::<T>::type_tags(&MessagePack).swap_remove(0)
    }
}

fn seal<T: Value + Serialize + DeserializeOwned>(value: &Shared) -> Result<Bytes> {
    TypedCoder::<T, MessagePack>::new(MessagePack, Tags::pinned(&Item::tag_of::<T>()), Vec::new()).encode(value)
}

/// Keeps items in their envelopes.
pub(super) struct ItemCoder;

fn no_item() -> Error {
    Error::new(ErrorKind::Mismatch, "the record holds something else than a queue's value")
}

impl Coder for ItemCoder {
    fn encode(&self, value: &Shared) -> Result<Bytes> {
        value.downcast_ref::<Item>().ok_or_else(no_item)?.sealed()
    }

    fn decode(&self, bytes: &Bytes) -> Result<Shared> {
        // The bytes are checked here, so that no consumer gets damaged ones.
        Envelope::open(bytes)?;
        Ok(Arc::new(Item::Sealed(bytes.clone())))
    }

    fn rust_type(&self) -> TypeId {
        TypeId::of::<Item>()
    }

    fn check_tag(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, value: &Shared) -> Result<Shared> {
        if value.is::<Item>() { Ok(Arc::clone(value)) } else { Err(no_item()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[derive(serde::Deserialize)]
    struct Unlucky;

    impl Clone for Unlucky {
        fn clone(&self) -> Self {
            panic!("a panic of a clone, by plan")
        }
    }

    impl Serialize for Unlucky {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("a panic of an encoder, by plan")
        }
    }

    /// A value that panics when it is read is unreadable, and the task that hands it out does not panic.
    #[test]
    fn a_panic_is_an_error() {
        let item = Item::new(Unlucky);
        let shared = item.clone();
        for told in [item.open::<Unlucky>().map(drop), shared.open::<u8>().map(drop)] {
            let cause = told.expect_err("it panics");
            let error = cause.downcast_ref::<Error>().expect("an error of the library's");
            assert!(error.kind() == ErrorKind::Codec && error.to_string().contains("by plan"), "{error}");
        }
    }
}
