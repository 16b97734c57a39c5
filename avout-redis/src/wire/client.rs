//! One client of a namespace: its connections, and how they are made.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use avout_core::backend::Connection;
use avout_core::backend::history::History;
use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use redis::RedisError;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::connection::{Found, Home, Lane, Lanes, Link, Pace};
use super::error::closed;
use super::replicas::Confirmer;
use super::servers::Finder;
use super::verdict::{Verdict, verdict};
use crate::options::Options;
use crate::schema::{COUNT_BITS, Names};

/// A server that answers nothing for so long may not be the master any more.
const HUNG: Duration = Duration::from_secs(1);

pub(crate) struct Client {
    this: Weak<Self>,
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) history: History,
    pub(crate) connection: Arc<Connection>,
    pub(crate) finder: Finder,
    pub(crate) lanes: Lanes,
    pub(crate) confirmer: Arc<Confirmer>,
    /// Rung when the server may not be the master any more.
    pub(crate) doubts: Arc<Notify>,
    servers: watch::Sender<()>,
    pace: Pace,
    found: OnceLock<Found>,
    /// The process that opened it.
    process: u32,
    /// What goes on beside the requests.
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Client {
    pub(crate) fn new(options: Options, names: Names, finder: Finder) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            names,
            history: History::new(COUNT_BITS, Arc::default()),
            connection: Connection::new(),
            finder,
            lanes: Lanes::new(options.connections),
            confirmer: Arc::new(Confirmer::new()),
            doubts: Arc::default(),
            servers: watch::Sender::default(),
            pace: Pace::default(),
            found: OnceLock::new(),
            process: std::process::id(),
            tasks: Mutex::default(),
            options,
        })
    }

    /// What was learned when it first entered the namespace.
    pub(crate) fn found(&self) -> Found {
        *self.found.get().expect("a client is given out when it has entered the namespace")
    }

    pub(crate) fn known_realm(&self) -> Option<Realm> {
        self.found.get().map(|found| found.realm)
    }

    /// Keeps tasks that end with the client.
    pub(crate) fn own(&self, tasks: impl IntoIterator<Item = AbortHandle>) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(tasks);
    }

    /// The server may not be the master any more: whoever knows is asked.
    pub(crate) fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Does what asks a server, and doubts it again and again once that takes longer than an answer should, and `more`.
    pub(crate) async fn doubting<T>(&self, more: Duration, ask: impl Future<Output = T>) -> T {
        tokio::select! {
            done = ask => done,
            never = self.doubt_again_and_again(more) => match never {},
        }
    }

    async fn doubt_again_and_again(&self, more: Duration) -> Infallible {
        sleep(more).await;
        loop {
            sleep(HUNG).await;
            self.doubt();
        }
    }

    /// What is told when requests go to another server than before.
    pub(crate) fn server_changes(&self) -> watch::Receiver<()> {
        self.servers.subscribe()
    }

    /// Requests go to another server than before.
    pub(crate) fn another_server(&self) {
        self.servers.send_replace(());
    }

    /// Does with a connection what an answer asks for.
    pub(crate) fn heed(&self, link: &Link, error: &RedisError) -> Verdict {
        let verdict = verdict(error);
        match &verdict {
            Verdict::Keep | Verdict::Asked(_) | Verdict::Moving => {}
            Verdict::Doubt => self.doubt(),
            Verdict::Anew => link.retire(),
            Verdict::Moved(to) => {
                if let Some(to) = to.as_ref().filter(|to| !to.host.is_empty()) {
                    self.finder.is_at(to);
                }
                link.retire();
            }
            Verdict::Leave => {
                self.pace.ended(link.begun.elapsed());
                link.retire();
            }
        }
        verdict
    }

    /// Any connection that has entered the namespace.
    pub(crate) async fn any_link(&self) -> Result<Arc<Link>> {
        match self.lanes.links().into_iter().next() {
            Some(link) => Ok(link),
            None => self.connected(&Home::library()).await,
        }
    }

    /// A connection that has entered the namespace, made if need be.
    ///
    /// # Errors
    /// As for entering the namespace; nothing was sent of the request.
    pub(crate) async fn connected(&self, home: &Home) -> Result<Arc<Link>> {
        // Connections do not survive a fork.
        if std::process::id() != self.process {
            return Err(Error::new(ErrorKind::Misuse, "it was opened before a fork; open it again in the child"));
        }
        let (lanes, at) = self.lanes.of(home);
        match lanes[at].current() {
            Some(link) => Ok(link),
            None => self.connect(home, lanes, at).await,
        }
    }

    /// The same, after those connections were given up that are broken and that nobody has used since.
    pub(crate) async fn verified(&self) -> Result<Arc<Link>> {
        for link in self.lanes.links() {
            if let Err(error) = link.wire.ask::<()>(&redis::cmd("PING")).await {
                self.heed(&link, &error);
            }
        }
        self.connected(&Home::here()).await
    }

    /// A task of its own makes the connection, since others wait for it too: the caller may stay away between two looks.
    async fn connect(&self, home: &Home, lanes: Arc<[Lane]>, at: usize) -> Result<Arc<Link>> {
        let make = |home: Home| {
            let (client, lanes) = (self.this.upgrade(), Arc::clone(&lanes));
            home.runtime().spawn(async move { client.ok_or_else(closed)?.make_link(&lanes[at], home).await })
        };
        let mut made = make(home.clone()).await;
        // A runtime that was built without the network or time, or that has ended. The library's has both, and goes on.
        if made.is_err() {
            made = make(Home::library()).await;
        }
        made.map_err(|error| Error::new(ErrorKind::Unavailable, "no connection was made").with_source(error))?
    }

    async fn make_link(self: &Arc<Self>, lane: &Lane, home: Home) -> Result<Arc<Link>> {
        let asked = Instant::now();
        let mut turn = lane.turn.lock().await;
        if let Some(link) = lane.current() {
            return Ok(link);
        }
        // Who waited while another one failed does not try the same again.
        if let Some((_, kind, message)) = turn.as_ref().filter(|(at, ..)| *at >= asked) {
            return Err(Error::new(*kind, message.clone()));
        }
        match self.enter(home).await {
            Ok(link) => {
                *turn = None;
                let link = Arc::new(link);
                let doubts = Arc::clone(&self.doubts);
                link.guard(HUNG.min(self.options.timeout), self.options.timeout, move || doubts.notify_one());
                let earlier = lane.put(Arc::clone(&link));
                if earlier.is_some_and(|earlier| earlier.era != link.era || earlier.address != link.address) {
                    self.another_server();
                }
                Ok(link)
            }
            Err(error) => {
                *turn = Some((Instant::now(), error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    async fn enter(self: &Arc<Self>, home: Home) -> Result<Link> {
        sleep(self.pace.pause()).await;
        let limit = self.options.connect_timeout;
        let late = || Error::new(ErrorKind::Unavailable, format!("no connection could be made within {limit:?}"));
        let (mut link, found) = tokio::time::timeout(limit, self.enter_anywhere()).await.map_err(|_| late())??;
        link.home = home;
        self.found.get_or_init(|| found);
        Ok(link)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
    }
}
