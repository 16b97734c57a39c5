use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use avout_core::backend::{LONGEST_TIME, UrlParts, UrlReader};
use avout_core::{Error, Result};
use mongodb::options::ClientOptions;

/// Where the servers are, which namespace on them, and how it is used.
///
/// `Debug` shows neither user nor password.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use avout_mongo::Options;
///
/// # fn f() -> avout_core::Result<()> {
/// let options = Options::from_url("mongodb://db1,db2,db3/shop?replicaSet=rs0&namespace=orders&timeout=5s")?;
/// let same = Options::from_url("mongodb://db1,db2,db3/shop?replicaSet=rs0")?
///     .namespace("orders")?
///     .timeout(Duration::from_secs(5));
/// # Ok(()) }
/// ```
#[derive(Clone, PartialEq)]
pub struct Options {
    pub(crate) driver: Driver,
    pub(crate) database: String,
    pub(crate) namespace: String,
    pub(crate) timeout: Duration,
    pub(crate) documents: bool,
    pub(crate) readonly: bool,
}

/// Where the driver's own options come from.
#[derive(Clone, PartialEq)]
pub(crate) enum Driver {
    /// The URL without the options that are avout's.
    Url(String),
    Ready(Box<ClientOptions>),
}

const URL: UrlReader = UrlReader::new("mongodb url", KNOWN);
const KNOWN: &str = "namespace=<name>, timeout=<number>ms|s, documents=true|false, readonly=true|false, and the driver's appName, \
    authMechanism, authMechanismProperties, authSource, connectTimeoutMS, directConnection, heartbeatFrequencyMS, \
    localThresholdMS, maxConnecting, maxIdleTimeMS, maxPoolSize, minPoolSize, replicaSet, serverMonitoringMode, \
    serverSelectionTimeoutMS, srvMaxHosts, srvServiceName, ssl, tls, tlsAllowInvalidCertificates, \
    tlsAllowInvalidHostnames, tlsCAFile, tlsCertificateKeyFile, tlsCertificateKeyFilePassword, \
    tlsInsecure";

/// The driver's options that are passed on as they are.
const PASSED: &[&str] = &[
    "appName",
    "authMechanism",
    "authMechanismProperties",
    "authSource",
    "connectTimeoutMS",
    "directConnection",
    "heartbeatFrequencyMS",
    "localThresholdMS",
    "maxConnecting",
    "maxIdleTimeMS",
    "maxPoolSize",
    "minPoolSize",
    "replicaSet",
    "serverMonitoringMode",
    "serverSelectionTimeoutMS",
    "srvMaxHosts",
    "srvServiceName",
    "ssl",
    "tls",
    "tlsAllowInvalidCertificates",
    "tlsAllowInvalidHostnames",
    "tlsCAFile",
    "tlsCertificateKeyFile",
    "tlsCertificateKeyFilePassword",
    "tlsInsecure",
];

/// Options that would weaken what avout promises, with the values that change nothing. They are often in a URL that was
/// copied from somewhere.
const FIXED: &[(&str, &[&str], &str)] = &[
    ("w", &["majority"], "every write waits for a majority of the servers"),
    ("journal", &["true"], "every write waits for the journal"),
    ("readConcernLevel", &["majority", "snapshot", "linearizable"], "reads are of what a majority has"),
    ("readPreference", &["primary"], "reads go to the primary"),
    ("retryWrites", &["true", "false"], ""),
    ("retryReads", &["true", "false"], ""),
];

impl Options {
    /// Reads a MongoDB connection string: `mongodb://` or `mongodb+srv://`, servers, `/`, the name of the database, and
    /// options after a `?`. Its own options are `namespace` (`avout` unless set: the prefix of the collections' names),
    /// `timeout` (of each request, `10s` unless set), `documents` (`false` unless set: see [`documents`](Self::documents)), and
    /// `readonly` (`false` unless set: see [`readonly`](Self::readonly)).
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) says what is wrong, and shows no part of the URL but the name of an
    /// option; for an unknown option it lists the known ones.
    pub fn from_url(url: &str) -> Result<Self> {
        let (scheme, rest) = ["mongodb://", "mongodb+srv://"]
            .iter()
            .find_map(|scheme| Some((*scheme, url.strip_prefix(*scheme)?)))
            .ok_or_else(|| invalid("the text starts with mongodb:// or mongodb+srv://"))?;
        let UrlParts { credentials, hosts, path: database, query } = URL.split(rest)?;
        hosts.split(',').try_for_each(|host| URL.address(host).map(drop))?;
        if database.is_empty() {
            return Err(invalid("the servers are followed by the name of a database, as in mongodb://localhost/shop"));
        }
        // The driver takes an @ or a colon in a password only if it is encoded.
        let encoded = |text: &str| text.replace('@', "%40").replace(':', "%3A");
        let credentials = match credentials {
            None => String::new(),
            Some((user, None)) => format!("{}@", encoded(user)),
            Some((user, Some(password))) => format!("{}:{}@", encoded(user), encoded(password)),
        };
        let base = format!("{scheme}{credentials}{hosts}/{database}");
        let database = URL.decode(database, "the database")?;
        check_database(&database)?;
        let mut options = Self::of(Driver::Url(String::new()), database);
        let mut passed = Vec::new();
        for (name, value) in UrlReader::pairs(query) {
            let known = |other: &&&str| other.eq_ignore_ascii_case(name);
            if PASSED.iter().any(|other| known(&other)) {
                passed.push(format!("{name}={value}"));
            } else if let Some((_, allowed, why)) = FIXED.iter().find(|(other, ..)| known(&other)) {
                if !allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(value)) {
                    let allowed = allowed.join(" or ");
                    return Err(invalid(format!("the option {name} can only be {allowed}, since {why}: leave it out")));
                }
            } else {
                options = options.with(name, value)?;
            }
        }
        let question = if passed.is_empty() { "" } else { "?" };
        options.driver = Driver::Url(format!("{base}{question}{}", passed.join("&")));
        Ok(options)
    }

    /// Takes the driver's own options in place of a URL: for what no URL says, such as callbacks for OIDC or a handler of the driver's
    /// events, and for applications that have them already. The namespace lies in `database`.
    ///
    /// A [`mongodb::Client`] that is made already cannot be taken: which server answers is known by the events of its connections, to
    /// which nobody can listen later. What avout needs is set here, whatever the options say: retries are off, since avout
    /// decides itself what may be sent again; reads and writes have levels of their own; the driver's name is avout's, by which its
    /// sessions are found; one more connection is for the change stream; and the event handlers of connections and of the topology
    /// are called after avout's own. Servers, TLS, credentials, times, the size of the pool and all else stay as they are.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the name of the database, a load balancer, or the strict mode of the stable
    /// API, in which transactions cannot be made one request at a time.
    ///
    /// # Examples
    /// ```no_run
    /// use avout_mongo::{Options, mongodb::options::ClientOptions};
    ///
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let driver = ClientOptions::parse("mongodb://db1,db2,db3/?replicaSet=rs0").await?;
    /// let backend = Options::from_driver(driver, "shop")?.namespace("orders")?.open().await?;
    /// # let _ = backend;
    /// # Ok(()) }
    /// ```
    ///
    /// With tokens of OIDC that the application gets itself:
    /// ```no_run
    /// use avout_mongo::Options;
    /// use avout_mongo::mongodb::options::oidc::{Callback, IdpServerResponse};
    /// use avout_mongo::mongodb::options::{AuthMechanism, ClientOptions, Credential};
    ///
    /// # async fn token() -> String { String::new() }
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut driver = ClientOptions::parse("mongodb://db1,db2,db3/?replicaSet=rs0").await?;
    /// let callback = Callback::machine(|_| {
    ///     Box::pin(async { Ok(IdpServerResponse::builder().access_token(token().await).build()) })
    /// });
    /// let oidc = Credential::builder().mechanism(AuthMechanism::MongoDbOidc).oidc_callback(callback);
    /// driver.credential = Some(oidc.build());
    /// let backend = Options::from_driver(driver, "shop")?.open().await?;
    /// # let _ = backend;
    /// # Ok(()) }
    /// ```
    pub fn from_driver(options: ClientOptions, database: &str) -> Result<Self> {
        check_database(database)?;
        if options.load_balanced == Some(true) {
            return Err(invalid("a load balancer hides the servers that transactions need: name them"));
        }
        if options.server_api.as_ref().is_some_and(|api| api.strict == Some(true)) {
            return Err(invalid("the stable API's strict mode has not all that avout needs: leave it out"));
        }
        Ok(Self::of(Driver::Ready(Box::new(options)), database.to_owned()))
    }

    fn of(driver: Driver, database: String) -> Self {
        let timeout = Duration::from_secs(10);
        Self { driver, database, namespace: "avout".into(), timeout, documents: false, readonly: false }
    }

    fn with(self, name: &str, value: &str) -> Result<Self> {
        Ok(match name {
            "namespace" => self.namespace(&URL.decode(value, "the namespace")?)?,
            "timeout" => self.timeout(URL.duration(name, value, Duration::from_millis(1)..=Duration::MAX)?),
            "documents" => self.documents(URL.flag(name, value)?),
            "readonly" => self.readonly(URL.flag(name, value)?),
            _ => return Err(URL.unknown(name)),
        })
    }

    /// The namespace in the database: the collections are named `<namespace>.refs` and so on. `avout` unless set.
    ///
    /// # Errors
    /// [`InvalidInput`](avout_core::ErrorKind::InvalidInput) unless it has 1 to 64 of `a-z`, `A-Z`, `0-9`, `_` and `-`.
    pub fn namespace(mut self, name: &str) -> Result<Self> {
        let fine = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > 64 || !name.chars().all(fine) {
            return Err(invalid("a namespace has 1 to 64 letters, digits, _ and -"));
        }
        self.namespace = name.to_owned();
        Ok(self)
    }

    /// How long one request may take, the choice of a server included; after that it is
    /// [`Unavailable`](avout_core::ErrorKind::Unavailable), or [`OutcomeUnknown`](avout_core::ErrorKind::OutcomeUnknown) for a write. 10 seconds
    /// unless set, from 1 ms to a day.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.clamp(Duration::from_millis(1), LONGEST_TIME);
        self
    }

    /// Whether values that this client writes are kept as native BSON too, in the field `v` beside their bytes, so that
    /// other tools can query them. Off unless set. avout reads the bytes alone.
    ///
    /// It takes the codecs [`MessagePack`](avout_core::MessagePack) and [`Json`](avout_core::Json). A value that BSON
    /// cannot hold is refused as [`Codec`](avout_core::ErrorKind::Codec): integers from 2^63 on, and maps whose keys are not texts; one
    /// of more than 4 MiB as BSON is [`TooLarge`](avout_core::ErrorKind::TooLarge).
    #[must_use]
    pub fn documents(mut self, documents: bool) -> Self {
        self.documents = documents;
        self
    }

    /// The client only reads: it makes no collection, marks none and begins no era, so a user with the right to read will do. A
    /// namespace that is not there is [`NotFound`](avout_core::ErrorKind::NotFound) when it is opened, and whatever would write is
    /// [`Denied`](avout_core::ErrorKind::Denied). `false` unless set.
    #[must_use]
    pub fn readonly(mut self, readonly: bool) -> Self {
        self.readonly = readonly;
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("database", &self.database)
            .field("namespace", &self.namespace)
            .field("timeout", &self.timeout)
            .field("documents", &self.documents)
            .field("readonly", &self.readonly)
            .finish_non_exhaustive()
    }
}

/// As [`Options::from_url`].
impl FromStr for Options {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::from_url(url)
    }
}

fn check_database(name: &str) -> Result<()> {
    if name.len() > 63 || name.chars().any(|c| c.is_control() || "/\\. \"$*<>:|?".contains(c)) {
        return Err(invalid("a database's name has at most 63 bytes, and none of / \\ . \" $ * < > : | ? or space"));
    }
    if ["admin", "local", "config"].contains(&name) {
        return Err(invalid("admin, local and config are the server's own databases: name another one"));
    }
    Ok(())
}

/// The URL is wrong, in these words.
pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Error {
    URL.invalid(message)
}

#[cfg(test)]
mod tests {
    use avout_core::ErrorKind;

    use super::*;

    /// The message about an unknown option names each that is passed on.
    #[test]
    fn tells_all_options() {
        assert!(PASSED.iter().all(|name| KNOWN.contains(&format!(" {name}"))));
    }

    fn url_of(options: &Options) -> &str {
        match &options.driver {
            Driver::Url(url) => url,
            Driver::Ready(_) => panic!("it is of a URL"),
        }
    }

    /// The text form gives the options that the builder gives, and the driver gets what is the driver's.
    #[test]
    fn reads_urls() {
        let plain = Options::from_url("mongodb://h/shop").expect("a URL");
        assert_eq!((url_of(&plain), &*plain.database, &*plain.namespace), ("mongodb://h/shop", "shop", "avout"));
        let full = "mongodb://u:p@a:1,b:2/shop?replicaSet=rs0&namespace=n-1&w=majority&timeout=250ms&retryWrites=true\
                    &readonly=true";
        let full = Options::from_url(full).expect("a URL");
        assert_eq!(url_of(&full), "mongodb://u:p@a:1,b:2/shop?replicaSet=rs0");
        assert_eq!((&*full.namespace, full.timeout), ("n-1", Duration::from_millis(250)));
        let again = Options::from_url("mongodb://u:p@a:1,b:2/shop?replicaSet=rs0").and_then(|o| o.namespace("n-1"));
        assert!(again.expect("a URL").timeout(Duration::from_millis(250)).readonly(true) == full);
        let unescaped = Options::from_url("mongodb://u:p@s:t@h/shop").expect("a URL");
        assert_eq!(url_of(&unescaped), "mongodb://u:p%40s%3At@h/shop");
        let cased = Options::from_url("mongodb+srv://h/a%2Bb?MAXPOOLSIZE=3&tls=true").expect("a URL");
        assert_eq!((url_of(&cased), &*cased.database), ("mongodb+srv://h/a%2Bb?MAXPOOLSIZE=3&tls=true", "a+b"));
    }

    /// A text that is wrong is refused. The message helps, and shows nothing of the servers and the user.
    #[test]
    fn refuses_wrong_urls() {
        for (url, help) in [
            ("redis://secret", "mongodb:// or mongodb+srv://"),
            ("mongodb://secret", "name of a database"),
            ("mongodb://user:secret@h/", "name of a database"),
            ("mongodb://user:secret@h/?replicaSet=rs0", "name of a database"),
            ("mongodb://user:secret@h/admin", "name another one"),
            ("mongodb://user:secret@h/a.b", "none of"),
            ("mongodb://user:secret@h/a%2Fb", "none of"),
            ("mongodb://user:1/secret@h/x", "percent-encoded"),
            ("mongodb://user:1?secret@h/x", "percent-encoded"),
            ("mongodb://user:secret/x", "its port"),
            ("mongodb://user:secret@h/x?w=1", "can only be majority"),
            ("mongodb://user:secret@h/x?w=0", "can only be majority"),
            ("mongodb://user:secret@h/x?journal=false", "can only be true"),
            ("mongodb://user:secret@h/x?readConcernLevel=local", "majority or snapshot"),
            ("mongodb://user:secret@h/x?readPreference=secondary", "can only be primary"),
            ("mongodb://user:secret@h/x?pool=3", "maxPoolSize"),
            ("mongodb://user:secret@h/x?pool=3", "namespace=<name>"),
            ("mongodb://user:secret@h/x?timeout=3", "<number>ms|s"),
            ("mongodb://user:secret@h/x?readonly=yes", "readonly=true|false"),
            ("mongodb://user:secret@h/x?namespace=", "1 to 64"),
            ("mongodb://user:secret@h/x?namespace=a.b", "1 to 64"),
            ("mongodb://user:secret@h/x?namespace=$a", "1 to 64"),
        ] {
            let error = Options::from_url(url).expect_err(url);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            let text = format!("{error} {error:?}");
            assert!(text.contains(help) && !text.contains("secret"), "{url}: {text}");
        }
    }

    /// `Debug` shows neither user nor password.
    #[test]
    fn debug_keeps_secrets() {
        let options = Options::from_url("mongodb://somebody:secret@h/x").expect("a URL");
        let text = format!("{options:?}");
        assert!(text.contains("\"x\"") && !text.contains("secret") && !text.contains("somebody"), "{text}");
    }
}
