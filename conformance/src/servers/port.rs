use std::collections::HashSet;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// A port of 127.0.0.1 that nobody listens on.
///
/// It lies below the range from which the operating system takes the ports of outgoing connections. One of
/// those would else now and then sit on the port of a server that is down for a moment, and it could not start again.
/// A process gets each port once. Another process may still take it first.
///
/// # Panics
/// If this process used up 15,000 ports.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    for _ in 0..100_000 {
        let port = rand::random_range(15_000..32_000);
        let fresh = GIVEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default().insert(port);
        if fresh && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port on 127.0.0.1 between 15000 and 32000")
}
