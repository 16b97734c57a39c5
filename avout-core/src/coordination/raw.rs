use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Item, Value};
use crate::protocol::{CodecId, Envelope};

/// A value of a [`Queue`](crate::Queue) in its stored form, for values that cannot be decoded.
#[derive(Clone)]
pub struct RawValue {
    number: u64,
    envelope: std::sync::Arc<Envelope>,
}

impl RawValue {
    pub(super) fn new(number: u64, item: &Item) -> Result<Self> {
        Ok(Self { number, envelope: std::sync::Arc::new(Envelope::open(&item.sealed()?)?) })
    }

    /// Its number in the queue.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The name of the type that it was pushed as; `item` if an earlier version did not note it.
    pub fn type_tag(&self) -> &str {
        &self.envelope.type_tag
    }

    /// The codec that its bytes were encoded with.
    pub fn codec(&self) -> CodecId {
        self.envelope.codec
    }

    /// The encoded value.
    pub fn bytes(&self) -> &Bytes {
        &self.envelope.value
    }

    /// The decoded value, if it is of this type.
    ///
    /// # Errors
    /// [`Codec`](ErrorKind::Codec) with an [`Unreadable`] as its source.
    pub fn decode<T: Value + Serialize + DeserializeOwned>(&self) -> Result<T> {
        let decoded = Item::decode(&self.envelope);
        decoded
            .map_err(|cause| Unreadable::with(self.number, self.envelope.type_tag.clone(), Item::tag_of::<T>(), cause))
    }
}

impl fmt::Debug for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("RawValue");
        f.field("number", &self.number).field("type_tag", &self.type_tag()).field("bytes", &self.bytes().len());
        f.finish_non_exhaustive()
    }
}

/// Why a value of a [`Queue`](crate::Queue) could not be read, found in an error by [`Error::downcast_ref`]. Its
/// message is the codec's.
///
/// # Examples
/// ```
/// # use serde::{Deserialize, Serialize};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// use avout_core::Unreadable;
///
/// let texts = stm.queue::<String>("/jobs", 10)?;
/// texts.push("seven".to_string()).await?;
///
/// let numbers = stm.queue::<u64>("/jobs", 10)?;
/// let error = numbers.pop().await.expect_err("it is a text");
/// let unreadable = error.downcast_ref::<Unreadable>().expect("a value that cannot be read");
/// assert_eq!((unreadable.pushed_as(), unreadable.read_as()), ("String", "u64"));
/// assert!(numbers.skip(unreadable.number()).await?);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Unreadable {
    number: u64,
    pushed_as: String,
    read_as: String,
    cause: Box<dyn StdError + Send + Sync>,
}

impl Unreadable {
    pub(super) fn of<T: Serialize + DeserializeOwned>(
        number: u64,
        item: &Item,
        cause: Box<dyn StdError + Send + Sync>,
    ) -> Error {
        let pushed_as = item.sealed().and_then(|bytes| Ok(Envelope::open(&bytes)?.type_tag)).unwrap_or_default();
        Self::with(number, pushed_as, Item::tag_of::<T>(), cause)
    }

    fn with(number: u64, pushed_as: String, read_as: String, cause: Box<dyn StdError + Send + Sync>) -> Error {
        let message = format!("value {number} was pushed as {pushed_as} and cannot be read as {read_as}");
        Error::new(ErrorKind::Codec, message).with_source(Self { number, pushed_as, read_as, cause })
    }

    /// The value's number in the queue, for [`Queue::skip`](crate::Queue::skip).
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The name of the type that it was pushed as; `item` if an earlier version did not note it.
    pub fn pushed_as(&self) -> &str {
        &self.pushed_as
    }

    /// The name of the type that the consumer wanted.
    pub fn read_as(&self) -> &str {
        &self.read_as
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.fmt(f)
    }
}

impl StdError for Unreadable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause.source()
    }
}
