//! Transactions under faults, on simulated time, repeatable from a seed.
//!
//! A *schedule* is one run of a test in a [`World`] of its own: a simulated coordinator and two simulated stores, and clients
//! whose requests are delayed, lost, late and doubled, whose replies are lost, and which are stopped and killed wherever they
//! wait, together with what the library does for them in the background. All of it happens on one thread and takes no real time. The schedule's seed decides everything, also what kind
//! of a coordinator it is: whether its replies are definite, how large a value it takes, and so on.
//!
//! [`simulate`] runs a test of your own under many schedules. A failure prints the seed and the shortest story that still
//! fails; `AVOUT_SEED=17 cargo test the_test` runs that schedule again, and no other. `AVOUT_SCHEDULES` sets how many there are.
//!
//! [`workload`] is avout's own test: random transactions of all kinds, whose [`history`] is checked. Run it with
//! a [`Simulation`] of your own coordinator by [`wrapping`](Simulation::wrap) the simulated one. [`coordination()`] is the same for
//! locks, queues and whatever else there is beside transactions.
//!
//! # Examples
//! Money is moved between accounts by three clients, and none is lost or made.
//! ```
//! use avout_simulate::simulate;
//!
//! simulate(50, |world| async move {
//!     let stm = world.stm();
//!     let accounts = ["/ann", "/bob", "/cy"];
//!     for account in accounts {
//!         stm.create_ref(account, 100_i64).await?;
//!     }
//!     for n in 0..3 {
//!         world.spawn(move |stm| async move {
//!             let (Ok(from), Ok(to)) =
//!                 (stm.open_ref::<i64>(accounts[n]).await, stm.open_ref::<i64>(accounts[(n + 1) % 3]).await)
//!             else {
//!                 return;
//!             };
//!             for _ in 0..3 {
//!                 // It may fail, or its outcome be unknown: the sum must be right all the same.
//!                 let _ = stm
//!                     .dosync(async |tx| {
//!                         tx.alter(&from, |n| n - 10).await?;
//!                         tx.alter(&to, |n| n + 10).await
//!                     })
//!                     .await;
//!             }
//!         });
//!     }
//!     world.finish().await;
//!
//!     let mut sum = 0;
//!     for account in accounts {
//!         sum += stm.open_ref::<i64>(account).await?.get().await?;
//!     }
//!     assert_eq!(sum, 300);
//!     Ok(())
//! });
//! ```

mod ahead;
mod clients;
mod coordination;
mod coordinator;
pub mod history;
mod knobs;
mod link;
mod process;
mod progress;
mod records;
mod run;
mod sessions;
mod shrink;
mod store;
mod values;
mod workload;
mod world;

pub use coordination::{coordination, coordination_of};
pub use run::{Failure, Simulation};
pub use workload::workload;
pub use world::World;

use avout_core::Result;

/// Runs a test under this many schedules, on one thread.
///
/// The test prepares its refs with [`World::stm`], starts clients with [`World::spawn`], waits for them with
/// [`World::finish`], and looks at what became of it.
///
/// # Panics
/// If a schedule fails: the test gives an error or panics, a client does or is stuck. The message has the seed and the story.
pub fn simulate<F, Fut>(schedules: u64, test: F)
where
    F: Fn(World) -> Fut + Send + Sync,
    Fut: Future<Output = Result<()>>,
{
    Simulation::new(schedules).run(test);
}
