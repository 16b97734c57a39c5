//! What lies where in a namespace, and in which form.

pub(crate) mod cell;
mod names;

pub(crate) use cell::{CLOCK, COUNT_BITS, Clock, WATCHED};
pub(crate) use names::{Names, atom_field, mark, values_member};
