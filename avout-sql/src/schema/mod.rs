//! What is in the file.

pub(crate) mod clock;
pub(crate) mod tables;
