//! The core of avout: the transaction engine over any coordinator and store.
//!
//! Applications use the crate `avout`, which adds the backends. This crate is for the authors of
//! backends: the traits in [`backend`], and the plain data of [`protocol`] that they take and give.
//!
//! From a call to its effect there are three layers, and imports go one way: the typed handles ([`Stm`], [`Ref`],
//! [`Atom`], [`Tx`]), the engine, which knows no types, and the protocol, which decides and never waits. Locks and the like
//! ([`Lock`]) stand above the handles: each of their steps is a transaction.

pub mod backend;
mod coordination;
mod engine;
mod error;
mod handles;
pub mod protocol;

pub use backend::{Coordinator, LostCommits, Store};
pub use coordination::*;
pub use engine::{Config, Isolation, Role, Skipped, Stats, SweepReport};
pub use error::{Error, ErrorKind, Result};
pub use handles::*;
pub use protocol::{Key, Payload, Point, Realm, Receipt, Resolution, Revision, Version};
