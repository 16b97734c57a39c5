//! What lies where under a namespace's znode, and what tells of the whole.

mod eras;
mod meta;
mod paths;

pub(crate) use eras::{Began, Eras};
pub(crate) use meta::{Opened, made_by, parse, text};
pub(crate) use paths::{Folder, Paths, decode};
