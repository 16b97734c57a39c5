//! One client of a namespace: its connections, and how a request is made.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use avout_core::backend::history::{History, Observed};
use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities, tasks};
use avout_core::protocol::{Realm, SessionId};
use avout_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, RedisError, ServerErrorKind, Value};

use crate::Backend;
use crate::cell::{CLOCK, COUNT_BITS, Clock, WATCHED};
use crate::error::{classify, is_answer, moved};
use crate::lanes::{Home, Lane, Lanes};
use crate::link::{Connector, Found, Link, NO_POINTS, milliseconds};
use crate::names::Names;
use crate::options::Options;
use crate::scripts::{Loaded, Script};
use crate::watch::Hub;

/// The largest value of an atom or of a ref, in bytes. The server takes 512 MiB in one argument, and holds up
/// everybody else meanwhile.
pub(crate) const MAX_VALUE: usize = 256 << 20;
/// The largest record, and the largest commit.
const MAX_RECORD: usize = 32 << 20;
pub(crate) const MAX_COMMIT: usize = 256 << 20;
const MAX_KEYS: usize = 65_536;
/// How often a request is made that the server refused before it did anything, for a reason that is mended at once.
const TRIES: usize = 5;

/// The first bytes of each script's first argument: the era, the latest point that is known, and a number by chance.
pub(crate) type Head = [u8; 24];

pub(crate) struct Client {
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) history: History,
    pub(crate) hub: Hub,
    connector: Connector,
    lanes: Lanes,
    opened: OnceLock<Opened>,
    /// Not 0: replicas have not confirmed a write. It grows with each such write.
    unconfirmed: AtomicU64,
    writes: AtomicU64,
    /// The sessions that this client has begun.
    sessions: Mutex<HashSet<SessionId>>,
}

struct Opened {
    realm: Realm,
    coordinates: CoordinatorCapabilities,
    stores: StoreCapabilities,
}

/// Opens a namespace.
pub(crate) async fn open(options: Options) -> Result<Backend> {
    tasks::request(open_at(Home::here(), options)).await.map_err(|error| error.during("open"))
}

async fn open_at(home: Home, options: Options) -> Result<Backend> {
    let connector = Connector::new(&options).await?;
    let client = Arc::new_cyclic(|client| Client {
        names: Names::new(&options.namespace),
        history: History::new(COUNT_BITS, Arc::default()),
        hub: Hub::new(client.clone()),
        connector,
        lanes: Lanes::new(options.connections),
        opened: OnceLock::new(),
        unconfirmed: AtomicU64::new(0),
        writes: AtomicU64::new(1),
        sessions: Mutex::default(),
        options,
    });
    client.connected(&home).await?;
    Ok(Backend::new(client))
}

impl Client {
    fn opened(&self) -> &Opened {
        self.opened.get().expect("a client is given out when it has entered the namespace")
    }

    pub(crate) fn realm(&self) -> Realm {
        self.opened().realm
    }

    pub(crate) fn coordinates(&self) -> &CoordinatorCapabilities {
        &self.opened().coordinates
    }

    pub(crate) fn stores(&self) -> StoreCapabilities {
        self.opened().stores.clone()
    }

    pub(crate) fn sessions(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// A connection for a request.
    ///
    /// # Errors
    /// As for entering the namespace; nothing was sent of the request.
    async fn link(&self, home: &Home) -> Result<Arc<Link>> {
        let link = self.connected(home).await?;
        if self.unconfirmed.load(Ordering::Acquire) != 0 {
            self.confirm_earlier(&link).await?;
        }
        Ok(link)
    }

    /// A connection that has entered the namespace, made if need be.
    async fn connected(&self, home: &Home) -> Result<Arc<Link>> {
        let (lanes, at) = self.lanes.of(home);
        match lanes[at].current() {
            Some(link) => Ok(link),
            None => self.connect(home, lanes, at).await,
        }
    }

    /// The same, after those connections were given up that are broken and that nobody has used since.
    pub(crate) async fn verified(&self) -> Result<Arc<Link>> {
        for link in self.lanes.links() {
            if redis::cmd("PING").exec_async(&mut link.connection.clone()).await.is_err() {
                link.kill();
            }
        }
        self.connected(&Home::here()).await
    }

    /// Waits until as many replicas as the options say have what was just written with this link.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if they do not in time. The write is there, but a failover may lose it. The
    /// client then answers nothing more until they have it: otherwise the slot of the commit would tell that all is well.
    pub(crate) async fn confirm(&self, link: &Link) -> Result<()> {
        if self.options.wait_replicas == 0 {
            return Ok(());
        }
        // Set before the wait, so that it stays if this future is dropped.
        let number = self.writes.fetch_add(1, Ordering::Relaxed);
        self.unconfirmed.fetch_max(number, Ordering::AcqRel);
        tasks::request(self.wait(link, number)).await.map_err(|source| {
            // A write with another connection may have been confirmed meanwhile that came before this one.
            let number = self.writes.fetch_add(1, Ordering::Relaxed);
            self.unconfirmed.fetch_max(number, Ordering::AcqRel);
            let message = "the write is done, but too few replicas have confirmed it: a failover may lose it";
            Error::new(ErrorKind::OutcomeUnknown, message).with_source(source)
        })
    }

    /// The same for earlier writes, whatever connection they were made with.
    async fn confirm_earlier(&self, link: &Link) -> Result<()> {
        let number = self.unconfirmed.load(Ordering::Acquire);
        // The server waits for the last write of the same connection, and all that came before it.
        let mut touch = redis::cmd("HSET");
        touch.arg(&self.names.meta).arg("confirmed").arg(number);
        let touched = touch.exec_async(&mut link.connection.clone()).await;
        touched.map_err(|error| self.failed(link, error, ErrorKind::Unavailable))?;
        self.wait(link, number).await
    }

    async fn wait(&self, link: &Link, number: u64) -> Result<()> {
        let wanted = self.options.wait_replicas;
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted).arg(milliseconds(self.options.wait_timeout));
        let answer = wait.query_async::<u32>(&mut link.connection.clone()).await;
        let confirmed = answer.map_err(|error| self.failed(link, error, ErrorKind::Unavailable))?;
        if confirmed < wanted {
            let message = format!("{confirmed} replicas of {wanted} have confirmed the last write");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        // Unless there was a later write.
        let _ = self.unconfirmed.compare_exchange(number, 0, Ordering::AcqRel, Ordering::Acquire);
        Ok(())
    }

    /// A task of its own makes the connection, since others wait for it too: the caller may stay away between two looks.
    async fn connect(&self, home: &Home, lanes: Arc<[Lane]>, at: usize) -> Result<Arc<Link>> {
        let make = |home: Home| {
            let (client, lanes) = (self.hub.client(), Arc::clone(&lanes));
            home.runtime().spawn(async move { client?.make_link(&lanes[at], home).await })
        };
        let mut made = make(home.clone()).await;
        // A runtime that was built without the network or time, or that has ended. The library's has both, and goes on.
        if made.is_err() {
            made = make(Home::library()).await;
        }
        made.map_err(|error| Error::new(ErrorKind::Unavailable, "no connection was made").with_source(error))?
    }

    async fn make_link(&self, lane: &Lane, home: Home) -> Result<Arc<Link>> {
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
                let earlier = lane.put(Arc::clone(&link));
                if earlier.is_some_and(|earlier| earlier.era != link.era || earlier.address != link.address) {
                    self.hub.reconnect();
                }
                Ok(link)
            }
            Err(error) => {
                *turn = Some((Instant::now(), error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    async fn enter(&self, home: Home) -> Result<Link> {
        let realm = self.opened.get().map(|opened| opened.realm);
        let limit = self.options.connect_timeout;
        let entering = self.connector.enter(&self.options, &self.names, &self.history, realm);
        let late = || Error::new(ErrorKind::Unavailable, format!("no connection could be made within {limit:?}"));
        let (mut link, found) = tokio::time::timeout(limit, entering).await.map_err(|_| late())??;
        link.home = home;
        self.opened.get_or_init(|| Opened::new(found));
        Ok(link)
    }

    fn head(link: &Link, seen: u64) -> Head {
        let mut head = [0; 24];
        head[..8].copy_from_slice(&link.era.id);
        head[8..16].copy_from_slice(&seen.to_be_bytes());
        head[16..].copy_from_slice(&rand::random::<[u8; 8]>());
        head
    }

    /// Runs a script. `lost` is what it means that no reply came.
    ///
    /// It is sent again only if the server said that it did nothing: it did not know the script, does not have the slot, or
    /// is in another era than the connection.
    pub(crate) async fn run(
        &self,
        script: Script,
        keys: &[&str],
        size: (usize, usize),
        lost: ErrorKind,
        arguments: impl Fn(&mut Cmd, &Head),
    ) -> Result<(Value, Head, Arc<Link>)> {
        let home = Home::here();
        tasks::request(async {
            for _ in 0..TRIES {
                let link = self.link(&home).await?;
                let Some(seen) = self.history.seen(link.era) else {
                    link.kill();
                    continue;
                };
                let head = Self::head(&link, seen);
                let mut cmd = link.scripts.call(script, keys, size.0, size.1);
                arguments(&mut cmd, &head);
                match cmd.query_async::<Value>(&mut link.connection.clone()).await {
                    Ok(Value::Int(0 | 1)) => link.kill(),
                    Ok(Value::Int(2)) => return Err(Error::new(ErrorKind::Full, NO_POINTS)),
                    Ok(reply) => return Ok((reply, head, link)),
                    Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                        Loaded::load(&mut link.connection.clone())
                            .await
                            .map_err(|error| self.failed(&link, error, ErrorKind::Unavailable))?;
                    }
                    Err(error) if moved(&error).is_some() => link.kill(),
                    Err(error) => return Err(self.failed(&link, error, lost)),
                }
            }
            Err(unsteady())
        })
        .await
    }

    /// Reads fields of the cells, all at one moment, with the clock of that moment.
    pub(crate) async fn read<'a>(
        &self,
        fields: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(Clock, std::vec::IntoIter<Value>)> {
        let home = Home::here();
        tasks::request(async {
            for _ in 0..TRIES {
                let link = self.link(&home).await?;
                let Some(seen) = self.history.seen(link.era) else {
                    link.kill();
                    continue;
                };
                let mut reply = match link.read(&self.names.cells, fields.clone()).await {
                    Some(Ok(reply)) => reply.into_iter(),
                    Some(Err(error)) if moved(&error).is_some() => {
                        link.kill();
                        continue;
                    }
                    Some(Err(error)) => return Err(self.failed(&link, error, ErrorKind::Unavailable)),
                    None => continue,
                };
                let clock = reply.next();
                match self.check(&link, seen, clock.as_ref()) {
                    Some(clock) => return Ok((clock, reply)),
                    None => link.kill(),
                }
            }
            Err(unsteady())
        })
        .await
    }

    /// Looks at one key of the namespace, as [`look_all`](Self::look_all) does.
    pub(crate) async fn look(&self, command: &Cmd) -> Result<Value> {
        let mut found = self.look_all(std::slice::from_ref(command)).await?;
        Ok(found.pop().expect("one reply for one command"))
    }

    /// Looks at keys of the namespace, and then at the clock. The replies are not older than the call; the clock tells
    /// whether they are of the right namespace at all.
    pub(crate) async fn look_all(&self, commands: &[Cmd]) -> Result<Vec<Value>> {
        let home = Home::here();
        tasks::request(async {
            for _ in 0..TRIES {
                let link = self.link(&home).await?;
                let Some(seen) = self.history.seen(link.era) else {
                    link.kill();
                    continue;
                };
                let mut pipe = redis::pipe();
                for command in commands {
                    pipe.add_command(command.clone());
                }
                pipe.cmd("HGET").arg(&self.names.cells).arg(CLOCK);
                let mut replies = match pipe.query_async::<Vec<Value>>(&mut link.connection.clone()).await {
                    Ok(replies) => replies,
                    Err(error) if moved(&error).is_some() => {
                        link.kill();
                        continue;
                    }
                    Err(error) => return Err(self.failed(&link, error, ErrorKind::Unavailable)),
                };
                match self.check(&link, seen, replies.pop().as_ref()) {
                    Some(_) if replies.len() == commands.len() => return Ok(replies),
                    Some(_) => return Err(Error::new(ErrorKind::Unavailable, "the server left replies out")),
                    None => link.kill(),
                }
            }
            Err(unsteady())
        })
        .await
    }

    /// Has the server tell what is committed from now on. `connection` listens already, and goes where `link` does.
    ///
    /// The mark stays for as long as the history does, so it is written at most once for each.
    ///
    /// # Errors
    /// As for a read; [`Unavailable`](ErrorKind::Unavailable) also if the server is in another era than the link, which is given up.
    pub(crate) async fn mark_watched(&self, link: &Link, connection: &mut MultiplexedConnection) -> Result<()> {
        let changed = || {
            link.kill();
            Error::new(ErrorKind::Unavailable, "the server changed while it was asked to tell of changes")
        };
        let refused = |error| classify(error, ErrorKind::Unavailable);
        let seen = self.history.seen(link.era).ok_or_else(changed)?;
        let mut look = redis::cmd("HMGET");
        look.arg(&self.names.cells).arg(CLOCK).arg(WATCHED);
        let (clock, mark): (Value, Value) = look.query_async(connection).await.map_err(refused)?;
        self.check(link, seen, Some(&clock)).ok_or_else(changed)?;
        if mark != Value::Nil {
            return Ok(());
        }
        let scripts = Loaded::load(connection).await.map_err(refused)?;
        let head = Self::head(link, seen);
        let mut cmd = scripts.call(Script::Watch, &[&self.names.cells], 1, head.len());
        match cmd.arg(&head[..]).query_async::<Value>(connection).await.map_err(refused)? {
            Value::Int(3) => Ok(()),
            _ => Err(changed()),
        }
    }

    /// Whether the mark is still there, asked with a connection that listens.
    pub(crate) async fn is_marked_watched(&self, connection: &mut MultiplexedConnection) -> bool {
        let mut look = redis::cmd("HGET");
        look.arg(&self.names.cells).arg(WATCHED);
        look.query_async::<Value>(connection).await.is_ok_and(|mark| mark != Value::Nil)
    }

    /// The clock, if it is the one that the connection entered under, and not before what was known when the request was sent.
    fn check(&self, link: &Link, seen: u64, clock: Option<&Value>) -> Option<Clock> {
        let clock = Clock::read(clock?)?;
        (clock.is_of(link.era) && clock.point >= seen && self.history.observe(link.era, clock.point).is_current())
            .then_some(clock)
    }

    /// Takes in the point of a write that was acknowledged.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): another server has taken over meanwhile, and may not have the write.
    pub(crate) fn still_true(&self, link: &Link, point: u64) -> Result<()> {
        match self.history.observe(link.era, point) {
            Observed::Current | Observed::Kept => Ok(()),
            Observed::Gone => {
                let message = "the write was acknowledged by a server whose place another one has taken since";
                Err(Error::new(ErrorKind::OutcomeUnknown, message))
            }
        }
    }

    fn failed(&self, link: &Link, error: RedisError, lost: ErrorKind) -> Error {
        let readonly = error.kind() == redis::ErrorKind::Server(ServerErrorKind::ReadOnly);
        if !is_answer(&error) || readonly {
            link.kill();
        }
        classify(error, lost)
    }

    /// Whether the namespace is surely gone from the server.
    pub(crate) async fn is_gone(&self) -> bool {
        let home = Home::here();
        let link = match self.connected(&home).await {
            Ok(link) => link,
            Err(error) => return error.kind() == ErrorKind::StoreLost,
        };
        let mut look = redis::cmd("HGET");
        look.arg(&self.names.cells).arg(CLOCK);
        let clock = look.query_async::<Value>(&mut link.connection.clone()).await;
        if !clock.is_ok_and(|clock| Clock::read(&clock).is_none()) {
            return false;
        }
        // Entering again tells for sure.
        link.kill();
        self.connected(&home).await.is_err_and(|error| error.kind() == ErrorKind::StoreLost)
    }
}

impl Opened {
    fn new(found: Found) -> Self {
        let mut coordinates = CoordinatorCapabilities::new(found.realm);
        coordinates.durable = found.durable;
        coordinates.shared_between_processes = true;
        // Each write draws a number.
        coordinates.unique_revisions = true;
        coordinates.max_record = MAX_RECORD;
        coordinates.max_commit = MAX_COMMIT;
        coordinates.max_keys = MAX_KEYS;
        let mut stores = StoreCapabilities::default();
        stores.max_value = MAX_VALUE;
        stores.durable = found.durable;
        stores.shared_between_processes = true;
        stores.push = true;
        Self { realm: found.realm, coordinates, stores }
    }
}

fn unsteady() -> Error {
    Error::new(ErrorKind::Unavailable, "the server changes again and again, or scripts are removed from it")
}
