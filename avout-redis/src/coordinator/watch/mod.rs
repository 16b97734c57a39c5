//! Who watches what, and the connection that is told of changes.

mod ear;
mod hub;
mod listener;
mod mark;

pub(crate) use hub::Hub;
