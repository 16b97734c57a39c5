use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::{Realm, Version};

/// A value shared within the process, of a type that its ref knows.
pub type Shared = Arc<dyn Any + Send + Sync>;

/// A value as a store holds it.
///
/// Stores that live in this process ([`in_process`](crate::backend::StoreCapabilities::in_process)) keep
/// either kind as it is; all others are given `Bytes` only.
#[derive(Clone)]
pub enum State {
    /// An encoded value in its envelope. The store does not look inside.
    Bytes(Bytes),
    /// The value itself.
    Shared(Shared),
}

impl State {
    /// How many bytes it has; 0 for a shared value, whose size nobody knows.
    pub fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(_) => 0,
        }
    }
}

impl fmt::Debug for State {
    /// Shows sizes, never contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "Bytes({} bytes)", bytes.len()),
            Self::Shared(_) => f.write_str("Shared"),
        }
    }
}

/// What a record says of a ref's value.
#[derive(Clone)]
pub enum Payload {
    /// The value, encoded in its envelope.
    Inline(Bytes),
    /// The value itself; only in coordinators that live in this process.
    Shared(Shared),
    /// The value lies in the ref's container in the store of this realm, under this version.
    Stored {
        /// The store.
        realm: Realm,
        /// The value's name in the container.
        version: Version,
    },
    /// The ref was destroyed.
    Deleted,
}

impl Payload {
    /// Where the value lies, if it is in a store.
    pub(super) fn stored(&self) -> Option<(Realm, Version)> {
        match self {
            Self::Stored { realm, version } => Some((*realm, *version)),
            Self::Inline(_) | Self::Shared(_) | Self::Deleted => None,
        }
    }

    /// Whether the two may have been written by one commit.
    pub(crate) fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inline(one), Self::Inline(other)) => one == other,
            (Self::Shared(one), Self::Shared(other)) => Shared::ptr_eq(one, other),
            (Self::Deleted, Self::Deleted) => true,
            _ => self.stored().is_some() && self.stored() == other.stored(),
        }
    }

    /// How many bytes of the value the record itself holds.
    pub fn inline_bytes(&self) -> usize {
        match self {
            Self::Inline(bytes) => bytes.len(),
            Self::Shared(_) | Self::Stored { .. } | Self::Deleted => 0,
        }
    }
}

impl fmt::Debug for Payload {
    /// Shows sizes and pointers, never contents.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Shared(_) => f.write_str("Shared"),
            Self::Stored { realm, version } => write!(f, "Stored({realm}, {version})"),
            Self::Deleted => f.write_str("Deleted"),
        }
    }
}
