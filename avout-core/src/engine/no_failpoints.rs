//! Without the feature `failpoints` nothing happens at the points of a transaction.

#[derive(Clone, Copy)]
pub(crate) enum Failpoint {
    BeforeValueWrite,
    BetweenValueWriteAndCommit,
    BetweenCommitAndCleanUp,
}

#[inline]
pub(crate) async fn reach(_point: Failpoint) {}

#[inline]
pub(crate) fn in_flight<F: Future>(request: F) -> F {
    request
}
