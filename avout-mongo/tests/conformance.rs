//! The laws of `avout-conformance`, on a replica set of one node.
//!
//! The server takes TLS alone. Clients show a certificate, which is their user as well (X.509), and may do what docs/backends.md lists, in
//! the law's own namespace. What the fixture does itself goes by another user. Proxies pass TLS on as it is: they cut, hold and
//! reset connections by what arrives at once, and know no replies.

mod pairs;
mod rights;
mod secure;
mod support;

fn main() {
    avout_conformance::run(support::Set::new("mongo", secure::Secure, 6))
}
