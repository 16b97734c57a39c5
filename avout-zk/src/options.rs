mod acl;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use avout_core::backend::{UrlParts, UrlReader};
use avout_core::{Error, Result};
use avout_tls::Tls;
use zookeeper::Acls;

pub use acl::Acl;

/// How a user is made known to ZooKeeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Auth {
    /// The scheme `digest`: the server takes any user and password, and compares them with the ACLs.
    #[default]
    Digest,
    /// SASL with DIGEST-MD5: the server knows its users and refuses others.
    Sasl,
}

/// How a read makes sure that it sees all that was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reads {
    /// By `sync`, with which a follower asks the leader. Strict with a server that stands alone. In an ensemble what a read-only
    /// transaction sees is consistent, but may be older than what was acknowledged: through the leader, which does nothing at a
    /// `sync` of its own clients, by the moment that a follower was faster than it; and through a leader that has lost its ensemble
    /// without knowing, until it knows. Transactions that write are not touched by this.
    Sync,
    /// By a write that changes nothing, to which a majority must agree. Strict in all cases, and each read then costs the servers a
    /// wait for their disks.
    Quorum,
}

/// Where the servers and the namespace are, and how they are used.
///
/// # Examples
/// ```no_run
/// use std::time::Duration;
/// use avout_zk::Options;
///
/// # async fn f() -> avout_core::Result<()> {
/// let options = Options::new("zk1:2181,zk2:2181,zk3:2181", "/app/state")?
///     .user("app", "secret")
///     .session_timeout(Duration::from_secs(10));
/// let backend = options.open().await?;
///
/// let same = Options::from_url("zk://app:secret@zk1,zk2,zk3/app/state?session_timeout=10s")?;
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Hosts with their ports, and commas between.
    pub(crate) servers: String,
    pub(crate) namespace: String,
    pub(crate) user: Option<(String, String)>,
    pub(crate) auth: Auth,
    pub(crate) acl: Option<Acl>,
    pub(crate) reads: Option<Reads>,
    pub(crate) tls: Option<Tls>,
    pub(crate) readonly: bool,
    pub(crate) session_timeout: Duration,
    pub(crate) timeout: Duration,
    pub(crate) connections: usize,
    pub(crate) max_request: usize,
    /// A znode with this version gets its next one in two steps.
    pub(crate) hop_at: i32,
}

const URL: UrlReader = UrlReader::new("zk url", KNOWN);
const KNOWN: &str = concat!(
    "auth=digest|sasl, acl=creator|open|<scheme>:<id>:<cdrwa>, reads=sync|quorum, session_timeout=<number>ms|s, \
     timeout=<number>ms|s, connections=1..16, max_request=<bytes>, readonly=true|false, ",
    avout_tls::options!()
);
const MAX_CONNECTIONS: usize = 16;
const SHORTEST_TIME: Duration = Duration::from_millis(10);
const LONGEST_TIME: Duration = Duration::from_secs(3600);
/// `jute.maxbuffer` of a server that is not told otherwise, in bytes.
const DEFAULT_MAX_REQUEST: usize = 0xf_ffff;
const LEAST_MAX_REQUEST: usize = 512 * 1024;
const LARGEST_MAX_REQUEST: usize = 64 << 20;
const MAX_NAMESPACE_BYTES: usize = 200;
/// The version before -1, which means "any" in a request.
const BEFORE_ANY: i32 = -2;

impl Options {
    /// The namespace `namespace`, a path such as `/app/state`, on `servers`: hosts, each with a port unless that is 2181, and commas between.
    /// An IPv6 address stands in brackets.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) says what is wrong.
    pub fn new(servers: impl Into<String>, namespace: impl Into<String>) -> Result<Self> {
        let servers = servers.into();
        check_servers(&servers)?;
        let namespace = namespace.into();
        check_namespace(&namespace)?;
        Ok(Self {
            servers,
            namespace,
            user: None,
            auth: Auth::default(),
            acl: None,
            reads: None,
            tls: None,
            readonly: false,
            session_timeout: Duration::from_secs(6),
            timeout: Duration::from_secs(10),
            connections: 2,
            max_request: DEFAULT_MAX_REQUEST,
            hop_at: BEFORE_ANY,
        })
    }

    /// Reads the text form: `zk://user:password@host:port,host:port/namespace?option=value&…`. User, password and namespace are
    /// percent-decoded; all but a host and the namespace may be left out.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) says what is wrong; for an unknown option it lists the known ones.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("zk://").ok_or_else(|| URL.invalid("the text starts with zk://"))?;
        let UrlParts { credentials, hosts, path, query } = URL.split(rest)?;
        let mut options = Self::new(hosts, format!("/{}", URL.decode(path, "the namespace")?))?;
        if let Some((user, password)) = credentials {
            let message = "before the @ there is a user and a password, with : between";
            let password = password.ok_or_else(|| URL.invalid(message))?;
            options = options.user(URL.decode(user, "the user")?, URL.decode(password, "the password")?);
        }
        let mut tls = Tls::new();
        for (name, value) in UrlReader::pairs(query) {
            if tls.option(&URL, name, value)? {
                options.tls = Some(Tls::new());
            } else {
                options = options.with(name, value)?;
            }
        }
        if options.tls.is_some() {
            tls.check().and_then(|()| tls.check_without_config()).map_err(|error| error.during("zk url"))?;
            options.tls = Some(tls);
        }
        let needs_user = options.auth != Auth::Digest || options.acl.as_ref().is_some_and(Acl::needs_user);
        if needs_user && options.user.is_none() {
            return Err(
                URL.invalid("auth=sasl, acl=creator and acl=auth::… need a user: zk://user:password@host/namespace")
            );
        }
        Ok(options)
    }

    fn with(self, name: &str, value: &str) -> Result<Self> {
        let time = || URL.duration(name, value, SHORTEST_TIME..=LONGEST_TIME);
        Ok(match name {
            "auth" => self.auth(URL.choice(name, value, &[("digest", Auth::Digest), ("sasl", Auth::Sasl)])?),
            "acl" => self.acl(Acl::parse(&URL, value)?),
            "reads" => self.reads(URL.choice(name, value, &[("sync", Reads::Sync), ("quorum", Reads::Quorum)])?),
            "session_timeout" => self.session_timeout(time()?),
            "timeout" => self.timeout(time()?),
            "connections" => self.connections(URL.number(name, value, 1..=MAX_CONNECTIONS)?),
            "max_request" => self.max_request(URL.number(name, value, LEAST_MAX_REQUEST..=LARGEST_MAX_REQUEST)?),
            "readonly" => self.readonly(URL.flag(name, value)?),
            _ => return Err(URL.unknown(name)),
        })
    }

    /// The user, with a password. What the client makes is then the user's alone, see [`acl`](Self::acl).
    #[must_use]
    pub fn user(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((user.into(), password.into()));
        self
    }

    /// How the user is made known. [`Auth::Digest`] unless set.
    #[must_use]
    pub fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    /// Who may use the znodes that this client makes. [`Acl::Creator`] with a user and [`Acl::Open`] without, unless set. It
    /// changes nothing of znodes that are there.
    #[must_use]
    pub fn acl(mut self, acl: Acl) -> Self {
        self.acl = Some(acl);
        self
    }

    /// How reads are made current. Unless set, [`Reads::Sync`] with a server that stands alone, and [`Reads::Quorum`] with an ensemble, also
    /// where only one of its servers is named: each connection asks how many there are (`/zookeeper/config`). If that cannot be
    /// read, it is [`Reads::Quorum`].
    #[must_use]
    pub fn reads(mut self, reads: Reads) -> Self {
        self.reads = Some(reads);
        self
    }

    pub(crate) fn has_several_servers(&self) -> bool {
        self.servers.contains(',')
    }

    /// Speaks TLS with all servers, as this says. Each new connection reads the files again. In a URL each of its options asks for
    /// it; `tls_roots=system` does alone where the system's authorities have signed the servers' certificates.
    ///
    /// The driver makes its configuration itself, by the cryptography of the process (rustls' default provider, which is
    /// installed if there is none), and checks the host's own name: opening is [`Unsupported`](avout_core::ErrorKind::Unsupported)
    /// with [`Tls::from_config`] and with [`Tls::server_name`].
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The client only reads: it makes no znode and begins no era, so a user with the right to read will do. A namespace that is not
    /// there is [`NotFound`](avout_core::ErrorKind::NotFound) when it is opened, and whatever would write is
    /// [`Denied`](avout_core::ErrorKind::Denied). `false` unless set.
    #[must_use]
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.readonly = readonly;
        self
    }

    /// How long a session outlives its connection; the server may choose another. 6 seconds unless set, from 10 ms to
    /// an hour. A connection on which nothing
    /// comes for two fifths of it is given up.
    #[must_use]
    pub fn session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout.clamp(SHORTEST_TIME, LONGEST_TIME);
        self
    }

    /// How long one request waits for a connection and its answer. 10 seconds unless set, from 10 ms to an hour.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(SHORTEST_TIME, LONGEST_TIME);
        self
    }

    /// How many connections the client has at most, each with a session, from 1 to 16. 2 unless set. A server answers the requests
    /// of one session in their order; a further connection is made when requests wait for each other.
    #[must_use]
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, MAX_CONNECTIONS);
        self
    }

    /// The largest request that the servers take, in bytes: their `jute.maxbuffer`, 1,048,575 unless it was changed on all of them.
    /// From 512 KiB to 64 MiB.
    #[must_use]
    pub fn max_request(mut self, bytes: usize) -> Self {
        self.max_request = bytes.clamp(LEAST_MAX_REQUEST, LARGEST_MAX_REQUEST);
        self
    }

    /// Lets znodes pass their version's end early, for tests of just that.
    #[doc(hidden)]
    #[must_use]
    pub fn hop_at(mut self, version: i32) -> Self {
        self.hop_at = version;
        self
    }

    /// Who may use what is made.
    pub(crate) fn acls(&self) -> Acls<'_> {
        match &self.acl {
            Some(Acl::Grants(grants)) => Acls::new(grants),
            Some(Acl::Creator) => Acls::creator_all(),
            None if self.user.is_some() => Acls::creator_all(),
            Some(Acl::Open) | None => Acls::anyone_all(),
        }
    }
}

fn check_servers(servers: &str) -> Result<()> {
    if servers.split(',').any(|server| URL.address(server).is_err()) {
        return Err(URL.invalid("servers are written as host:port,host:port, before a / and the namespace"));
    }
    Ok(())
}

fn check_namespace(path: &str) -> Result<()> {
    let rule = if path.len() > MAX_NAMESPACE_BYTES {
        "it has at most 200 bytes"
    } else if path == "/" || path == "/zookeeper" || path.starts_with("/zookeeper/") {
        "a namespace is a path of its own, such as zk://host/app/state, and not below /zookeeper"
    } else if avout_core::Key::from_stored(path).is_err() {
        "no part of it is empty, . or .., and it has no control characters"
    } else if path.chars().any(|c| matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)) {
        "ZooKeeper takes no private, special or supplementary characters"
    } else {
        return Ok(());
    };
    Err(URL.invalid(format!("this is no namespace: {rule}")))
}

/// As [`Options::from_url`].
impl FromStr for Options {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

/// Shows no password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("servers", &self.servers)
            .field("namespace", &self.namespace)
            .field("user", &self.user.as_ref().map(|(user, _)| user))
            .field("auth", &self.auth)
            .field("acl", &self.acl)
            .field("reads", &self.reads)
            .field("tls", &self.tls)
            .field("readonly", &self.readonly)
            .field("session_timeout", &self.session_timeout)
            .field("timeout", &self.timeout)
            .field("connections", &self.connections)
            .field("max_request", &self.max_request)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use avout_core::ErrorKind;

    use super::*;

    /// A URL gives the same options as the builder.
    #[test]
    fn reads_urls() {
        let plain = Options::from_url("zk://localhost/app").expect("a URL");
        assert_eq!(plain, Options::new("localhost", "/app").expect("options"));
        let full = "zk://me%40x:p%3Aw@a:1,[::1]:2,c/app/st%20ate?auth=sasl&acl=open&reads=quorum&session_timeout=9s\
            &timeout=500ms&connections=4&max_request=2000000&tls_ca=%2Fca.pem&tls_cert=c.pem&tls_key=k.pem";
        let built = Options::new("a:1,[::1]:2,c", "/app/st ate")
            .expect("options")
            .user("me@x", "p:w")
            .auth(Auth::Sasl)
            .acl(Acl::Open)
            .reads(Reads::Quorum)
            .session_timeout(Duration::from_secs(9))
            .timeout(Duration::from_millis(500))
            .connections(4)
            .max_request(2_000_000)
            .tls(Tls::new().ca("/ca.pem").identity("c.pem", "k.pem"));
        assert_eq!(full.parse::<Options>().expect("a URL"), built);
    }

    /// What is wrong with a URL is said, without its password; an unknown option lists the known ones.
    #[test]
    fn refuses_what_it_does_not_know() {
        for (url, says) in [
            ("sqlite:x", "starts with zk://"),
            ("zk:///app", "host:port"),
            ("zk://a,,b/app", "host:port"),
            ("zk://a", "a path of its own"),
            ("zk://a/", "a path of its own"),
            ("zk://a/zookeeper/x", "below /zookeeper"),
            ("zk://a/x//y", "no part of it is empty"),
            ("zk://a/x/%F0%9F%98%80", "supplementary"),
            ("zk://me@a/x", "a user and a password"),
            ("zk://me:canary@a/x?colour=red", "unknown option: known are auth=digest|sasl"),
            ("zk://me:1/canary@a/x", "percent-encoded"),
            ("zk://me:canary/x", "host:port"),
            ("zk://me:canary@a/x?auth=plain", "option auth"),
            ("zk://me:canary@a/x?timeout=5", "option timeout"),
            ("zk://me:canary@a/x?connections=17", "option connections"),
            ("zk://me:canary@a/x?tls_key=c", "tls_cert=<file>"),
            ("zk://me:canary@a/x?tls_roots=both", "tls_ca=<file>"),
            ("zk://a/x?acl=creator", "need a user"),
            ("zk://a/x?acl=auth::cdrw", "need a user"),
            ("zk://a/x?acl=digest:canary:x", "option acl"),
        ] {
            let error = Options::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{url}");
            let text = format!("{error} {error:?}");
            assert!(text.contains(says) && !text.contains("canary"), "{url}: {text}");
        }
    }

    /// Times of any length are taken, and are an hour at most.
    #[test]
    fn takes_times_of_any_length() {
        let options = Options::new("a", "/x").expect("options").timeout(Duration::MAX).session_timeout(Duration::MAX);
        assert_eq!((options.timeout, options.session_timeout), (LONGEST_TIME, LONGEST_TIME));
        let options = options.timeout(Duration::ZERO).session_timeout(Duration::ZERO);
        assert_eq!((options.timeout, options.session_timeout), (SHORTEST_TIME, SHORTEST_TIME));
    }

    /// The password is in no text of the options.
    #[test]
    fn shows_no_password() {
        let options = Options::from_url("zk://me:canary@a/x").expect("a URL");
        assert!(format!("{options:?} {options:#?}").contains("me"));
        assert!(!format!("{options:?} {options:#?}").contains("canary"));
    }
}
