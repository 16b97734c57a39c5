//! The text form, and the rules that concern more than one option.

use std::str::FromStr;
use std::time::Duration;

use avout_core::backend::{UrlParts, UrlReader};
use avout_core::{Error, Result};
use avout_tls::Tls;

use super::{Address, Credentials, MAX_CONNECTIONS, Options, Replicas, Source, Topology};

const URL: UrlReader = UrlReader::new("redis url", KNOWN);
const KNOWN: &str = concat!(
    "db=0..65535, connections=1..64, timeout=<number>ms|s, connect_timeout=<number>ms|s, wait_replicas=<number>|majority, \
     wait_timeout=<number>ms|s, wait_aof=no|yes, reads=any|confirmed, appendfsync=any|always, min_replicas=<number>, \
     readonly=true|false, namespace=<text, for redis+unix>, sentinel_user=<name>, sentinel_password=<password>, ",
    avout_tls::options!()
);
const SCHEMES: &[(&str, Form, bool)] = &[
    ("redis", Form::Single, false),
    ("rediss", Form::Single, true),
    ("redis+sentinel", Form::Sentinel, false),
    ("rediss+sentinel", Form::Sentinel, true),
    ("redis+cluster", Form::Cluster, false),
    ("rediss+cluster", Form::Cluster, true),
    ("redis+unix", Form::Socket, false),
];
const MAX_NAMESPACE: usize = 128;
const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Socket,
    Sentinel,
    Cluster,
}

impl Options {
    /// Reads the text form:
    ///
    /// ```text
    /// redis://[user[:password]@]host[:port]/[db/][namespace][?options]
    /// redis+sentinel://[user[:password]@]host[:port][,host[:port]..]/service/[db/][namespace][?options]
    /// redis+cluster://[user[:password]@]host[:port][,host[:port]..]/[namespace][?options]
    /// redis+unix://[user[:password]@]/path/of/the/socket[?namespace=namespace&db=db&options]
    /// ```
    ///
    /// With `rediss` in the place of `redis` all connections use TLS. User, password, service, namespace and
    /// the path of a socket are percent-decoded. A first part of digits alone is the number of the database, as elsewhere.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) says what is wrong; for an unknown option it lists the known ones. No message
    /// holds a part of the URL that could be a credential.
    pub fn from_url(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong_scheme)?;
        let (_, form, tls) = SCHEMES.iter().find(|(known, ..)| *known == scheme).ok_or_else(wrong_scheme)?;
        let UrlParts { credentials, hosts, path, query } = URL.split(rest)?;
        let credentials = Source::Fixed(credentials.map(parse_credentials).transpose()?.unwrap_or_default());
        if *form == Form::Socket {
            return Self { credentials, ..Self::unix(parse_socket(hosts, path)?) }.with_all(query);
        }
        let port = if *form == Form::Sentinel { SENTINEL_PORT } else { PORT };
        let addresses = hosts.split(',').map(|host| parse_address(host, port)).collect::<Result<Vec<_>>>()?;
        if *form == Form::Single && addresses.len() > 1 {
            return Err(URL.invalid("several hosts need redis+sentinel:// or redis+cluster://"));
        }
        let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
        let topology = match form {
            Form::Single | Form::Socket => Topology::Single,
            Form::Cluster => Topology::Cluster,
            Form::Sentinel => {
                let service = parts.next().ok_or_else(|| URL.invalid("the hosts are followed by /<service>"))?;
                Topology::Sentinel { service: URL.decode(service, "the service")? }
            }
        };
        let tls = tls.then(Tls::new);
        let mut options = Self { credentials, tls, ..Self::at(topology, addresses) };
        if let Some(number) = parts.peek().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit())) {
            options = options.with("db", number)?;
            parts.next();
        }
        let namespace = parts.collect::<Vec<_>>().join("/");
        if !namespace.is_empty() {
            options.namespace = URL.decode(&namespace, "the namespace")?;
        }
        options.with_all(query)
    }

    fn with_all(self, query: &str) -> Result<Self> {
        let options = UrlReader::pairs(query).try_fold(self, |options, (name, value)| options.with(name, value))?;
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
            "readonly" => self.readonly = URL.flag(name, value)?,
            "wait_aof" => self.wait_aof = URL.choice(name, value, &[("no", false), ("yes", true)])?,
            "namespace" if self.topology == Topology::Socket => self.namespace = text()?,
            "namespace" => {
                return Err(URL.invalid("the namespace is the path: the option namespace is for redis+unix://"));
            }
            "sentinel_user" => self.sentinel_credentials.user = Some(text()?),
            "sentinel_password" => self.sentinel_credentials.password = Some(text()?),
            _ => self.with_tls(name, value)?,
        }
        Ok(self)
    }

    fn with_tls(&mut self, name: &str, value: &str) -> Result<()> {
        // The name that it had before.
        let name = if name == "ca" { "tls_ca" } else { name };
        let mut unused = Tls::new();
        let given = self.tls.as_mut().unwrap_or(&mut unused).option(&URL, name, value)?;
        match (given, &self.tls) {
            (true, Some(_)) => Ok(()),
            (true, None) => {
                Err(URL.invalid("options of TLS are for rediss://, rediss+sentinel:// and rediss+cluster://"))
            }
            (false, _) => Err(URL.unknown(name)),
        }
    }

    /// Rules that concern more than one option.
    pub(crate) fn check(&self) -> Result<()> {
        if self.addresses.is_empty() || self.addresses.iter().any(|address| address.host.is_empty()) {
            return Err(URL.invalid("there is no host"));
        }
        if self.topology == Topology::Socket {
            if self.addresses.iter().any(|address| address.socket().is_none()) {
                return Err(URL.invalid("the path of a socket is absolute: redis+unix:///path/of/the/socket"));
            }
            if self.tls.is_some() {
                return Err(URL.invalid("a socket of this machine has no TLS"));
            }
        } else if self.addresses.iter().any(|address| address.host.contains(['@', '/', '?', '#'])) {
            return Err(URL.invalid("a host is a name or an address alone"));
        }
        if self.topology == Topology::Cluster && self.database != 0 {
            return Err(URL.invalid("a cluster has the database 0 only"));
        }
        if let Some(tls) = &self.tls {
            tls.check().map_err(|error| error.during("redis url"))?;
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
        if waits && self.readonly {
            return Err(URL.invalid("readonly=true takes no wait_replicas: replicas confirm what is written"));
        }
        if waits && self.wait_timeout >= self.timeout {
            return Err(URL.invalid("wait_timeout is less than timeout: the server waits, and then answers"));
        }
        Ok(())
    }
}

/// As [`Options::from_url`].
impl FromStr for Options {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

fn parse_credentials((user, password): (&str, Option<&str>)) -> Result<Credentials> {
    let user = Some(URL.decode(user, "the user")?).filter(|user| !user.is_empty());
    let password = password.map(|password| URL.decode(password, "the password")).transpose()?;
    if user.is_some() && password.is_none() {
        return Err(URL.invalid("a user has a password: user:password@host, or :password@host for the default user"));
    }
    Ok(Credentials { user, password })
}

fn parse_socket(hosts: &str, path: &str) -> Result<String> {
    if !hosts.is_empty() {
        return Err(URL.invalid("a socket is of this machine, and has no host: redis+unix:///path/of/the/socket"));
    }
    if path.is_empty() {
        return Err(URL.invalid("the path of a socket is absolute: redis+unix:///path/of/the/socket"));
    }
    Ok(format!("/{}", URL.decode(path, "the path of the socket")?))
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
            ("rediss://h", host().tls(Tls::new())),
            ("rediss://h?ca=/etc/ca.pem", host().tls(Tls::new().ca("/etc/ca.pem"))),
            ("rediss://h?tls_ca=a&tls_cert=c&tls_key=k", host().tls(Tls::new().ca("a").identity("c", "k"))),
            ("redis+sentinel://a,b:1/main", sentinel.clone()),
            ("redis+sentinel://a,b:1/main/2/app", sentinel.database(2).namespace("app")),
            ("redis+unix:///run/redis.sock", Options::unix("/run/redis.sock")),
            ("redis+unix://u:p@/run/a%20b?namespace=a/b&db=3", {
                Options::unix("/run/a b").namespace("a/b").database(3).credentials("u", "p")
            }),
            ("redis://h?wait_aof=yes", host().wait_aof()),
            ("redis+cluster://a,b:7/app", Options::cluster([("a", 6379), ("b", 7)]).namespace("app")),
            ("redis://h?timeout=250ms&connect_timeout=3s", {
                host().timeout(Duration::from_millis(250)).connect_timeout(Duration::from_secs(3))
            }),
            ("redis://h?wait_replicas=majority&reads=confirmed", host().wait_for_majority().confirmed_reads()),
            ("redis://h?readonly=true", host().readonly(true)),
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
            ("redis://h?tls_cert=x", "rediss://"),
            ("rediss://h?tls_key=x", "tls_cert=<file>"),
            ("redis://h?namespace=x", "redis+unix://"),
            ("redis+unix://u:secret@h/run/x", "no host"),
            ("redis+unix://", "absolute"),
            ("redis+unix:///run/x?ca=x", "rediss://"),
            ("redis://h?wait_aof=always", "wait_aof=no|yes"),
            ("redis://h?fsync=always", "appendfsync=any|always"),
            ("redis://h?fsync=always", "did you mean appendfsync?"),
            ("redis://u:1/secret@h/ns", "percent-encoded"),
            ("redis://u:1?secret@h/ns", "percent-encoded"),
            ("redis+sentinel://h/s?sentinel_password=a&secret", "percent-encoded"),
            ("redis://h?appendfsync=yes", "appendfsync=any|always"),
            ("redis://h?connections=0", "connections=1..64"),
            ("redis://h?readonly=1", "readonly=true|false"),
            ("redis://h?readonly=true&wait_replicas=1", "takes no wait_replicas"),
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
