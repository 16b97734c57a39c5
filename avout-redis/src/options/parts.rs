use std::fmt;

/// What the servers are to each other, and so how the one that takes writes is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Topology {
    /// One server, at a fixed address.
    Single,
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

/// A user's name and password. It prints neither.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct Credentials {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.password.is_some() { "given" } else { "none" })
    }
}

/// The host and port of a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}
