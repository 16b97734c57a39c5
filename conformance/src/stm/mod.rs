//! Group `stm`: what transactions promise, over any coordinator and store.

pub(crate) mod basics;
pub(crate) mod bench;
pub(crate) mod cancel;
pub(crate) mod commute;
pub(crate) mod floor;
pub(crate) mod hooks;
pub(crate) mod isolation;
pub(crate) mod limits;
pub(crate) mod lost_replies;
pub(crate) mod moments;
pub(crate) mod nesting;
pub(crate) mod opening;
pub(crate) mod refusals;
pub(crate) mod requests;
pub(crate) mod rig;
pub(crate) mod rig_store;
pub(crate) mod stores;
pub(crate) mod values;
pub(crate) mod waiting;
