//! How a batch may end.

use avout_core::Error;

use super::work::Job;
use crate::schema::clock::Clock;
use crate::watch::hub::Change;

/// How a batch ended that was not committed.
pub(super) enum Failure {
    /// It did not take effect and never will. With `each`, one of the requests may be the cause.
    Never { error: Error, each: bool },
    /// Nobody can tell now about the batch of this number.
    Unknown { error: Error, number: i64 },
}

/// How a COMMIT ended that failed.
pub(super) enum Ended {
    Known(Failure),
    /// It is to be found out.
    Open {
        error: Error,
        number: i64,
        changes: Vec<Change>,
    },
}

/// What a transaction holds that is to be committed.
pub(super) struct Applied {
    pub(super) changes: Vec<Change>,
    /// What its connection says of commits by others; `None` if it was not asked.
    pub(super) others: Option<i64>,
    /// The clock before, and after.
    pub(super) began: Clock,
    pub(super) ended: Clock,
    /// The number of the batch; `None` if nothing took a point.
    pub(super) number: Option<i64>,
}

/// A COMMIT that failed on the thread of its caller.
pub(super) struct Unsettled {
    pub(super) job: Box<dyn Job>,
    pub(super) error: Error,
    pub(super) number: i64,
    pub(super) changes: Vec<Change>,
}
