//! How requests reach the servers: sessions, connections, TLS, and the era of the namespace that each connection is in.

mod client;
mod enter;
mod error;
mod link;
mod multi;
mod nodelay;
mod session;
pub(crate) mod tls;

pub(crate) use client::{Client, Ground};
pub(crate) use error::{Right, classify, classify_at, classify_write, closed, eras_change, parent, unexpected};
pub(crate) use link::State;
pub(crate) use multi::{Change, Changes, ERAS, Refused};
