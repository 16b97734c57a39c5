//! Plain connections to servers, over TCP and TLS.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::backend::Up;
use avout_core::{Error, ErrorKind, Result};
use avout_tls::Tls;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, RedisResult};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::pulse::{Heard, Pulse};
use crate::options::{Address, Credentials, Options, Source};
use crate::wire::{classify, is_answer};

/// How many requests may wait to be written to a connection, before their callers do.
const BUFFERED: usize = 1024;

/// What is told without being asked for.
pub(crate) type Listener = Box<dyn Fn(PushInfo) + Send + Sync>;

/// Makes connections.
pub(crate) struct Dialer {
    tls: Option<(Tls, TlsConnector)>,
    timeout: Duration,
    limit: Duration,
    name: String,
    /// The connections whose credentials may change.
    open: Mutex<Vec<(MultiplexedConnection, AbortHandle)>>,
}

/// A connection, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) connection: MultiplexedConnection,
    pub(crate) pulse: Arc<Pulse>,
    /// Counts it as one by which requests go, until it ends.
    counted: Arc<Counted>,
    driver: AbortHandle,
    /// The node does not have the slot yet: each command is preceded by `ASKING`, without which it answers with the node that has.
    asking: bool,
}

/// Whether a connection counts as one by which requests go.
#[derive(Debug, Default)]
struct Counted(Mutex<Presence>);

#[derive(Debug, Default)]
struct Presence {
    up: Option<Up>,
    ended: bool,
}

impl Counted {
    fn lock(&self) -> MutexGuard<'_, Presence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Held by what drives a connection.
struct Driven(Arc<Counted>);

impl Drop for Driven {
    fn drop(&mut self) {
        let mut presence = self.0.lock();
        presence.ended = true;
        drop(presence.up.take());
    }
}

impl Wire {
    /// Ends it. All that is under way has lost its reply.
    pub(crate) fn cut(&self) {
        self.driver.abort();
    }

    /// Requests go by it from now on.
    pub(crate) fn counts(&self, up: Up) {
        let mut presence = self.counted.lock();
        if !presence.ended {
            presence.up = Some(up);
        }
    }

    /// From now on it asks a node for what is there of a slot that is on its way to it. The node takes it well when it has the slot.
    pub(crate) fn asking(mut self, asking: bool) -> Self {
        self.asking = asking;
        self
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        if self.asking {
            let mut one = redis::Pipeline::with_capacity(1);
            one.add_command(command.clone());
            return self.ask_all::<(T,)>(&one).await.map(|(answer,)| answer);
        }
        let asked = self.pulse.asked();
        let answer = command.query_async(&mut self.connection.clone()).await;
        asked.end();
        answer.map_err(|error| self.pulse.cause(error))
    }

    /// Sends several commands together.
    pub(crate) async fn ask_all<T: redis::FromRedisValue>(&self, commands: &redis::Pipeline) -> RedisResult<T> {
        let asked = self.pulse.asked();
        let answer = if self.asking {
            let mut all = redis::pipe();
            for command in commands.cmd_iter() {
                all.cmd("ASKING").ignore().add_command(command.clone());
            }
            all.query_async(&mut self.connection.clone()).await
        } else {
            commands.query_async(&mut self.connection.clone()).await
        };
        asked.end();
        answer.map_err(|error| self.pulse.cause(error))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Dialer {
    pub(crate) async fn new(options: &Options) -> Result<Self> {
        let tls = match &options.tls {
            Some(tls) => Some((tls.clone(), TlsConnector::from(tls.config().await?))),
            None => None,
        };
        let name = options.namespace.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).collect();
        // One server that does not answer must not use up the time of the others.
        let limit = options.connect_timeout / if options.addresses.len() > 1 { 3 } else { 1 };
        Ok(Self { tls, timeout: options.timeout, limit, name, open: Mutex::default() })
    }

    /// Connects. `listener` hears what the server tells by itself.
    pub(crate) async fn dial(
        &self,
        address: &Address,
        source: &Source,
        database: u32,
        listener: Option<Listener>,
    ) -> Result<Wire> {
        let unreachable = unreachable_at(address);
        let secure = match &self.tls {
            Some((tls, connector)) => Some((connector, tls.name_at(&address.host)?)),
            None => None,
        };
        let credentials = &self.credentials(source).await?;
        let dialling = async {
            if let Some(path) = address.socket() {
                return self.begin(socket(path).await?, credentials, listener).await;
            }
            let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
            stream.set_nodelay(true)?;
            match secure {
                Some((tls, name)) => self.begin(tls.connect(name, stream).await?, credentials, listener).await,
                None => self.begin(stream, credentials, listener).await,
            }
        };
        let late = |_| RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
        let wire = timeout(self.limit, dialling).await.map_err(late).flatten().map_err(&unreachable)?;
        if database != 0 {
            let selected = wire.ask::<()>(redis::cmd("SELECT").arg(database)).await;
            selected.map_err(|error| refused_select(error, address))?;
        }
        if matches!(source, Source::Provided(_)) {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|(_, driver)| !driver.is_finished());
            open.push((wire.connection.clone(), wire.driver.clone()));
        }
        Ok(wire)
    }

    async fn credentials(&self, source: &Source) -> Result<Credentials> {
        let late = |_| {
            let message = format!("the provider of credentials gives none within {:?}", self.limit);
            Error::new(ErrorKind::Unavailable, message)
        };
        timeout(self.limit, source.get()).await.map_err(late)?
    }

    /// Gives the credentials of the moment to all connections that are open and had theirs from a provider.
    ///
    /// # Errors
    /// The provider's, and the first that a server refuses; such a connection stays as it was.
    pub(crate) async fn reauthenticate(&self, source: &Source) -> Result<()> {
        let open = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|(_, driver)| !driver.is_finished());
            open.clone()
        };
        if open.is_empty() {
            return Ok(());
        }
        let credentials = self.credentials(source).await?;
        let mut auth = redis::cmd("AUTH");
        auth.arg(credentials.user.as_deref().unwrap_or("default")).arg(credentials.password.as_deref());
        let mut refused = None;
        for (mut connection, _) in open {
            match auth.query_async::<()>(&mut connection).await {
                // One that has ended is made again with them.
                Err(error) if is_answer(&error) => refused = refused.or(Some(error)),
                _ => {}
            }
        }
        refused.map_or(Ok(()), |error| Err(classify(error, ErrorKind::Unavailable)))
    }

    async fn begin(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        credentials: &Credentials,
        listener: Option<Listener>,
    ) -> RedisResult<Wire> {
        let pulse = Arc::<Pulse>::default();
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name();
        if let Some(user) = &credentials.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &credentials.password {
            settings = settings.set_password(password);
        }
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(Some(self.timeout))
            .set_pipeline_buffer_size(BUFFERED);
        if let Some(listener) = listener {
            settings = settings.set_protocol(ProtocolVersion::RESP3);
            config = config.set_push_sender(move |push| -> Result<(), redis::aio::SendError> {
                listener(push);
                Ok(())
            });
        }
        let stream = Heard::new(stream, Arc::clone(&pulse));
        let made = MultiplexedConnection::new_with_config(&settings, stream, config).await;
        let (connection, driver) = made.map_err(|error| pulse.cause(error))?;
        let counted = Arc::<Counted>::default();
        let driven = Driven(Arc::clone(&counted));
        let drive = async move {
            let _driven = driven;
            driver.await;
        };
        let driver = tokio::spawn(drive).abort_handle();
        Ok(Wire { connection, pulse, counted, driver, asking: false })
    }

    /// So that an operator finds avout's connections in `CLIENT LIST`. A user who may not do it goes on without.
    pub(crate) async fn set_name(&self, wire: &Wire) {
        let mut name = redis::cmd("CLIENT");
        name.arg("SETNAME").arg(format!("avout:{}", self.name));
        if let Err(error) = wire.ask::<()>(&name).await {
            tracing::debug!(%error, "the connection has no name");
        }
    }
}

impl std::fmt::Debug for Dialer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialer").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

#[cfg(unix)]
async fn socket(path: &Path) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(path).await
}

#[cfg(not(unix))]
async fn socket(_: &Path) -> io::Result<TcpStream> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no such sockets"))
}

fn refused_select(error: RedisError, address: &Address) -> Error {
    if error.code() == Some("NOPERM") {
        let message =
            "this user may not run SELECT, which a database other than 0 needs: grant +select, or use the database 0";
        return Error::new(ErrorKind::Denied, message).with_source(error);
    }
    if is_answer(&error) && error.code() == Some("ERR") {
        let message = "the server has no database of this number: see its setting `databases`";
        return Error::new(ErrorKind::InvalidInput, message).with_source(error);
    }
    unreachable_at(address)(error)
}

/// What it means that a server could not be asked.
pub(crate) fn unreachable_at(address: &Address) -> impl Fn(RedisError) -> Error {
    move |error| {
        let error = classify(error, ErrorKind::Unavailable);
        let message = match error.kind() {
            ErrorKind::Unavailable if error.downcast_ref::<RedisError>().is_none_or(|source| !is_answer(source)) => {
                format!("{address} cannot be reached")
            }
            _ => format!("{error} ({address})"),
        };
        let told = Error::new(error.kind(), message);
        match error.downcast_ref::<RedisError>() {
            Some(source) => told.with_source(source.clone()),
            None => told,
        }
    }
}
