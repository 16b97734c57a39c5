//! What the coordinator, the store, their containers and watchers of one client share.

mod handle;
pub(crate) mod here;
mod read;
mod shared;

pub(crate) use handle::{Client, told};
pub(crate) use shared::{MAX_BYTES, Shared};
