//! What goes to servers and comes back.

pub(crate) mod bson;
pub(crate) mod driver;
pub(crate) mod error;
pub(crate) mod request;
