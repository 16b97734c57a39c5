//! What replicas have confirmed.
//!
//! One task waits for all: it writes something of its own behind what is to be confirmed, with a connection of its own, and has the
//! server wait until replicas have that (`WAIT`). So any number of commits and reads share one round trip, and hold up no request.
//! What was committed up to the clock that the write found is confirmed then.

mod confirm;
mod confirmer;
mod rounds;

pub(crate) use confirmer::Confirmer;
pub(crate) use rounds::confirm_rounds;
