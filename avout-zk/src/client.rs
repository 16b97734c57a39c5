use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use futures_util::future::Either;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use zookeeper::{Client as Zk, Error as ZkError, SaslOptions, SessionState, TlsOptions};

use crate::error::{classify, closed};
use crate::nodelay;
use crate::options::{Auth, Options, Reads, read_pem};
use crate::paths::Paths;

/// The longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The connections to the ensemble, and what is known of the namespace before it is opened.
///
/// Each connection is a session that one task looks after: it waits through losses of the connection, and makes a new session
/// when one expired. So a request finds a connection or waits for one, and no handle knows of sessions.
pub(crate) struct Client {
    pub(crate) options: Options,
    pub(crate) paths: Paths,
    links: Box<[Link]>,
}

struct Link {
    state: Arc<watch::Sender<State>>,
    /// Requests that are under way on it.
    load: AtomicUsize,
    /// Asks the task for a session, if it makes none by itself.
    wanted: Arc<Notify>,
    task: AbortHandle,
}

#[derive(Clone)]
pub(crate) enum State {
    /// No connection was needed yet.
    Idle,
    Connecting,
    /// Connected. Each time anew, with the same session or another, is another turn: what the server knew of a connection, such as
    /// its watches, is gone.
    Up {
        zk: Arc<Zk>,
        turn: u64,
    },
    /// The servers refuse the user.
    Refused(ZkError),
    Closed,
}

impl Client {
    pub(crate) fn new(options: Options) -> Self {
        let paths = Paths::new(options.namespace.clone());
        let links = (0..options.connections).map(|_| Link::new(options.clone())).collect();
        Self { options, paths, links }
    }

    /// The connection with the fewest requests under way. A server answers those of one session in their order, so a read
    /// behind a commit waits as long as that does.
    fn link(&self) -> &Link {
        let mut best = &self.links[0];
        for link in &self.links {
            let load = link.load.load(Ordering::Relaxed);
            let usable = match &*link.state.borrow() {
                State::Up { .. } => true,
                State::Idle => {
                    // All before it are busy: the next request will find it connected.
                    link.wanted.notify_one();
                    false
                }
                State::Connecting | State::Refused(_) | State::Closed => false,
            };
            if usable && load == 0 {
                return link;
            }
            if usable && load < best.load.load(Ordering::Relaxed) {
                best = link;
            }
        }
        best
    }

    /// The state of the connection that watches use.
    pub(crate) fn watching(&self) -> watch::Receiver<State> {
        self.links[0].state.subscribe()
    }

    /// The connection that watches use, with its turn.
    pub(crate) async fn watching_session(&self) -> Result<(Arc<Zk>, u64)> {
        self.links[0].session(self.options.timeout).await
    }

    /// Makes a request that may be made again. The outer error: there is no connection, or no answer.
    pub(crate) async fn ask<T, F>(&self, request: impl FnOnce(Arc<Zk>) -> F) -> Result<Result<T, ZkError>>
    where
        F: Future<Output = Result<T, ZkError>>,
    {
        self.request(ErrorKind::Unavailable, request).await
    }

    /// Brings the server up to all that was acknowledged before: what is asked behind it of the same session shows that. It is
    /// sent at once.
    pub(crate) fn catch_up<'a>(&self, zk: &'a Zk) -> impl Future<Output = Result<(), ZkError>> + Send + use<'a> {
        match self.options.reads_by() {
            Reads::Sync => Either::Left(zk.sync(&self.paths.clock)),
            Reads::Quorum => {
                let mut writer = zk.new_multi_writer();
                let added = writer.add_check_version(&self.paths.clock, -1);
                let write = writer.commit();
                Either::Right(async move {
                    added?;
                    write.await?;
                    Ok(())
                })
            }
        }
    }

    /// Makes a request once: its outcome is open if no answer comes. It is not begun without a connection.
    pub(crate) async fn send<T, E, F>(&self, request: impl FnOnce(Arc<Zk>) -> F) -> Result<Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.request(ErrorKind::OutcomeUnknown, request).await
    }

    async fn request<T, F>(&self, late: ErrorKind, request: impl FnOnce(Arc<Zk>) -> F) -> Result<T>
    where
        F: Future<Output = T>,
    {
        let answered = async {
            let link = self.link();
            let (zk, _) = link.session(self.options.timeout).await?;
            let _busy = Busy::new(&link.load);
            let answer = timeout(self.options.timeout, request(zk)).await;
            answer.map_err(|_| Error::new(late, "the server did not answer within the timeout"))
        };
        tasks::request(answered).await
    }

    /// Ends all sessions; later requests are [`Closed`](ErrorKind::Closed).
    pub(crate) fn close(&self) {
        for link in &self.links {
            link.task.abort();
            link.state.send_replace(State::Closed);
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

/// Counts a request while it is under way.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(load: &'a AtomicUsize) -> Self {
        load.fetch_add(1, Ordering::Relaxed);
        Self(load)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    fn new(options: Options) -> Self {
        let state = Arc::new(watch::Sender::new(State::Idle));
        let wanted = Arc::new(Notify::new());
        let task = tasks::connections().spawn(keep(options, Arc::clone(&state), Arc::clone(&wanted))).abort_handle();
        Self { state, load: AtomicUsize::new(0), wanted, task }
    }

    /// A session that is connected just now.
    async fn session(&self, limit: Duration) -> Result<(Arc<Zk>, u64)> {
        if let Some(session) = connected(&self.state.borrow()) {
            return Ok(session);
        }
        let mut state = self.state.subscribe();
        let connected = async {
            loop {
                {
                    let now = state.borrow_and_update();
                    if let Some(session) = connected(&now) {
                        return Ok(session);
                    }
                    match &*now {
                        State::Idle => self.wanted.notify_one(),
                        State::Refused(error) => {
                            // Another try, for the one who asks next: the password may have been mended at the servers.
                            self.wanted.notify_one();
                            return Err(classify(error.clone()));
                        }
                        State::Closed => return Err(closed()),
                        State::Connecting | State::Up { .. } => {}
                    }
                }
                if state.changed().await.is_err() {
                    return Err(closed());
                }
            }
        };
        match timeout(limit, connected).await {
            Ok(session) => session,
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "no server of the ensemble answers")),
        }
    }
}

/// The session, if it is not about to be told that its connection is lost.
fn connected(state: &State) -> Option<(Arc<Zk>, u64)> {
    match state {
        State::Up { zk, turn } if zk.state() == SessionState::SyncConnected => Some((Arc::clone(zk), *turn)),
        _ => None,
    }
}

/// Looks after one connection for as long as the client lives.
async fn keep(options: Options, state: Arc<watch::Sender<State>>, wanted: Arc<Notify>) {
    let mut turn = 0;
    let mut pause = Duration::from_millis(10);
    wanted.notified().await;
    state.send_replace(State::Connecting);
    loop {
        match connect(&options).await {
            Ok(zk) => {
                pause = Duration::from_millis(10);
                follow(Arc::new(zk), &options.servers, &state, &mut turn).await;
                // Its last state: what is under way on it has failed, and the session goes with the last handle on it.
                state.send_replace(State::Connecting);
            }
            Err(error @ (ZkError::AuthFailed | ZkError::BadArguments(_))) => {
                tracing::warn!(%error, "ZooKeeper refuses the client");
                state.send_replace(State::Refused(error));
                // Nobody is told the same more than once a second.
                tokio::time::sleep(LONGEST_PAUSE).await;
                wanted.notified().await;
                state.send_replace(State::Connecting);
            }
            Err(error) => {
                tracing::warn!(%error, "no connection to ZooKeeper, trying again");
                tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Tells of a session's connections until it ends.
async fn follow(zk: Arc<Zk>, servers: &str, state: &watch::Sender<State>, turn: &mut u64) {
    let mut changes = zk.state_watcher();
    let mut now = zk.state();
    while !now.is_terminated() {
        if now == SessionState::SyncConnected {
            let servers = servers.to_owned();
            // Without it all is slower, and as right.
            let _ = tokio::task::spawn_blocking(move || nodelay::set(&servers)).await;
            *turn += 1;
            state.send_replace(State::Up { zk: Arc::clone(&zk), turn: *turn });
        } else {
            tracing::info!(session = %zk.session_id(), "the connection to ZooKeeper was lost");
            state.send_replace(State::Connecting);
        }
        now = changes.changed().await;
    }
    tracing::info!(session = %zk.session_id(), end = %now, "the session with ZooKeeper ended, making a new one");
}

async fn connect(options: &Options) -> Result<Zk, ZkError> {
    let mut connector = Zk::connector().with_session_timeout(options.session_timeout);
    if let Some((user, password)) = &options.user {
        connector = match options.auth {
            Auth::Digest => connector.with_auth("digest", format!("{user}:{password}").as_bytes()),
            Auth::Sasl => connector.with_sasl(SaslOptions::digest_md5(user.clone(), password.clone())),
        };
    }
    let Some(tls) = &options.tls else {
        return connector.connect(&options.servers).await;
    };
    // The driver leaves the cryptography to the process, and panics if several are built in and none was chosen. Installing fails
    // if one was chosen meanwhile, which is as good.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    let read = |path| read_pem(path).map_err(|error| ZkError::UnexpectedError(error.to_string()));
    let mut certificates = TlsOptions::new().with_pem_ca(&read(&tls.ca)?)?;
    if let Some((certificate, key)) = &tls.identity {
        certificates = certificates.with_pem_identity(&read(certificate)?, &read(key)?)?;
    }
    connector.with_tls(certificates).secure_connect(&options.servers).await
}
