//! Sweeping: what nobody can need any more is removed for good. See `docs/protocol.md#sweeping`.
//!
//! `look` finds records to remove, and then the floor is raised (`raise`): no attempt from before can commit any more. Only then
//! are the records removed (`remove`), and values deleted that no record points at (`values`). A sweep may stop anywhere, and
//! any number of sweeps may run at the same time.

mod background;
mod found;
mod look;
mod raise;
mod remove;
mod report;
mod round;
mod sessions;
mod values;

pub(crate) use background::sweep_in_background;
pub use report::{Skipped, SweepReport};
