//! The engine: runs transactions over a coordinator and stores. It handles shared values and bytes, and knows
//! no types; the typed handles above it make [`Cell`]s.
//!
//! `run` runs the body again until it commits, `attempt` and `read` are what the body does, `commit` is the way to the
//! coordinator's single atomic commit, and `slots` decides lost replies.

mod attempt;
mod background;
mod bases;
mod cache;
mod cell;
mod client;
mod closing;
mod combine;
mod commit;
mod connections;
mod contention;
mod draft;
mod floor;
mod follow;
mod handover;
mod janitor;
mod job;
mod keymap;
mod losses;
mod merge;
mod merged;
mod merger;
mod nested;
mod options;
mod ping;
mod plan;
mod read;
mod recheck;
mod refuted;
mod request;
mod run;
mod send;
mod settle;
mod slots;
mod stats;
mod sweep;
mod time;
mod tx;
mod values;
mod wait;

pub(crate) use attempt::Action;
pub(crate) use cell::{Cell, Coder, Function, Refusal, Validator, absent, caught, panicked};
pub(crate) use client::Engine;
pub(crate) use closing::{Last, closed};
pub(crate) use combine::{Combiner, Fate, Part};
pub use connections::Role;
pub(crate) use follow::{Followed, Follower};
pub(crate) use losses::{Position, lost_commits, tells_of_lost_commits};
pub(crate) use options::Options;
pub use options::{Config, Isolation};
pub(crate) use read::{Loaded, lost_value};
pub(crate) use run::run;
pub use stats::Stats;
pub(crate) use sweep::sweep_in_background;
pub use sweep::{Skipped, SweepReport};
pub(crate) use time::with_deadline;
pub(crate) use tx::TxInner;
