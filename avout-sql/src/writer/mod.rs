//! The thread that owns the connection which writes.

mod batch;
mod ended;
mod thread;
mod unsettled;
pub(crate) mod work;

#[cfg(test)]
mod tests;

pub(crate) use batch::Writer;
pub(crate) use thread::{Message, SharedWriter, serve};
