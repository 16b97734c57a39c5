use std::any::TypeId;
use std::error::Error as StdError;
use std::marker::PhantomData;
use std::sync::Arc;

use bytes::Bytes;

use super::{Codec, Value, rust_types, tag};
use crate::engine::Coder;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Envelope, Shared};

/// The codec of one type, as the engine uses it.
pub(super) struct TypedCoder<T, C> {
    codec: C,
    tags: Tags,
    migrations: Vec<Migration<T, C>>,
    types: PhantomData<fn() -> T>,
}

type Cause = Box<dyn StdError + Send + Sync>;

/// The type names in the tags of values.
pub(super) struct Tags {
    /// The name that values are written with.
    pub(super) own: Box<str>,
    /// Names that values may have been written with before.
    pub(super) earlier: Vec<String>,
}

type Decode<T, C> = Box<dyn Fn(&C, &[u8]) -> Result<T, Cause> + Send + Sync>;
type Convert<T> = Box<dyn Fn(&Shared) -> Option<T> + Send + Sync>;

/// Reads values of an earlier type.
pub(super) struct Migration<T, C> {
    tags: Vec<String>,
    decode: Decode<T, C>,
    convert: Convert<T>,
}

impl Tags {
    pub(super) fn pinned(own: &str) -> Self {
        Self { own: own.into(), earlier: Vec::new() }
    }

    fn agree(&self, found: &str) -> bool {
        *self.own == *found || tag::agree(&self.own, found) || agree(&self.earlier, found)
    }
}

fn agree(tags: &[String], found: &str) -> bool {
    tags.iter().any(|own| tag::agree(own, found))
}

impl<T, C> Migration<T, C> {
    pub(super) fn new<Old: Value>(codec: &C, f: impl Fn(Old) -> T + Send + Sync + 'static) -> Self
    where
        C: Codec<Old>,
    {
        let f = Arc::new(f);
        let convert = Arc::clone(&f);
        Self {
            tags: Codec::<Old>::type_tags(codec),
            decode: Box::new(move |codec, bytes| Codec::<Old>::decode(codec, bytes).map(|old| f(old))),
            convert: Box::new(move |value| value.downcast_ref::<Old>().map(|old| convert(old.clone()))),
        }
    }
}

impl<T: 'static, C> TypedCoder<T, C> {
    pub(super) fn new(codec: C, tags: Tags, migrations: Vec<Migration<T, C>>) -> Self {
        rust_types::remember::<T>();
        Self { codec, tags, migrations, types: PhantomData }
    }

    fn other_type(&self, found: &str) -> Error {
        let own = &self.tags.own;
        let message = format!(
            "made with type {found}, opened with type {own}: open it as it was made; if the type was renamed say so with was, if it has \
             another shape now with migrate"
        );
        Error::new(ErrorKind::Mismatch, message)
    }

    fn other_rust_type(&self, found: &Shared) -> Error {
        let (own, found) = (&self.tags.own, rust_types::name_of(found));
        let message = format!(
            "opened with type {own}, and what lies in this process's memory is a value of the Rust type {found}: open it as it was \
             made, or read it as that type with migrate"
        );
        Error::new(ErrorKind::Mismatch, message)
    }
}

impl<T: 'static, C: Codec<T>> TypedCoder<T, C> {
    /// Decodes bytes whose tag was checked. Bytes that are not of this type may be of an earlier one.
    fn read(&self, found: &str, bytes: &[u8]) -> Result<T, Cause> {
        let own = self.tags.agree(found).then(|| self.codec.decode(bytes));
        let failed = match own {
            Some(Ok(value)) => return Ok(value),
            Some(Err(cause)) => Some(cause),
            None => None,
        };
        let earlier = self.migrations.iter().filter(|earlier| failed.is_some() || agree(&earlier.tags, found));
        let mut last = None;
        for migration in earlier {
            match (migration.decode)(&self.codec, bytes) {
                Ok(value) => return Ok(value),
                Err(cause) => last = Some(cause),
            }
        }
        Err(failed.or(last).unwrap_or_else(|| "no type that reads it".into()))
    }
}

impl<T: Value, C: Codec<T>> Coder for TypedCoder<T, C> {
    fn encode(&self, value: &Shared) -> Result<Bytes> {
        let value: &T = value.downcast_ref().ok_or_else(|| self.other_rust_type(value))?;
        let bytes = self.codec.encode(value).map_err(|cause| {
            let message = format!("the value of type {} cannot be encoded", self.tags.own);
            Error::new(ErrorKind::Codec, message).with_source(cause)
        })?;
        Envelope::seal(self.codec.id(), &self.tags.own, &bytes)
    }

    fn decode(&self, bytes: &Bytes) -> Result<Shared> {
        let Envelope { codec, type_tag, value } = Envelope::open(bytes)?;
        self.check_tag(&type_tag)?;
        if codec != self.codec.id() {
            let message =
                format!("made with codec {}, opened with codec {}: open it as it was made", codec.0, self.codec.id().0);
            return Err(Error::new(ErrorKind::Mismatch, message));
        }
        let decoded = self.read(&type_tag, &value).map_err(|cause| {
            let message = match *type_tag == *self.tags.own {
                true => format!("the bytes are not a value of type {type_tag}"),
                false => format!("the bytes of type {type_tag} are not a value of type {}", self.tags.own),
            };
            Error::new(ErrorKind::Codec, message).with_source(cause)
        })?;
        Ok(Arc::new(decoded))
    }

    fn rust_type(&self) -> TypeId {
        TypeId::of::<T>()
    }

    fn check_tag(&self, found: &str) -> Result<()> {
        let agrees = self.tags.agree(found) || self.migrations.iter().any(|earlier| agree(&earlier.tags, found));
        if agrees { Ok(()) } else { Err(self.other_type(found)) }
    }

    fn adopt(&self, value: &Shared) -> Result<Shared> {
        if value.is::<T>() {
            return Ok(Arc::clone(value));
        }
        let converted = self.migrations.iter().find_map(|migration| (migration.convert)(value));
        converted.map(|value| Arc::new(value) as Shared).ok_or_else(|| self.other_rust_type(value))
    }
}
