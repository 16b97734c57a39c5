//! Group `watch`: what watches of refs and atoms tell.

pub(crate) mod atoms;
pub(crate) mod changes;
pub(crate) mod named;
