//! The typed handles. Types, codecs and closures end here: the engine below takes shared values and bytes.

mod atom;
mod builder;
mod change;
mod codec;
mod coder;
mod events;
mod item;
mod list;
mod msgpack;
mod own;
mod ping;
mod reference;
mod refs;
mod rust_types;
mod setup;
mod snapshot;
mod stage;
mod stm;
mod tag;
mod transaction;
mod tree;
mod tx;
mod validate;
mod watches;

pub use atom::Atom;
pub use builder::{AsStore, AtomBuilder, RefBuilder};
pub use change::{Change, Changes};
pub use codec::{Codec, InProcess, Json, MessagePack};
pub use events::{Event, Events};
pub(crate) use item::Item;
pub(crate) use own::Own;
pub use reference::{Past, Ref};
pub use refs::Refs;
pub use snapshot::Snapshot;
pub(crate) use stm::Companion;
pub use stm::{Stm, StmBuilder};
pub use transaction::{Body, Transaction};
pub use tx::Tx;
pub use validate::Verdict;

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Shared;

/// A type that refs and atoms can hold: any that can be cloned and shared among threads.
///
/// How it is stored is up to the [`Codec`]; with the default one it must also be serde's `Serialize` and
/// `DeserializeOwned`.
pub trait Value: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Value for T {}

/// The value of a type that was checked when the value was decoded.
fn typed<T: Value>(value: Shared) -> Result<Arc<T>> {
    value.downcast().map_err(|_| {
        let own = std::any::type_name::<T>();
        let message =
            format!("the value here is of another Rust type than {own}, with which its ref or atom was opened");
        Error::new(ErrorKind::Mismatch, message)
    })
}

fn cloned<T: Value>(value: Shared) -> Result<T> {
    match value.downcast_ref::<T>() {
        // Most often somebody else has it too. Whether one can have it to oneself is not asked then: that would be a write.
        Some(shared) if Arc::strong_count(&value) > 1 => Ok(shared.clone()),
        _ => typed(value).map(Arc::unwrap_or_clone),
    }
}
