//! Group `lock`: what locks and the like promise, over any coordinator.

pub(crate) mod bench;
pub(crate) mod closing;
pub(crate) mod cost;
pub(crate) mod crowds;
pub(crate) mod ended;
pub(crate) mod liveness;
pub(crate) mod mutex;
pub(crate) mod numbers;
pub(crate) mod others;
pub(crate) mod outage;
pub(crate) mod queue_upkeep;
pub(crate) mod queues;
pub(crate) mod reentry;
pub(crate) mod stalls;
