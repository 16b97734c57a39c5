//! Coordination primitives, on any coordinator. Each step is a transaction over records under reserved keys, so the promises of
//! transactions hold for it: it takes effect as a whole, and the outcome of a lost reply is found out.
//!
//! | module | what it has |
//! | --- | --- |
//! | `rules` | the rules of the line before a lock, as plain data |
//! | `grant_queue` | the two records of a lock, and the steps on them |
//! | `claim` | a request for a lock, from its beginning to its end |
//! | `session_manager` | the session of a client, and its work in the background |
//! | `session` | whether a client is alive |
//! | `ring` | the rules of a queue of values, as plain data |
//! | `records` | the records of a queue of values |
//! | `receive` | a request for a value |
//!
//! See `docs/protocol.md#sessions-and-locks`.

mod barrier;
mod buckets;
mod claim;
mod condition;
mod counter;
mod delivery;
mod election;
mod grant_queue;
mod guard;
mod holdings;
mod latch;
mod lock;
mod once;
mod queue;
mod raw;
mod receive;
mod records;
mod retention;
mod ring;
mod rules;
mod rw_lock;
mod seats;
mod semaphore;
mod session;
mod session_manager;
mod sights;

pub use barrier::{Barrier, Passed};
pub use condition::Condition;
pub use counter::Counter;
pub use delivery::Delivery;
pub use election::{Election, Leader, Leaders, Leadership};
pub use grant_queue::Status;
pub use guard::Guard;
pub use latch::Latch;
pub use lock::{Lock, LockGuard};
pub use once::Once;
pub use queue::Queue;
pub use raw::{RawValue, Unreadable};
pub use rw_lock::{ReadGuard, RwLock, WriteGuard};
pub use semaphore::{Permit, Semaphore};
