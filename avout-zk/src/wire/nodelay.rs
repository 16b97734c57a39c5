//! Turns Nagle's algorithm off on the connections to the servers, where the system lets a process reach its own sockets.
//!
//! The client leaves it on and gives no access to its sockets. With it a read is two round trips instead of one: the
//! multi-read follows the sync at once, and the system keeps such a second small packet back until the first one is acknowledged, which
//! comes with its reply. On Linux 5.6 and later a process may ask for a duplicate of one of its own sockets
//! (`pidfd_getfd`), and an option that is set on the duplicate is set on the socket. Where that is not allowed, as in some
//! containers, all works as well, and a read takes the longer.

#[cfg(target_os = "linux")]
pub(crate) use linux::set;

/// Other systems have no way to do it.
#[cfg(not(target_os = "linux"))]
pub(crate) fn set(_servers: &str) {}

/// The ports of servers, as written in the options.
fn ports(servers: &str) -> Vec<u16> {
    let port = |server: &str| {
        let (_, port) = server.rsplit_once(':')?;
        // An IPv6 address without a port ends with a bracket.
        port.parse().ok()
    };
    servers.split(',').map(|server| port(server).unwrap_or(2181)).collect()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::collections::HashSet;
    use std::fs;
    use std::io;

    use rustix::net::sockopt::set_tcp_nodelay;
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

    /// Does it for all connections of this process to a port of one of the servers.
    pub(crate) fn set(servers: &str) {
        if let Err(error) = try_set(&super::ports(servers)) {
            tracing::debug!(%error, "connections to ZooKeeper are left with Nagle's algorithm");
        }
    }

    fn try_set(ports: &[u16]) -> io::Result<()> {
        let mut inodes = HashSet::new();
        for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
            if let Ok(text) = fs::read_to_string(table) {
                inodes.extend(text.lines().filter_map(|line| established(line, ports)));
            }
        }
        let own = pidfd_open(getpid(), PidfdFlags::empty())?;
        for entry in fs::read_dir("/proc/self/fd")? {
            let entry = entry?;
            let Ok(link) = fs::read_link(entry.path()) else { continue };
            let inode = link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            let number = entry.file_name().to_str().and_then(|name| name.parse().ok());
            let (Some(inode), Some(number)) = (inode, number) else { continue };
            if inodes.contains(&inode) {
                // If another file has this number by now it is no socket, or one that this does no harm to.
                let _ = set_tcp_nodelay(pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?, true);
            }
        }
        Ok(())
    }

    /// The inode of a connection to one of these ports, from a line of the system's table.
    fn established(line: &str, ports: &[u16]) -> Option<u64> {
        let mut fields = line.split_ascii_whitespace().skip(2);
        let (remote, state) = (fields.next()?, fields.next()?);
        let port = u16::from_str_radix(remote.rsplit_once(':')?.1, 16).ok()?;
        let inode = fields.nth(5)?.parse().ok()?;
        (state == "01" && ports.contains(&port)).then_some(inode)
    }

    #[cfg(test)]
    mod tests {
        use std::net::{TcpListener, TcpStream};

        use super::*;

        /// A connection of this process to the port loses Nagle's algorithm, and no other does.
        #[test]
        fn finds_its_own_connections() {
            let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
            let connect = |listener: &TcpListener| {
                let address = listener.local_addr().expect("an address");
                (address.port(), TcpStream::connect(address).expect("a connection"))
            };
            let [(port, stream), (_, other)] = [connect(&listeners[0]), connect(&listeners[1])];
            if let Err(error) = try_set(&[port]) {
                // A system that does not allow it.
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{error}");
                return;
            }
            assert!(stream.nodelay().expect("an option"));
            assert!(!other.nodelay().expect("an option"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server without a port has the usual one.
    #[test]
    fn reads_ports() {
        assert_eq!(ports("a:1,b,[::1]:2,[::1]"), [1, 2181, 2, 2181]);
    }
}
