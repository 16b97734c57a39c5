//! Shared state for many processes with the ease of in-memory state.
//!
//! A [`Ref`] is a named, typed, durable cell. A transaction, [`Stm::dosync`], reads and writes any number of refs, in any
//! mix of stores, atomically. An [`Atom`] is a single cell changed by compare-and-set. What happens when processes race, die
//! or lose a reply is the library's business; [`docs/guarantees.md`] says exactly what it promises.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> avout::Result<()> {
//! let stm = avout::connect("mem:").await?; // or sqlite:hello.db
//! let count = stm.create_or_open_ref("/count", 0_i64).await?;
//! let log = stm.create_or_open_ref("/log", Vec::<i64>::new()).await?;
//!
//! stm.dosync(async |tx| {
//!     let n = tx.alter(&count, |n| n + 1).await?;
//!     tx.alter(&log, |mut log| { log.push(n); log }).await
//! }).await?;
//! # assert_eq!(log.get().await?, [1]);
//! # Ok(()) }
//! ```
//!
//! # Where to go from here
//! - [`Stm`] makes refs and atoms and runs transactions; its page shows avout in a service.
//! - [`Tx`] is what a transaction's body can do: `get`, `set`, `alter`, `commute`, `ensure`, `retry`, `or_else`.
//! - [`Lock`] and its likes, [`RwLock`], [`Condition`], [`Semaphore`], [`Election`], [`Barrier`], [`Latch`], [`Queue`], [`Counter`] and
//!   [`Once`], are for what a transaction is not; [`docs/coordination.md`] tells which is for what.
//! - [`connect`] lists the URLs, and [`ErrorKind`] what can go wrong and what to do then.
//! - The crate `avout-core` has the two traits that a backend of your own implements, and `avout-conformance` tests it.
//!
//! # Features
//! `local` and `sql` (SQLite) are on by default; `zk` is ZooKeeper, `redis` is Redis, `mongo` is MongoDB.
//!
//! [`docs/coordination.md`]: https://github.com/avout/avout/blob/main/docs/coordination.md
//! [`docs/guarantees.md`]: https://github.com/avout/avout/blob/main/docs/guarantees.md

mod connect;

pub use avout_core::*;
pub use connect::{connect, open, open_within};

#[cfg(feature = "local")]
pub use avout_local as local;
#[cfg(feature = "mongo")]
pub use avout_mongo as mongo;
#[cfg(feature = "redis")]
pub use avout_redis as redis;
#[cfg(feature = "sql")]
pub use avout_sql as sql;
#[cfg(feature = "zk")]
pub use avout_zk as zk;

/// What most programs use.
pub mod prelude {
    pub use crate::{Atom, Change, ErrorKind, Isolation, Ref, Stm, Tx, connect};
}
