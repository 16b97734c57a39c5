//! What lies where under a namespace's znode, and what tells of the whole.

mod eras;
mod meta;
mod paths;
mod stamp;

pub(crate) use eras::{Began, Eras};
pub(crate) use meta::{Opened, acl_bytes, made_by, parse, text};
pub(crate) use paths::{Folder, Paths, decode};
pub(crate) use stamp::{ANY_VERSION, stamp, stamped, steps};
