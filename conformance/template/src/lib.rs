//! A backend of avout that is not written yet: every method answers with an error that names it.
//!
//! To write it, go through the laws in the order in which they can be kept, each group with
//! `cargo test --test conformance group::`:
//!
//! 1. `versioned_state_container`: values of refs, in `store.rs`.
//! 2. `state_container`: atoms, beside them.
//! 3. `coordinator`: reads, commits and watches, in `coordinator.rs`.
//! 4. `stm`, `watch`, `lock`: what the engine makes of the two. They hold when the others do.
//! 5. The hooks of the fixture, in `tests/support/mod.rs`: without them the laws about lost replies, stalled servers and
//!    wiped namespaces are skipped.
//!
//! A backend of one role leaves the other one's file out. The contracts are told by
//! [`avout_core::backend`], and `docs/backends.md` of avout's repository goes through them.

mod coordinator;
mod not_written;
mod store;

pub use coordinator::Coordinator;
pub use store::Store;

use std::sync::Arc;

use avout_core::Result;
use avout_core::backend::Backend;
use avout_core::protocol::Realm;

/// Opens a namespace, which is made if it is not there.
///
/// # Errors
/// Say here what can be wrong with the name, and what the store may refuse.
pub async fn open(namespace: &str) -> Result<Backend> {
    let _ = namespace;
    // Drawn when the namespace is made, kept in it, and read whenever it is opened: two clients of one namespace have one realm.
    let realm = Realm::random();
    Ok(Backend { coordinator: Arc::new(Coordinator::new(realm)), store: Arc::new(Store::new(realm)) })
}
