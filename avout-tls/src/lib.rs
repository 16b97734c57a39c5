//! How the backends of avout speak TLS: a building block for their authors.
//!
//! [`Tls`] says which servers are trusted and what the client shows of itself, by a builder or by the options of a URL, which have the
//! same names on each backend. [`Tls::config`] reads the files and gives what [rustls] takes. [`Refused`] tells a user why no
//! connection comes about where trying again is of no use.
//!
//! The cryptography is [`provider`]'s, which is handed over each time: the process may install another one for itself, or none. It is
//! AWS-LC for all backends, since ZooKeeper's driver brings it along in any case.
//!
//! It is a crate of its own so that `avout-core` depends on no TLS, and a backend without any does not build it.
//!
//! # Examples
//! ```no_run
//! use avout_tls::{Roots, Tls};
//!
//! # async fn f() -> avout_core::Result<()> {
//! // The system's authorities and one of our own; this client has a certificate, and a key that is encrypted.
//! let tls = Tls::new()
//!     .ca("/etc/app/ca.pem")
//!     .roots(Roots::Both)
//!     .identity("/etc/app/client.pem", "/etc/app/client.key")
//!     .key_password("secret");
//! let config = tls.config().await?;
//! # Ok(()) }
//! ```

mod certificates;
mod key;
mod refused;
mod tls;
mod wrong;

pub use certificates::{Certificates, provider};
pub use refused::Refused;
pub use rustls;
pub use tls::{Roots, Tls};
