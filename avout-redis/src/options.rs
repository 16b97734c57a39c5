use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use avout_core::backend::{LONGEST_TIME, UrlParts, UrlReader};
use avout_core::{Error, Result};

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
    pub(crate) credentials: Credentials,
    pub(crate) sentinel_credentials: Credentials,
    pub(crate) tls: bool,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) database: u32,
    pub(crate) namespace: String,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) wait_replicas: Replicas,
    pub(crate) wait_timeout: Duration,
    pub(crate) confirmed_reads: bool,
    pub(crate) require_sync: bool,
    pub(crate) min_replicas: u32,
}

const URL: UrlReader = UrlReader::new("redis url", KNOWN);
const KNOWN: &str = "db=0..65535, connections=1..64, timeout=<number>ms|s, connect_timeout=<number>ms|s, wait_replicas=<number>|majority, \
    wait_timeout=<number>ms|s, reads=any|confirmed, appendfsync=any|always, min_replicas=<number>, ca=<path of a PEM file>, sentinel_user=<name>, \
    sentinel_password=<password>";
const SCHEMES: &[(&str, Form, bool)] = &[
    ("redis", Form::Single, false),
    ("rediss", Form::Single, true),
    ("redis+sentinel", Form::Sentinel, false),
    ("rediss+sentinel", Form::Sentinel, true),
    ("redis+cluster", Form::Cluster, false),
    ("rediss+cluster", Form::Cluster, true),
];
const MAX_CONNECTIONS: usize = 64;
const MAX_NAMESPACE: usize = 128;
const SHORTEST_TIME: Duration = Duration::from_millis(1);
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Sentinel,
    Cluster,
}

impl Options {
    fn at(topology: Topology, addresses: Vec<Address>) -> Self {
        Self {
            topology,
            addresses,
            credentials: Credentials::default(),
            sentinel_credentials: Credentials::default(),
            tls: false,
            ca: None,
            database: 0,
            namespace: "avout".to_owned(),
            connections: 1,
            timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            wait_replicas: Replicas::Number(0),
            wait_timeout: Duration::from_secs(1),
            confirmed_reads: false,
            require_sync: false,
            min_replicas: 0,
        }
    }

    /// One server. The namespace is `avout` unless set.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self::at(Topology::Single, vec![Address { host: host.into(), port }])
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

    /// Reads the text form:
    ///
    /// ```text
    /// redis://[user[:password]@]host[:port]/[db/][namespace][?options]
    /// redis+sentinel://[user[:password]@]host[:port][,host[:port]..]/service/[db/][namespace][?options]
    /// redis+cluster://[user[:password]@]host[:port][,host[:port]..]/[namespace][?options]
    /// ```
    ///
    /// With `rediss` in the place of `redis` all connections use TLS. User, password, service and namespace are
    /// percent-decoded. A first part of digits alone is the number of the database, as elsewhere.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) says what is wrong; for an unknown option it lists the known ones. No message
    /// holds a part of the URL that could be a credential.
    pub fn from_url(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong_scheme)?;
        let (_, form, tls) = SCHEMES.iter().find(|(known, ..)| *known == scheme).ok_or_else(wrong_scheme)?;
        let UrlParts { credentials, hosts, path, query } = URL.split(rest)?;
        let credentials = credentials.map(parse_credentials).transpose()?.unwrap_or_default();
        let port = if *form == Form::Sentinel { SENTINEL_PORT } else { PORT };
        let addresses = hosts.split(',').map(|host| parse_address(host, port)).collect::<Result<Vec<_>>>()?;
        if *form == Form::Single && addresses.len() > 1 {
            return Err(URL.invalid("several hosts need redis+sentinel:// or redis+cluster://"));
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        let topology = match form {
            Form::Single => Topology::Single,
            Form::Cluster => Topology::Cluster,
            Form::Sentinel => {
                let service = parts.next().ok_or_else(|| URL.invalid("the hosts are followed by /<service>"))?;
                Topology::Sentinel { service: URL.decode(service, "the service")? }
            }
        };
        let mut options = Self { credentials, tls: *tls, ..Self::at(topology, addresses) };
        if let Some(number) = parts.peek().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
            options = options.with("db", number)?;
            parts.next();
        }
        let namespace = parts.collect::<Vec<_>>().join("/");
        if !namespace.is_empty() {
            options.namespace = URL.decode(&namespace, "the namespace")?;
        }
        for (name, value) in UrlReader::pairs(query) {
            options = options.with(name, value)?;
        }
        options.check()?;
        Ok(options)
    }

    fn with(mut self, name: &str, value: &str) -> Result<Self> {
        let number = || URL.number(name, value, 0..=u32::MAX);
        let time = || URL.duration(name, value, Duration::from_millis(1)..=Duration::MAX);
        let text = || URL.decode(value, &format!("the value of {name}"));
        match name {
            "db" => self.database = URL.number(name, value, 0..=u32::from(u16::MAX))?,
            "connections" => self.connections = URL.number(name, value, 1..=MAX_CONNECTIONS)?,
            "timeout" => return Ok(self.timeout(time()?)),
            "connect_timeout" => return Ok(self.connect_timeout(time()?)),
            "wait_replicas" if value == "majority" => self.wait_replicas = Replicas::Majority,
            "wait_replicas" => self.wait_replicas = Replicas::Number(number()?),
            "reads" => self.confirmed_reads = URL.choice(name, value, &[("any", false), ("confirmed", true)])?,
            "wait_timeout" => return Ok(self.wait_timeout(time()?)),
            "min_replicas" => self.min_replicas = number()?,
            "appendfsync" => self.require_sync = URL.choice(name, value, &[("any", false), ("always", true)])?,
            "ca" => self.ca = Some(PathBuf::from(text()?)),
            "sentinel_user" => self.sentinel_credentials.user = Some(text()?),
            "sentinel_password" => self.sentinel_credentials.password = Some(text()?),
            _ => return Err(URL.unknown(name)),
        }
        Ok(self)
    }

    /// Rules that concern more than one option.
    pub(crate) fn check(&self) -> Result<()> {
        if self.addresses.is_empty() || self.addresses.iter().any(|address| address.host.is_empty()) {
            return Err(URL.invalid("there is no host"));
        }
        if self.addresses.iter().any(|address| address.host.contains(['@', '/', '?', '#'])) {
            return Err(URL.invalid("a host is a name or an address alone"));
        }
        if self.topology == Topology::Cluster && self.database != 0 {
            return Err(URL.invalid("a cluster has the database 0 only"));
        }
        if self.ca.is_some() && !self.tls {
            return Err(URL.invalid("the option ca is for rediss://, which uses TLS"));
        }
        if self.namespace.is_empty() || self.namespace.len() > MAX_NAMESPACE {
            return Err(URL.invalid("a namespace has 1 to 128 bytes"));
        }
        let waits = self.wait_replicas != Replicas::Number(0);
        if self.confirmed_reads && !waits {
            return Err(
                URL.invalid("reads=confirmed needs wait_replicas, best wait_replicas=majority: they confirm the reads")
            );
        }
        if waits && self.wait_timeout >= self.timeout {
            return Err(URL.invalid("wait_timeout is less than timeout: the server waits, and then answers"));
        }
        Ok(())
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
        self.credentials = Credentials { user: Some(user.into()), password: Some(password.into()) };
        self
    }

    /// The password of the default user.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.credentials = Credentials { user: None, password: Some(password.into()) };
        self
    }

    /// A user of the sentinels themselves, and its password.
    #[must_use]
    pub fn sentinel_credentials(mut self, user: Option<String>, password: impl Into<String>) -> Self {
        self.sentinel_credentials = Credentials { user, password: Some(password.into()) };
        self
    }

    /// Uses TLS for all connections. The server's certificate must be valid for its host name.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Uses TLS, and trusts the authorities in this PEM file instead of the system's.
    #[must_use]
    pub fn ca(mut self, path: impl Into<PathBuf>) -> Self {
        (self.tls, self.ca) = (true, Some(path.into()));
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

    /// Refuses a server that does not write each commit to its disk before it acknowledges it: `appendonly yes` and
    /// `appendfsync always`.
    #[must_use]
    pub fn require_appendfsync_always(mut self) -> Self {
        self.require_sync = true;
        self
    }

    /// Refuses a server that takes writes with fewer replicas than this (`min-replicas-to-write`). 0 unless set.
    #[must_use]
    pub fn min_replicas(mut self, replicas: u32) -> Self {
        self.min_replicas = replicas;
        self
    }
}

/// As [`Options::from_url`].
impl FromStr for Options {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

fn addresses<H: Into<String>>(all: impl IntoIterator<Item = (H, u16)>) -> Vec<Address> {
    all.into_iter().map(|(host, port)| Address { host: host.into(), port }).collect()
}

fn parse_credentials((user, password): (&str, Option<&str>)) -> Result<Credentials> {
    let user = Some(URL.decode(user, "the user")?).filter(|user| !user.is_empty());
    let password = password.map(|password| URL.decode(password, "the password")).transpose()?;
    if user.is_some() && password.is_none() {
        return Err(URL.invalid("a user has a password: user:password@host, or :password@host for the default user"));
    }
    Ok(Credentials { user, password })
}

fn parse_address(text: &str, default: u16) -> Result<Address> {
    let (host, port) = URL.address(text)?;
    Ok(Address { host: host.to_owned(), port: port.unwrap_or(default) })
}

fn wrong_scheme() -> Error {
    let known: Vec<_> = SCHEMES.iter().map(|(scheme, ..)| format!("{scheme}://")).collect();
    URL.invalid(format!("the text starts with one of {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use avout_core::ErrorKind;

    use super::*;

    /// The text form gives the options that the builder gives.
    #[test]
    fn reads_urls() {
        let host = || Options::new("h", 6379);
        let sentinel = Options::sentinel([("a", 26379), ("b", 1)], "main");
        let same = [
            ("redis://h", host()),
            ("redis://h/", host()),
            ("redis://h:6380/app", Options::new("h", 6380).namespace("app")),
            ("redis://h/3", host().database(3)),
            ("redis://h/3/a/b%2F%3F", host().database(3).namespace("a/b/?")),
            ("redis://h/app?db=2", host().namespace("app").database(2)),
            ("redis://[::1]:7/n", Options::new("::1", 7).namespace("n")),
            ("redis://:p%40s@h", host().password("p@s")),
            ("redis://u:p@h", host().credentials("u", "p")),
            ("rediss://h", host().tls()),
            ("rediss://h?ca=/etc/ca.pem", host().ca("/etc/ca.pem")),
            ("redis+sentinel://a,b:1/main", sentinel.clone()),
            ("redis+sentinel://a,b:1/main/2/app", sentinel.database(2).namespace("app")),
            ("redis+cluster://a,b:7/app", Options::cluster([("a", 6379), ("b", 7)]).namespace("app")),
            ("redis://h?timeout=250ms&connect_timeout=3s", {
                host().timeout(Duration::from_millis(250)).connect_timeout(Duration::from_secs(3))
            }),
            ("redis://h?wait_replicas=majority&reads=confirmed", host().wait_for_majority().confirmed_reads()),
            ("redis://h?wait_replicas=2&wait_timeout=100ms", {
                host().wait_replicas(2).wait_timeout(Duration::from_millis(100))
            }),
            ("redis://h?appendfsync=always&min_replicas=1&connections=4", {
                host().require_appendfsync_always().min_replicas(1).connections(4)
            }),
        ];
        for (url, options) in same {
            assert_eq!(url.parse::<Options>().expect(url), options, "{url}");
        }
    }

    /// A text that is wrong is refused, the message helps, and it holds no secret.
    #[test]
    fn refuses_wrong_urls() {
        for (url, help) in [
            ("redis:h", "starts with one of redis://"),
            ("sqlite://h", "starts with one of redis://"),
            ("redis://", "no host"),
            ("redis://u:secret@", "no host"),
            ("redis://secret@h", "user has a password"),
            ("redis://u:secret@h:x", "its port"),
            ("redis://u:secret@a,b", "redis+sentinel://"),
            ("redis+sentinel://u:secret@h", "/<service>"),
            ("redis+cluster://h/1/app", "database 0"),
            ("redis://h?ca=x", "rediss://"),
            ("redis://h?fsync=always", "appendfsync=any|always"),
            ("redis://h?fsync=always", "did you mean appendfsync?"),
            ("redis://u:1/secret@h/ns", "percent-encoded"),
            ("redis://u:1?secret@h/ns", "percent-encoded"),
            ("redis+sentinel://h/s?sentinel_password=a&secret", "percent-encoded"),
            ("redis://h?appendfsync=yes", "appendfsync=any|always"),
            ("redis://h?connections=0", "connections=1..64"),
            ("redis://h?timeout=5", "<number>ms|s"),
            ("redis://h?timeout=0s", "<number>ms|s"),
            ("redis://h?wait_replicas=1&wait_timeout=5s", "less than timeout"),
            ("redis://h?wait_replicas=majority&wait_timeout=5s", "less than timeout"),
            ("redis://h?wait_replicas=most", "<number>|majority"),
            ("redis://h?reads=confirmed", "wait_replicas=majority"),
            ("redis://h?reads=late", "reads=any|confirmed"),
            ("redis://h/%ff", "UTF-8"),
        ] {
            let error = Options::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = format!("{error} {error:?}");
            assert!(text.contains(help) && !text.contains("secret"), "{url}: {text}");
        }
    }

    /// Credentials are not printed.
    #[test]
    fn hides_credentials() {
        let url = "redis+sentinel://me:hush@h/main?sentinel_user=me&sentinel_password=hush";
        let text = format!("{:?}", Options::from_url(url).expect(url));
        assert!(!text.contains("hush") && !text.contains("me\""), "{text}");
    }
}
