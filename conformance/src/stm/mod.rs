//! Group `stm`: what transactions promise, over any coordinator and store.

pub(crate) mod basics;
pub(crate) mod bench;
pub(crate) mod cancel;
pub(crate) mod combining;
pub(crate) mod commute;
pub(crate) mod contention;
pub(crate) mod errors;
pub(crate) mod floor;
pub(crate) mod hooks;
pub(crate) mod isolation;
pub(crate) mod limits;
pub(crate) mod lost_replies;
pub(crate) mod merging;
pub(crate) mod moments;
pub(crate) mod nesting;
pub(crate) mod opening;
pub(crate) mod queues;
pub(crate) mod refusals;
pub(crate) mod requests;
pub(crate) mod reservations;
pub(crate) mod rig;
pub(crate) mod rig_store;
pub(crate) mod stores;
pub(crate) mod times;
pub(crate) mod values;
pub(crate) mod waiting;
