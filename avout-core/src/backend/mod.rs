//! The extension traits, which a backend implements.
//!
//! There are two roles, and a backend may play both. A [`Store`] holds values; a [`Coordinator`] orders commits. Both
//! take and give bytes (or, in the process, shared values) and know no types, codecs or closures. `docs/backends.md`
//! walks through writing a backend, and the crate `avout-conformance` tests it.

mod bells;
mod clock;
mod connection;
mod coordinator;
pub mod history;
mod opening;
pub(crate) mod page;
mod polling;
pub(crate) mod readonly;
mod sessions;
mod store;
pub mod tasks;
pub mod time;
mod url;
mod watch;

pub use bells::{Bell, Bells};
pub use connection::{Connection, Up};
pub use coordinator::{Coordinator, CoordinatorCapabilities};
pub use history::LostCommits;
pub use opening::open_patiently;
pub use page::Page;
pub use polling::Polling;
pub use sessions::Sessions;
pub use store::{CasOutcome, Kind, StateContainer, Store, StoreCapabilities, VersionedStateContainer};
pub use url::{LONGEST_TIME, UrlParts, UrlReader};
pub use watch::{Wake, Watcher};

use std::sync::Arc;

/// A coordinator and a store that belong together, as a backend opens them.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<dyn Coordinator>,
    /// Holds atoms, and the values that are too large for the coordinator.
    pub store: Arc<dyn Store>,
}

impl std::fmt::Debug for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").field("realm", &self.store.realm()).finish_non_exhaustive()
    }
}
