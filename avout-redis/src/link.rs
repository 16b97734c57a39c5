//! Connections: finding the server that takes writes, looking whether it can be used, and entering the namespace.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use avout_core::backend::history::{Entered, Era, History, Survived};
use avout_core::protocol::{Floor, Realm};
use avout_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client as Driver, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo,
    RedisConnectionInfo, RedisError, TlsCertificates, Value,
};

use crate::cell::Clock;
use crate::error::{classify, moved};
use crate::gather::Gathering;
use crate::lanes::Home;
use crate::names::Names;
use crate::options::{Address, Credentials, Options, Topology};
use crate::scripts::{Loaded, Script};
use crate::server::{Server, check_settings};

/// The version of the layout that this library makes. It reads and writes the one before too, in which all is told to watchers
/// whether or not there are any.
const FORMAT: &str = "2";
/// How often a redirection is followed.
const HOPS: usize = 8;
/// How many requests may wait to be written to a connection, before their callers do.
const BUFFERED: usize = 1024;

/// A connection that has entered the namespace.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) scripts: Loaded,
    pub(crate) era: Era,
    pub(crate) address: Address,
    pub(crate) gathering: Gathering,
    /// What drives it.
    pub(crate) home: Home,
    dead: AtomicBool,
}

impl Link {
    /// No new requests are to use it.
    pub(crate) fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

/// What is learned of the namespace and its server by entering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) realm: Realm,
    /// The server writes each commit to its disk before it answers, as far as it lets that be seen.
    pub(crate) durable: bool,
}

/// Finds and makes connections.
#[derive(Debug)]
pub(crate) struct Connector {
    tls: Option<TlsCertificates>,
    /// Of a cluster, the node that had the slot.
    last: Mutex<Option<Address>>,
    next: AtomicUsize,
}

enum Failed {
    Moved(Address),
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Connector {
    pub(crate) async fn new(options: &Options) -> Result<Self> {
        let mut tls = None;
        if options.tls {
            // The driver leaves the cryptography to the process. It fails if another one was installed meanwhile, which is as good.
            if rustls::crypto::CryptoProvider::get_default().is_none() {
                let _ = rustls::crypto::ring::default_provider().install_default();
            }
            let mut root_cert = None;
            if let Some(path) = &options.ca {
                let failed = |error| {
                    let message = format!("the file of authorities {} cannot be read", path.display());
                    Error::new(ErrorKind::InvalidInput, message).with_source(error)
                };
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
                root_cert = Some(read.map_err(std::io::Error::other).flatten().map_err(failed)?);
            }
            tls = Some(TlsCertificates { client_tls: None, root_cert });
        }
        Ok(Self { tls, last: Mutex::default(), next: AtomicUsize::new(0) })
    }

    /// A plain connection.
    async fn open(
        &self,
        options: &Options,
        address: &Address,
        credentials: &Credentials,
        database: u32,
        listener: Option<Box<dyn Fn(PushInfo) + Send + Sync>>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let (host, port) = (address.host.clone(), address.port);
        let addr = match self.tls {
            None => ConnectionAddr::Tcp(host, port),
            Some(_) => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        };
        let mut settings = RedisConnectionInfo::default().set_db(database.into()).set_skip_set_lib_name();
        if let Some(user) = &credentials.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &credentials.password {
            settings = settings.set_password(password);
        }
        let mut config = AsyncConnectionConfig::new()
            // One server that does not answer must not use up the time of the others.
            .set_connection_timeout(Some(options.connect_timeout / if options.addresses.len() > 1 { 3 } else { 1 }))
            .set_response_timeout(Some(options.timeout))
            .set_pipeline_buffer_size(BUFFERED);
        if let Some(listener) = listener {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
            config = config.set_push_sender(move |push| -> Result<(), redis::aio::SendError> {
                listener(push);
                Ok(())
            });
        }
        let info = addr.into_connection_info()?;
        let info = info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        let driver = match &self.tls {
            Some(certificates) => Driver::build_with_tls(info, certificates.clone())?,
            None => Driver::open(info)?,
        };
        driver.get_multiplexed_async_connection_with_config(&config).await
    }

    /// A connection that listens, to the server that a link is connected to.
    pub(crate) async fn listen(
        &self,
        options: &Options,
        address: &Address,
        listener: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<MultiplexedConnection> {
        let listener = Some(Box::new(listener) as Box<_>);
        let opened = self.open(options, address, &options.credentials, options.database, listener).await;
        let mut connection = opened.map_err(unreachable_at(address))?;
        set_name(&mut connection, options).await;
        Ok(connection)
    }

    /// Where to begin, in this order: the server itself, the master that a sentinel names, or the nodes of the cluster.
    async fn begin(&self, options: &Options) -> Result<Vec<Address>> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % options.addresses.len();
        let in_turn = || options.addresses[at..].iter().chain(&options.addresses[..at]).cloned();
        match &options.topology {
            Topology::Single => Ok(options.addresses.clone()),
            Topology::Cluster => {
                let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(last.into_iter().chain(in_turn()).collect())
            }
            Topology::Sentinel { service } => {
                let mut failed = None;
                for sentinel in in_turn() {
                    match self.ask(options, &sentinel, service).await {
                        Ok(master) => return Ok(vec![master]),
                        Err(error) => failed = Some(error),
                    }
                }
                Err(failed.unwrap_or_else(|| Error::new(ErrorKind::InvalidInput, "there is no sentinel")))
            }
        }
    }

    async fn ask(&self, options: &Options, sentinel: &Address, service: &str) -> Result<Address> {
        let ask = async {
            let mut connection = self.open(options, sentinel, &options.sentinel_credentials, 0, None).await?;
            redis::cmd("SENTINEL")
                .arg("GET-MASTER-ADDR-BY-NAME")
                .arg(service)
                .query_async::<Option<(String, u16)>>(&mut connection)
                .await
        };
        let limit = options.connect_timeout / u32::try_from(options.addresses.len() + 1).unwrap_or(u32::MAX);
        match tokio::time::timeout(limit, ask).await {
            Ok(Ok(Some((host, port)))) => Ok(Address { host, port }),
            Ok(Ok(None)) => {
                let message = format!("the sentinel at {sentinel} knows no service of this name that has a master");
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            Ok(Err(error)) => Err(unreachable_at(sentinel)(error)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("the sentinel at {sentinel} does not answer"))),
        }
    }

    /// Connects to the server that takes writes, and enters the namespace.
    ///
    /// # Cancel safety
    /// Safe: entering can be done again.
    pub(crate) async fn enter(
        &self,
        options: &Options,
        names: &Names,
        history: &History,
        realm: Option<Realm>,
    ) -> Result<(Link, Found)> {
        let mut failed = None;
        for address in self.begin(options).await? {
            match self.enter_from(options, names, history, realm, address).await {
                // Another node of the cluster may know more.
                Err(error) if error.kind() == ErrorKind::Unavailable => failed = Some(error),
                done => return done,
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::InvalidInput, "there is no host")))
    }

    async fn enter_from(
        &self,
        options: &Options,
        names: &Names,
        history: &History,
        realm: Option<Realm>,
        mut address: Address,
    ) -> Result<(Link, Found)> {
        for _ in 0..HOPS {
            match self.enter_at(options, names, history, realm, &address).await {
                Ok(done) => {
                    *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(address);
                    return Ok(done);
                }
                Err(Failed::Moved(mut to)) => {
                    if to.host.is_empty() {
                        to.host = address.host;
                    }
                    address = to;
                }
                Err(Failed::Error(error)) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the nodes of the cluster do not agree where the namespace lies"))
    }

    async fn enter_at(
        &self,
        options: &Options,
        names: &Names,
        history: &History,
        realm: Option<Realm>,
        address: &Address,
    ) -> Result<(Link, Found), Failed> {
        let opened = self.open(options, address, &options.credentials, options.database, None).await;
        let mut connection = opened.map_err(unreachable_at(address))?;
        let refused = |error| classify(error, ErrorKind::Unavailable);
        let info: String = redis::cmd("INFO").query_async(&mut connection).await.map_err(refused)?;
        let server = Server::read(&info);
        server.check(options)?;
        let durable = check_settings(&mut connection, options, &server).await?;
        let scripts = Loaded::load(&mut connection).await.map_err(refused)?;
        set_name(&mut connection, options).await;

        let known = history.known();
        let mut knowledge = [0; 20];
        knowledge[..4].copy_from_slice(&known.era.number.to_be_bytes());
        knowledge[4..12].copy_from_slice(&known.era.id);
        knowledge[12..].copy_from_slice(&known.seen.to_be_bytes());
        let floor = Floor::default().to_record().encode()?;
        let keys = [&*names.meta, &names.cells, &names.names];
        let mut cmd = scripts.call(Script::Enter, &keys, 9, 512);
        cmd.arg(FORMAT)
            .arg(&server.identity)
            .arg(realm.map(|realm| realm.to_string()).unwrap_or_default())
            .arg(&knowledge[..])
            .arg(Realm::random().to_string())
            .arg(&rand::random::<[u8; 8]>()[..])
            .arg(Floor::key().as_str())
            .arg(floor)
            .arg(&rand::random::<[u8; 8]>()[..]);
        let reply = match cmd.query_async::<Vec<Value>>(&mut connection).await {
            Ok(reply) => reply,
            Err(error) => {
                return Err(match (&options.topology, moved(&error)) {
                    (Topology::Cluster, Some((host, port))) => Failed::Moved(Address { host: host.to_owned(), port }),
                    (_, Some(_)) => Failed::Error(
                        Error::new(ErrorKind::Unsupported, "the server is of a cluster: use redis+cluster://")
                            .with_source(error),
                    ),
                    _ => Failed::Error(refused(error)),
                });
            }
        };
        let Welcome { realm, era, clock, survived } = Welcome::read(&reply)?;
        match history.enter(known, era, clock, survived) {
            Entered::Current => {}
            Entered::Stale => {
                return Err(Error::new(ErrorKind::Unavailable, "the server changed while a connection was made").into());
            }
        }
        let link = Link {
            connection,
            scripts,
            era,
            address: address.clone(),
            gathering: Gathering::default(),
            home: Home::library(),
            dead: AtomicBool::new(false),
        };
        Ok((link, Found { realm, durable }))
    }
}

/// So that an operator finds avout's connections in `CLIENT LIST`. A user who may not do it goes on without.
async fn set_name(connection: &mut MultiplexedConnection, options: &Options) {
    let name: String = options.namespace.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
    let named = redis::cmd("CLIENT").arg("SETNAME").arg(format!("avout:{name}")).exec_async(connection).await;
    if let Err(error) = named {
        tracing::debug!(%error, "the connection has no name");
    }
}

fn unreachable_at(address: &Address) -> impl Fn(RedisError) -> Error {
    move |error| {
        let error = classify(error, ErrorKind::Unavailable);
        let message = match error.kind() {
            ErrorKind::Unavailable => format!("{address} cannot be reached"),
            _ => format!("{error} ({address})"),
        };
        let told = Error::new(error.kind(), message);
        match into_source(error) {
            Some((_, source)) => told.with_source(source),
            None => told,
        }
    }
}

/// The kind and the driver's error of an error of [`classify`].
fn into_source(error: Error) -> Option<(ErrorKind, RedisError)> {
    Some((error.kind(), error.downcast_ref::<RedisError>()?.clone()))
}

/// How the script of entering answers where all is well.
struct Welcome {
    realm: Realm,
    era: Era,
    clock: u64,
    survived: Option<Survived>,
}

impl Welcome {
    fn read(reply: &[Value]) -> Result<Self> {
        let text = |at: usize| match reply.get(at) {
            Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let foreign =
            || Error::new(ErrorKind::Mismatch, "a key of the namespace holds something that avout did not write");
        match text(0).unwrap_or_default() {
            "ok" => {
                let read = || {
                    let realm = text(1)?.parse().ok()?;
                    let Some(Value::Int(number)) = reply.get(2) else { return None };
                    let clock = Clock::read(reply.get(3)?)?;
                    let survived = match text(4)? {
                        "" => None,
                        "nothing" => Some(Survived::Nothing),
                        count => Some(Survived::UpTo(count.parse().ok()?)),
                    };
                    let era = Era { number: u32::try_from(*number).ok()?, id: clock.id };
                    Some(Self { realm, era, clock: clock.point, survived })
                };
                read().ok_or_else(foreign)
            }
            "lost" => Err(lost_namespace()),
            "foreign" => Err(foreign()),
            "format" => {
                let format: String = text(1).unwrap_or_default().chars().take(20).collect();
                let message = format!(
                    "the namespace has the format {format}, and this library knows {FORMAT}: use the library that made it"
                );
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            "denied" => {
                let message = format!("this user may not run {}, which avout needs", text(1).unwrap_or_default());
                Err(Error::new(ErrorKind::Denied, message))
            }
            _ => Err(Error::new(ErrorKind::Full, NO_POINTS)),
        }
    }
}

pub(crate) const NO_POINTS: &str = "the namespace has had as many commits, or restarts, as it can have";

/// The namespace is not the one that was opened.
pub(crate) fn lost_namespace() -> Error {
    let message = "the namespace is gone from the server, or another one is in its place: restore it, or open it anew";
    Error::new(ErrorKind::StoreLost, message)
}

/// Rounds up, so that a short time is not none.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
