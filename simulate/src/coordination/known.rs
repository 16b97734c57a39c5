//! Promises that were broken when the schedules first looked at them. Those that are `false` are not looked at: they are not kept yet.

/// Values of a queue that are out count for as many as they are, and not for all behind the first of them too.
pub(super) const OUT_COUNTS_ONCE: bool = true;
/// A value comes back at once that was got by a request which was dropped.
pub(super) const DROPPED_COMES_BACK: bool = true;
/// Observers of an election are told nothing of outages.
pub(super) const OUTAGES_UNSEEN: bool = true;
/// A party that was taken for dead before the round was complete has not passed it.
pub(super) const ROUNDS_ARE_EXACT: bool = true;
/// A wait that timed out, and is given up then, hands nothing on.
pub(super) const HANDS_ON_WHAT_IT_HAS: bool = true;
/// A task may ask for what another of its requests is about to let go of.
pub(super) const NO_FALSE_MISUSE: bool = true;
