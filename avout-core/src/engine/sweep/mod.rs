//! Sweeping: records and values that nobody can need any more are removed for good. See `docs/protocol.md#sweeping`.
//!
//! `look` finds records to remove, and then `raise` raises the floor: no attempt from before can commit any more. Only
//! then `remove` removes the records, and `values` deletes the values that no record points at. A sweep may stop
//! anywhere, and any number of sweeps may run at the same time.

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
