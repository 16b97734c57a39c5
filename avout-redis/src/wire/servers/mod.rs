//! Where the server is that takes writes, and whether it can be used.

mod cluster;
mod find;
mod sentinel;
mod server;

pub(crate) use find::{Finder, Standing};
pub(crate) use server::{Server, check_settings};
