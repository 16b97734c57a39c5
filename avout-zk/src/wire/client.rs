use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use avout_core::backend::history::{Era, History, Losses};
use avout_core::backend::{Connection, tasks};
use avout_core::{Error, ErrorKind, Result};
use futures_util::future::Either;
use tokio::sync::watch;
use tokio::time::timeout;
use zookeeper::{Client as Zk, Error as ZkError};

use super::enter::{Entrance, enter};
use super::link::{Entered, Fit, Link, State};
use crate::options::{Options, Reads};
use crate::schema::{Opened, Paths};

/// The connections to the ensemble, and what is known of the namespace.
///
/// Each connection is a session of its own, which ends with it. Before the first request goes by a connection, the namespace is entered
/// there: see [`enter`](super::enter).
pub(crate) struct Client {
    pub(crate) options: Arc<Options>,
    pub(crate) paths: Arc<Paths>,
    pub(crate) history: Arc<History>,
    pub(crate) connection: Arc<Connection>,
    opened: OnceLock<Opened>,
    /// Whether reads take a majority.
    quorum: Arc<AtomicBool>,
    /// A large value was written, and somebody was told of it.
    warned: AtomicBool,
    links: Box<[Arc<Link>]>,
    /// Connections and their thread do not survive a fork, so a child must not go on with its parent's client.
    process: u32,
}

/// Where a request stands: the connection that it goes by, and what was known of the history there before it went.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) zk: Arc<Zk>,
    pub(crate) era: Era,
    /// How many losses had been found: what was read when there were fewer may be of a history that is gone.
    pub(crate) generation: u32,
    /// Why nothing can be committed here.
    refused: Option<Error>,
    link: usize,
}

impl Client {
    pub(crate) fn new(options: Options) -> Self {
        let paths = Arc::new(Paths::new(options.namespace.clone()));
        let connection = Connection::new();
        let links = (0..options.connections).map(|_| Arc::new(Link::new(options.clone(), &connection))).collect();
        // Until the servers have told how many they are.
        let quorum = Arc::new(AtomicBool::new(options.reads != Some(Reads::Sync)));
        // Points count changes of the servers' data, and know no eras.
        let history = Arc::new(History::new(64, Arc::new(Losses::new())));
        let options = Arc::new(options);
        let (opened, warned) = (OnceLock::new(), AtomicBool::new(false));
        Self { options, paths, history, connection, opened, quorum, warned, links, process: std::process::id() }
    }

    /// Enters the namespace, which was found.
    pub(crate) async fn open(&self, opened: Opened) -> Result<()> {
        self.opened.get_or_init(|| opened);
        self.request(ErrorKind::Unavailable, async |_| ()).await
    }

    /// The connection with the fewest requests under way. A server answers those of one session in their order, so a read
    /// behind a commit waits as long as that does.
    fn link(&self) -> usize {
        let mut best: Option<(usize, usize)> = None;
        for (number, link) in self.links.iter().enumerate() {
            match link.fit() {
                Fit::Up(0) => return number,
                Fit::Up(load) if best.is_none_or(|(_, least)| load < least) => best = Some((number, load)),
                // All before it are busy: the next request will find it connected.
                Fit::Idle => link.want(),
                Fit::Up(_) | Fit::Down => {}
            }
        }
        best.map_or(0, |(number, _)| number)
    }

    /// The state of the connection that watches use.
    pub(crate) fn watching(&self) -> watch::Receiver<State> {
        self.links[0].state()
    }

    /// The connection that watches use, with its turn.
    pub(crate) async fn watching_session(&self) -> Result<(Arc<Zk>, u64)> {
        self.check_process()?;
        self.links[0].session(self.options.timeout).await
    }

    /// What was found when the namespace was opened.
    pub(crate) fn opened(&self) -> Option<&Opened> {
        self.opened.get()
    }

    fn check_process(&self) -> Result<()> {
        if self.process == std::process::id() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Misuse, "it was opened before a fork; open it again in the child"))
    }

    /// Makes a request that may be made again. The outer error: there is no connection, or no answer.
    pub(crate) async fn ask<T, F>(&self, request: impl FnOnce(Arc<Zk>) -> F) -> Result<Result<T, ZkError>>
    where
        F: Future<Output = Result<T, ZkError>>,
    {
        self.request(ErrorKind::Unavailable, |ground| request(ground.zk)).await
    }

    /// Makes a request once: its outcome is open if no answer comes. It is not begun without a connection.
    pub(crate) async fn send<T, E, F>(&self, request: impl FnOnce(Arc<Zk>) -> F) -> Result<Result<T, E>>
    where
        F: Future<Output = Result<T, E>>,
    {
        self.request(ErrorKind::OutcomeUnknown, |ground| request(ground.zk)).await
    }

    /// Brings the server up to all that was acknowledged before: what is asked behind it of the same session shows that. It is
    /// sent at once.
    pub(crate) fn catch_up<'a>(&self, zk: &'a Zk) -> impl Future<Output = Result<(), ZkError>> + Send + use<'a> {
        if !self.quorum.load(Ordering::Relaxed) {
            return Either::Left(zk.sync(&self.paths.clock));
        }
        let mut writer = zk.new_multi_writer();
        let added = writer.add_check_version(&self.paths.clock, -1);
        let write = writer.commit();
        Either::Right(async move {
            added?;
            write.await?;
            Ok(())
        })
    }

    /// Makes a request. If no answer comes, or it comes when the history of its connection is over, the error is of the kind `late`.
    pub(crate) async fn request<T, F>(&self, late: ErrorKind, request: impl FnOnce(Ground) -> F) -> Result<T>
    where
        F: Future<Output = T>,
    {
        self.check_process()?;
        let answered = async {
            let number = self.link();
            let link = &self.links[number];
            let ground = self.ground(number).await?;
            let era = ground.era;
            let _busy = link.busy();
            let answer = timeout(self.options.timeout, request(ground)).await;
            let answer = answer.map_err(|_| Error::new(late, "the server did not answer within the timeout"))?;
            match self.history.seen(era) {
                Some(_) => Ok(answer),
                // Nothing of what it tells is to be believed.
                None => Err(Error::new(late, "the servers' history has changed before the answer came")),
            }
        };
        tasks::request(answered).await
    }

    /// A connection by which the namespace was entered.
    async fn ground(&self, number: usize) -> Result<Ground> {
        let link = &self.links[number];
        let (zk, turn) = link.session(self.options.timeout).await?;
        let Some(opened) = self.opened.get() else {
            return Ok(Ground { zk, era: Era::default(), generation: 0, refused: None, link: number });
        };
        let entered = || link.entered(turn).filter(|entered| self.history.seen(entered.era).is_some());
        let Entered { era, refused } = match entered() {
            Some(entered) => entered,
            None => self.enter(&zk, link, turn, opened).await?,
        };
        Ok(Ground { zk, era, generation: self.generation(), refused, link: number })
    }

    /// How many losses were found so far. It is truncated: what counts is whether it is another one.
    pub(crate) fn generation(&self) -> u32 {
        self.history.losses().count() as u32
    }

    /// Enters the namespace by a connection, unless another one does. That runs in a task of the library's own, so that a caller that is
    /// not polled any more holds up no other.
    async fn enter(&self, zk: &Arc<Zk>, link: &Arc<Link>, turn: u64, opened: &Opened) -> Result<Entered> {
        let (zk, link, quorum) = (Arc::clone(zk), Arc::clone(link), Arc::clone(&self.quorum));
        let (options, paths, history) = (Arc::clone(&self.options), Arc::clone(&self.paths), Arc::clone(&self.history));
        let (limit, clock_made) = (self.options.timeout, opened.clock_made);
        let entering = async move {
            let _one = link.entering.lock().await;
            if let Some(entered) = link.entered(turn).filter(|entered| history.seen(entered.era).is_some()) {
                return Ok(entered);
            }
            let at = Entrance { options: &options, paths: &paths, history: &history, clock_made };
            let found = enter(&zk, at).await?;
            if options.reads.is_none() {
                // Servers that do not tell how many they are may be several.
                let several = options.has_several_servers() || found.servers.is_none_or(|servers| servers > 1);
                quorum.store(several, Ordering::Relaxed);
            }
            let entered = Entered { era: found.era, refused: found.refused };
            link.set_entered(Some((turn, entered.clone())));
            Ok(entered)
        };
        let late = || Error::new(ErrorKind::Unavailable, "the server did not answer within the timeout");
        let entering = tasks::connections().spawn(async move { timeout(limit, entering).await });
        let entered = entering.await.map_err(|error| late().with_source(error))?;
        entered.map_err(|_| late())?
    }

    /// Whether a commit may be made here.
    ///
    /// # Errors
    /// Why this user could not enter as one that writes. The next request tries again.
    pub(crate) fn check_writes(&self, ground: &Ground) -> Result<()> {
        let Some(error) = &ground.refused else { return Ok(()) };
        self.leave(ground);
        Err(error.clone())
    }

    /// The era of a connection is over: the next request by it enters the namespace again.
    pub(crate) fn leave(&self, ground: &Ground) {
        self.links[ground.link].set_entered(None);
    }

    /// Says once that values of this size are no good for the servers.
    pub(crate) fn warn_of_large(&self, bytes: usize) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            let namespace = self.options.namespace.as_str();
            tracing::warn!(
                bytes,
                namespace,
                "a value is large for ZooKeeper, which keeps all data in each server's memory"
            );
        }
    }

    /// Ends all sessions; later requests are [`Closed`](ErrorKind::Closed).
    pub(crate) fn close(&self) {
        self.links.iter().for_each(|link| link.close());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The child of a fork is told that the client is its parent's, whatever it asks for.
    #[tokio::test]
    async fn a_child_is_refused() {
        let mut client = Client::new(Options::new("127.0.0.1:1", "/x").expect("options"));
        client.process += 1;
        let asked = client.ask(async |zk| zk.check_stat("/").await).await.map(drop);
        let watched = client.watching_session().await.map(drop);
        for refused in [asked, watched] {
            assert_eq!(refused.expect_err("another process").kind(), ErrorKind::Misuse);
        }
    }
}
