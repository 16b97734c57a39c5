//! How requests reach the servers: sessions, connections, TLS, and the era of the namespace that each connection is in.

mod client;
mod enter;
mod error;
mod link;
mod nodelay;
mod session;
pub(crate) mod tls;

pub(crate) use client::{Client, Ground};
pub(crate) use error::{classify, classify_write, closed, unexpected};
pub(crate) use link::State;
