//! One client of a namespace: its connections, and how they are made.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use avout_core::backend::history::History;
use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities, tasks};
use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use redis::{RedisError, Value};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::Backend;
use crate::cell::{CLOCK, COUNT_BITS, Clock};
use crate::confirm::Confirmer;
use crate::find::Finder;
use crate::lanes::{Home, Lane, Lanes};
use crate::link::{Found, Link};
use crate::lookout::Lookout;
use crate::names::Names;
use crate::options::{Options, Replicas};
use crate::pace::Pace;
use crate::verdict::{Verdict, verdict};
use crate::watch::Hub;

/// The largest value of an atom or of a ref, in bytes. The server takes 512 MiB in one argument, and holds up
/// everybody else meanwhile.
pub(crate) const MAX_VALUE: usize = 256 << 20;
/// The largest record, and the largest commit.
const MAX_RECORD: usize = 32 << 20;
pub(crate) const MAX_COMMIT: usize = 256 << 20;
const MAX_KEYS: usize = 65_536;
/// A server that answers nothing for so long may not be the master any more.
const HUNG: Duration = Duration::from_secs(1);

pub(crate) struct Client {
    pub(crate) options: Options,
    pub(crate) names: Names,
    pub(crate) history: History,
    pub(crate) hub: Hub,
    pub(crate) finder: Finder,
    pub(crate) lanes: Lanes,
    pub(crate) confirmer: Arc<Confirmer>,
    pub(crate) lookout: Arc<Lookout>,
    pace: Pace,
    opened: OnceLock<Opened>,
    /// The process that opened it.
    process: u32,
    /// What goes on beside the requests.
    tasks: Mutex<Vec<AbortHandle>>,
}

struct Opened {
    realm: Realm,
    coordinates: CoordinatorCapabilities,
    stores: StoreCapabilities,
}

impl Options {
    /// Opens the namespace: see [`connect`](crate::connect).
    ///
    /// # Errors
    /// As [`connect`](crate::connect).
    ///
    /// # Cancel safety
    /// As [`connect`](crate::connect).
    pub async fn open(self) -> Result<Backend> {
        self.check()?;
        tasks::request(open_at(Home::here(), self)).await.map_err(|error| error.during("open"))
    }
}

async fn open_at(home: Home, options: Options) -> Result<Backend> {
    let names = Names::new(&options.namespace);
    let finder = Finder::new(&options, &names).await?;
    let client = Arc::new_cyclic(|client| Client {
        names,
        history: History::new(COUNT_BITS, Arc::default()),
        hub: Hub::new(client.clone()),
        finder,
        lanes: Lanes::new(options.connections),
        confirmer: Arc::new(Confirmer::new()),
        lookout: Arc::default(),
        pace: Pace::default(),
        opened: OnceLock::new(),
        process: std::process::id(),
        tasks: Mutex::default(),
        options,
    });
    client.connected(&home).await?;
    client.begin_tasks();
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

    pub(crate) fn known_realm(&self) -> Option<Realm> {
        self.opened.get().map(|opened| opened.realm)
    }

    /// Begins what goes on beside the requests, until the client ends.
    fn begin_tasks(self: &Arc<Self>) {
        let runtime = tasks::connections();
        let weak = || Arc::downgrade(self);
        let mut begun = vec![runtime.spawn(Arc::clone(&self.lookout).run(weak())).abort_handle()];
        if self.options.wait_replicas != Replicas::Number(0) {
            begun.push(runtime.spawn(Arc::clone(&self.confirmer).run(weak())).abort_handle());
        }
        if let Some(sentinels) = self.finder.sentinels() {
            let client = weak();
            let tell = move |master: &_| client.upgrade().into_iter().for_each(|client| client.leave_all_but(master));
            begun.push(runtime.spawn(Arc::clone(sentinels).follow(tell)).abort_handle());
        }
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).extend(begun);
    }

    /// Does with a connection what an answer asks for.
    pub(crate) fn heed(&self, link: &Link, error: &RedisError) -> Verdict {
        let verdict = verdict(error);
        match &verdict {
            Verdict::Keep | Verdict::Moving => {}
            Verdict::Doubt => self.lookout.doubt(),
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
                let lookout = Arc::clone(&self.lookout);
                link.guard(HUNG.min(self.options.timeout), self.options.timeout, move || lookout.doubt());
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

    async fn enter(self: &Arc<Self>, home: Home) -> Result<Link> {
        sleep(self.pace.pause()).await;
        let limit = self.options.connect_timeout;
        let late = || Error::new(ErrorKind::Unavailable, format!("no connection could be made within {limit:?}"));
        let (mut link, found) = tokio::time::timeout(limit, self.enter_anywhere()).await.map_err(|_| late())??;
        link.home = home;
        self.opened.get_or_init(|| Opened::new(found));
        Ok(link)
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
        let clock = link.wire.ask::<Value>(&look).await;
        if !clock.is_ok_and(|clock| Clock::read(&clock).is_none()) {
            return false;
        }
        // Entering again tells for sure.
        link.retire();
        self.connected(&home).await.is_err_and(|error| error.kind() == ErrorKind::StoreLost)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
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
