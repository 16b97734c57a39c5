//! Wrappers around a coordinator or a store that count, lose replies, or die at a chosen call.
//!
//! They are what tests of the engine put between it and a backend. What they do follows a plan or a seed, so that a
//! failure can be repeated.

mod counting;
mod crash;
mod losing;
mod lossy;

pub use counting::{Counting, CountingStore, Counts, StoreCounts};
pub(crate) use crash::native;
pub use crash::{CrashAt, CrashAtStore, CrashPoint, Death, Moment};
pub use losing::{Losing, SessionTable};
pub use lossy::{Loss, LossPlan, LossyReplies};
