//! Locks and the like, on any coordinator. Each step of them is a transaction over records under reserved keys, so
//! what transactions promise holds for them: a step takes effect as one, and lost replies are found out.
//!
//! `rules` decides, `grant_queue` is the records, `claim` a request from its beginning to its end, `session_manager` what a client has in common for all
//! of them, and `session` who is alive. Of queues `ring` decides, `records` is the records, and `receive` a request for a value. See `docs/protocol.md#sessions-and-locks`.

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
