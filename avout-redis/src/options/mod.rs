mod credentials;
mod parts;
mod url;

use std::time::Duration;

use avout_core::Result;
use avout_core::backend::LONGEST_TIME;
use avout_tls::Tls;

pub(crate) use credentials::{Credentials, Source};
pub(crate) use parts::{Address, Replicas, Topology};

use credentials::Provider;

/// Where the servers are, which namespace, and how both are used.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use avout_redis::Options;
///
/// # async fn f() -> avout_core::Result<()> {
/// let options = Options::new("cache.example", 6379).namespace("shop").credentials("avout", "secret").wait_replicas(1);
/// let backend = options.open().await?;
///
/// let same = Options::from_url("redis://avout:secret@cache.example/shop?wait_replicas=1")?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub(crate) topology: Topology,
    pub(crate) addresses: Vec<Address>,
    pub(crate) credentials: Source,
    pub(crate) sentinel_credentials: Credentials,
    pub(crate) tls: Option<Tls>,
    pub(crate) database: u32,
    pub(crate) namespace: String,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) wait_replicas: Replicas,
    pub(crate) wait_timeout: Duration,
    pub(crate) wait_aof: bool,
    pub(crate) confirmed_reads: bool,
    pub(crate) require_sync: bool,
    pub(crate) min_replicas: u32,
    pub(crate) readonly: bool,
}

const MAX_CONNECTIONS: usize = 64;
const SHORTEST_TIME: Duration = Duration::from_millis(1);
impl Options {
    fn at(topology: Topology, addresses: Vec<Address>) -> Self {
        Self {
            topology,
            addresses,
            credentials: Source::default(),
            sentinel_credentials: Credentials::default(),
            tls: None,
            database: 0,
            namespace: "avout".to_owned(),
            connections: 1,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            wait_replicas: Replicas::Number(0),
            wait_timeout: Duration::from_secs(1),
            wait_aof: false,
            confirmed_reads: false,
            require_sync: false,
            min_replicas: 0,
            readonly: false,
        }
    }

    /// One server. The namespace is `avout` unless set.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::at(Topology::Single, vec![Address { host: host.into(), port }])
    }

    /// One server of this machine, at the socket with this path, which is absolute (`unixsocket` in its settings).
    pub fn unix(path: impl Into<String>) -> Self {
        Self::at(Topology::Socket, vec![Address { host: path.into(), port: 0 }])
    }

    /// The master of `service`, as these sentinels name it.
    pub fn sentinel<H: Into<String>>(
        sentinels: impl IntoIterator<Item = (H, u16)>,
        service: impl Into<String>,
    ) -> Self {
        Self::at(Topology::Sentinel { service: service.into() }, addresses(sentinels))
    }

    /// A cluster that these nodes belong to. A namespace lies in one slot, and so on one of its masters.
    pub fn cluster<H: Into<String>>(nodes: impl IntoIterator<Item = (H, u16)>) -> Self {
        Self::at(Topology::Cluster, addresses(nodes))
    }

    /// The namespace; any text of 1 to 128 bytes. Namespaces of one server have nothing to do with each other.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// The number of the database. 0 unless set.
    #[must_use]
    pub fn database(mut self, number: u16) -> Self {
        self.database = number.into();
        self
    }

    /// A user of the server's access control list, and its password.
    #[must_use]
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Source::Fixed(Credentials { user: Some(user.into()), password: Some(password.into()) });
        self
    }

    /// The password of the default user.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.credentials = Source::Fixed(Credentials { user: None, password: Some(password.into()) });
        self
    }

    /// Asks `provider` for the user and the password of each connection when it is made, for credentials that change: an empty user is
    /// the default one.
    ///
    /// A connection that is open stays as it is when they change, as the server has it. One that the server wants credentials of again is
    /// made anew; [`Backend::reauthenticate`](crate::Backend::reauthenticate) gives them to all that are open, for a server that ends
    /// those whose credentials are old.
    ///
    /// The provider has as long as connecting may take. Its error is told as it is: `Unavailable` is tried again, and any other ends the
    /// operation that needed the connection. It is called within tasks of the caller's runtime and of the library's, for several
    /// connections at once too, and its future may be dropped at any time.
    ///
    /// # Examples
    /// ```
    /// use avout_redis::Options;
    ///
    /// let options = Options::new("cache.example", 6379).credentials_from(async || {
    ///     let password = std::fs::read_to_string("/run/secrets/redis").map_err(|error| {
    ///         avout_core::Error::new(avout_core::ErrorKind::Unavailable, "there is no password").with_source(error)
    ///     })?;
    ///     Ok(("avout".to_owned(), password.trim().to_owned()))
    /// });
    /// ```
    #[must_use]
    pub fn credentials_from<F: Future<Output = Result<(String, String)>> + Send + 'static>(
        mut self,
        provider: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        self.credentials = Source::Provided(Provider::new(provider));
        self
    }

    /// A user of the sentinels themselves, and its password.
    #[must_use]
    pub fn sentinel_credentials(mut self, user: Option<String>, password: impl Into<String>) -> Self {
        self.sentinel_credentials = Credentials { user, password: Some(password.into()) };
        self
    }

    /// Uses TLS for all connections, to sentinels too, as this says. The files are read once, when the namespace is opened. The server's
    /// certificate must be valid for its host name, or for the [one that is given](Tls::server_name).
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How many connections carry requests, from 1 to 64. 1 unless set: each carries any number of requests at a time, so more
    /// are of use only where large values hold up small ones.
    ///
    /// Each of tokio's runtimes with several threads has so many for the requests of its own tasks; all other callers, and what the client
    /// does in the background, share as many.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, MAX_CONNECTIONS);
        self
    }

    /// How long to wait for a reply, from 1 ms to a day. 5 seconds unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(SHORTEST_TIME, LONGEST_TIME);
        self
    }

    /// How long a connection may take until it can be used, from 1 ms to a day. 5 seconds unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.clamp(SHORTEST_TIME, LONGEST_TIME);
        self
    }

    /// How many replicas must have a commit before it is acknowledged (`WAIT`). 0 unless set.
    #[must_use]
    pub fn wait_replicas(mut self, replicas: u32) -> Self {
        self.wait_replicas = Replicas::Number(replicas);
        self
    }

    /// Acknowledges a commit when a majority of the master and its replicas has it, or all of them that are there, and no other server
    /// can be the master by then. At least one replica must have it.
    ///
    /// Where not all replicas have confirmed, the sentinels or the cluster's nodes are asked before the commit is acknowledged: another
    /// replica may be the master already, and the others go on confirming for the old one for about a second.
    #[must_use]
    pub fn wait_for_majority(mut self) -> Self {
        self.wait_replicas = Replicas::Majority;
        self
    }

    /// Answers a read only when as many replicas as commits wait for have confirmed after the read began that they follow this
    /// server: so a master that was cut from its replicas, and was replaced, answers none. A read then takes a round trip
    /// between the servers longer; reads share it.
    #[must_use]
    pub fn confirmed_reads(mut self) -> Self {
        self.confirmed_reads = true;
        self
    }

    /// How long to wait for the replicas, at least 1 ms. 1 second unless set, and always less than [`timeout`](Self::timeout).
    #[must_use]
    pub fn wait_timeout(mut self, timeout: Duration) -> Self {
        self.wait_timeout = timeout.clamp(SHORTEST_TIME, LONGEST_TIME);
        self
    }

    /// Acknowledges a commit when it is on the disks of the server and of as many replicas as commits wait for (`WAITAOF`).
    ///
    /// It is not supported yet. Opening the namespace is refused with [`Unsupported`](avout_core::ErrorKind::Unsupported), and the message
    /// says whether the server is too old for it (before Redis 7.2). [`require_appendfsync_always`](Self::require_appendfsync_always)
    /// puts each commit on the master's disk.
    #[must_use]
    pub fn wait_aof(mut self) -> Self {
        self.wait_aof = true;
        self
    }

    /// Refuses a server that does not write each commit to its disk before it acknowledges it: `appendonly yes` and
    /// `appendfsync always`.
    #[must_use]
    pub fn require_appendfsync_always(mut self) -> Self {
        self.require_sync = true;
        self
    }

    /// The client only reads: it makes no namespace and begins no era, so a user with the right to read will do. A namespace that is not
    /// there is [`NotFound`](avout_core::ErrorKind::NotFound) when it is opened, and whatever would write is
    /// [`Denied`](avout_core::ErrorKind::Denied). It takes no [`wait_replicas`](Self::wait_replicas): they confirm what is written.
    /// `false` unless set.
    ///
    /// Changes are told by the server once a client that writes has watched anything in the namespace. Until then, watches of this one look
    /// four times a second.
    #[must_use]
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.readonly = readonly;
        self
    }

    /// Refuses a server that takes writes with fewer replicas than this (`min-replicas-to-write`). 0 unless set.
    #[must_use]
    pub fn min_replicas(mut self, replicas: u32) -> Self {
        self.min_replicas = replicas;
        self
    }
}

fn addresses<H: Into<String>>(all: impl IntoIterator<Item = (H, u16)>) -> Vec<Address> {
    all.into_iter().map(|(host, port)| Address { host: host.into(), port }).collect()
}
