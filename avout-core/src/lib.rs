//! The core of avout: the transaction engine over any coordinator and store.

#![warn(missing_docs)]

pub mod backend;
mod error;
pub mod protocol;

pub use backend::StoreCapabilities;
pub use error::{Error, ErrorKind, Result};
pub use protocol::{Key, Payload, Point, Receipt, Revision};

/// placeholder
pub struct Stm;
