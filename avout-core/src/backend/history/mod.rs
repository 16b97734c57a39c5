//! What a client knows of the history of its namespace, for backends whose store may lose commits that it has acknowledged.
//!
//! A failover, a restart or an older copy that is put back may take away the last commits. So the store's namespace is divided
//! into [`Era`]s: whoever meets a store of which it cannot prove that its history goes on begins a new one, and notes in the
//! store where the one before ended. A client keeps in its [`History`] which era it is in and what the latest is that it has
//! seen. From the two follows whether anything is gone that it has seen, and that it reports to its [`Losses`]. The engine tells
//! them to users.
//!
//! `docs/backends.md` tells what a backend has to do for it.

mod era;
mod losses;

pub use era::{Entered, Era, History, Known, Observed, Survived};
pub use losses::{Losses, LostCommits};
