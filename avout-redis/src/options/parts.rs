use std::fmt;
use std::path::Path;

/// What the servers are to each other, and so how the one that takes writes is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server, at a fixed address.
    Single,
    /// One server, at a socket of this machine.
    Socket,
    /// Sentinels, at the given addresses, name the master of this service.
    Sentinel { service: String },
    /// Nodes of a cluster, at the given addresses, name the master of the namespace's slot.
    Cluster,
}

/// How many replicas have to confirm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Replicas {
    Number(u32),
    /// So many that no other server can have been made the master meanwhile.
    Majority,
}

/// The host and port of a server, or the path of its socket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// A node that is named without its host is where the one is that named it.
    pub(crate) fn or(mut self, other: &Self) -> Self {
        if self.host.is_empty() {
            self.host.clone_from(&other.host);
        }
        self
    }

    /// The path of a socket of this machine; it is absolute, as no host is.
    pub(crate) fn socket(&self) -> Option<&Path> {
        self.host.starts_with('/').then(|| Path::new(&self.host))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.socket().is_some() {
            f.write_str(&self.host)
        } else if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
