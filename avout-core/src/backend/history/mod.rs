//! A client's knowledge of the history of its namespace, for backends whose store may lose commits that it has
//! acknowledged.
//!
//! A failover, a restart or a restored older copy may lose the last commits. So the store's namespace is divided into
//! [`Era`]s: a client that meets a store whose history it cannot prove to continue begins a new era, and notes in the
//! store where the one before ended. A client keeps in its [`History`] its era and the latest point that it has seen.
//! From the two follows whether anything that it has seen is lost, and it reports that to its [`Losses`]. The engine
//! tells users.
//!
//! `docs/backends.md` tells what a backend has to do for it.

mod era;
mod losses;

pub use era::{Entered, Era, History, Known, Observed, Survived};
pub use losses::{Losses, LostCommits};
