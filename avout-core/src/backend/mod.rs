//! The extension traits: what a backend implements.
//!
//! There are two roles, and a backend may play both. A [`Store`] holds values; a [`Coordinator`]
//! orders commits. Both take and give bytes (or, in the process, shared values) and know no types, no codecs and
//! no closures. `docs/backends.md` walks through writing one, and the crate `avout-conformance` tests it.

mod coordinator;
mod store;
mod watch;

pub use coordinator::{Coordinator, CoordinatorCapabilities};
pub use store::{CasOutcome, Kind, StateContainer, Store, StoreCapabilities, VersionedStateContainer};
pub use watch::{Wake, Watcher};
