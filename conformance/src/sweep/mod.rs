//! Group `sweep`: what a sweep removes, what it leaves, and who is beside it.

pub(crate) mod records;
pub(crate) mod values;
