//! Who waits for changes of what: of this client's own and of others'.

pub(crate) mod hub;
pub(crate) mod poller;
mod registration;

pub(crate) use registration::Registration;
