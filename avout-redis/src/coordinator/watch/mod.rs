//! Who watches what, and the connection that is told of changes.

mod ear;
mod hub;
mod listener;
mod mark;
mod watched;

pub(crate) use hub::Hub;
