//! The laws that every avout backend keeps, as a test suite for backend authors.
//!
//! A backend crate has one test without the standard harness, which names its [`Fixture`]:
//!
//! ```toml
//! [[test]]
//! name = "conformance"
//! harness = false
//! ```
//! ```no_run
//! # use avout_conformance::{Backend, Fixture};
//! # struct MyFixture;
//! # #[async_trait::async_trait]
//! # impl Fixture for MyFixture {
//! #     fn name(&self) -> &str { "mine" }
//! #     async fn open(&self, _: &str) -> avout_core::Result<Backend> { Ok(Backend::default()) }
//! # }
//! fn main() {
//!     avout_conformance::run(MyFixture)
//! }
//! ```
//!
//! Each law is then a test of its own, named `group::law`. What the backend's capabilities say that it cannot do is
//! ignored with the reason. So is everything if its server is not there, unless `AVOUT_TEST_REQUIRE`, a
//! list of fixtures' names with commas, names it: then that is a failure. What laws draw by chance follows
//! `AVOUT_TEST_SEED`, which a failure prints.
//!
//! What a backend does when something goes wrong is most of its work. The laws about it need the fixture's hooks:
//! [`cut_connections`](Fixture::cut_connections), [`lose_reply`](Fixture::lose_reply), [`stall`](Fixture::stall) and
//! [`wipe`](Fixture::wipe). Without them those laws are ignored with the reason. `conformance/template` in avout's repository is a
//! crate to begin a backend with.
//!
//! A law is an `async fn` in the file of its group, named in that file's `laws!` table, with a sentence that states it. The
//! files are listed in `registry.rs`. [`fault`] has wrappers that lose replies, crash and count, for tests of the engine.
//!
//! Beside the laws there are [`history`], which checks what clients saw of transactions, and [`simulate`], which
//! runs transactions, avout's or yours, under faults on simulated time, repeatable from a seed. With the feature `servers`, `servers`
//! starts real servers for tests.

mod connections;
mod coordinator;
pub mod fault;
mod fixture;
mod law;
mod lock;
mod log;
mod losses;
mod mixed;
mod noise;
mod ping;
mod readonly;
mod registry;
mod runner;
mod runtimes;
mod sample;
#[cfg(all(unix, feature = "servers"))]
pub mod servers;
mod sessions;
mod state_container;
mod stm;
mod story;
mod sweep;
mod versioned_state_container;
mod watch;

pub use avout_simulate as simulate;
pub use avout_simulate::history;
pub use fixture::{Backend, Fixture};
pub use law::Law;
pub use mixed::Mixed;
pub use registry::laws;
pub use runner::{Verdict, run, run_all, run_group, run_law};
