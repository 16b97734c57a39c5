//! The in-memory backend of avout: store and coordinator in one process.
//!
//! Values are kept as they are, with no encoding, and commits are ordered by a counter. It is the model that the
//! other backends are compared with: it has every capability that memory can have, and no limits.
//!
//! A [`Local`] is one client of a namespace. Its clones are further clients of the same one, and the
//! namespace lives for as long as any of them, or a coordinator or store that they gave, does.
//!
//! # Examples
//! ```
//! use avout_core::Key;
//! use avout_core::backend::Coordinator as _;
//! use avout_local::Local;
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let coordinator = Local::new().coordinator();
//! let snapshot = coordinator.read(&[Key::new("/count")?], None).await?;
//! assert!(snapshot.entries[0].is_none());
//! # Ok::<(), avout_core::Error>(())
//! # }).unwrap();
//! ```

mod coordinator;
mod namespace;
mod open;
mod shards;
mod store;
mod watch;

pub use coordinator::Coordinator;
pub use open::Local;
pub use store::Store;
