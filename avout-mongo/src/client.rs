use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities, tasks};
use avout_core::protocol::{Point, Realm};
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::{Bson, Document, RawDocumentBuf, Timestamp};
use mongodb::options::{ClientOptions, DriverInfo};
use mongodb::{ClientSession, Database};

use crate::abandoned::DRIVER;
use crate::commit::Transactions;
use crate::error::{classify, code, meaning_of_code};
use crate::options::{Options, invalid};
use crate::reads::Progress;
use crate::schema::{self, Server};
use crate::watch::Hub;
use crate::{Backend, Store};

/// The largest record. MongoDB's limit for a document, and for a reply, is 16 MiB.
pub(crate) const MAX_RECORD: usize = 4 << 20;

/// The largest commit, all of which is one command of at most 16 MiB.
pub(crate) const MAX_COMMIT: usize = 8 << 20;

/// The most keys of a commit or a read, for the same reason.
pub(crate) const MAX_KEYS: usize = 8192;

/// The largest value. It lies in chunks.
pub(crate) const MAX_VALUE: usize = 512 << 20;

/// The most connections to a server for requests, unless the URL says `maxPoolSize`.
const POOL: u32 = 100;

/// One client of a namespace: what the coordinator, the store, their containers and watchers share. It ends with the
/// last of them.
pub(crate) struct Client {
    pub(crate) options: Options,
    pub(crate) database: Database,
    pub(crate) admin: Database,
    pub(crate) names: Names,
    pub(crate) realm: Realm,
    pub(crate) coordinates: CoordinatorCapabilities,
    pub(crate) stores: StoreCapabilities,
    pub(crate) transactions: Transactions,
    pub(crate) hub: Arc<Hub>,
    progress: Arc<Progress>,
    process: u32,
}

/// The collections of a namespace.
pub(crate) struct Names {
    pub(crate) meta: String,
    pub(crate) refs: String,
    pub(crate) values: String,
    pub(crate) atoms: String,
}

impl Names {
    fn of(namespace: &str) -> Self {
        let name = |part: &str| format!("{namespace}.{part}");
        Self { meta: name("meta"), refs: name("refs"), values: name("values"), atoms: name("atoms") }
    }
}

pub(crate) async fn open(options: Options) -> Result<Backend> {
    let client = tasks::request(Client::open(options, true)).await.map_err(|error| error.during("open"))?;
    Ok(Backend::new(client))
}

pub(crate) async fn open_store(options: Options) -> Result<Store> {
    let client = tasks::request(Client::open(options, false)).await.map_err(|error| error.during("open"))?;
    Ok(Store::new(client))
}

async fn connect(options: &Options) -> Result<mongodb::Client> {
    // The driver's own message may show a part of the URL.
    let wrong = |_| invalid("the driver cannot read the servers, the user or the options: percent-encode them");
    let mut driver = ClientOptions::parse(&options.url).await.map_err(wrong)?;
    if driver.load_balanced == Some(true) {
        return Err(Error::new(ErrorKind::Unsupported, "a load balancer hides the servers that transactions need"));
    }
    driver.app_name.get_or_insert_with(|| "avout".into());
    driver.driver_info = Some(DriverInfo::builder().name(DRIVER).build());
    // Shorter than the request's own, so that the driver gets to say why no server was found.
    driver.server_selection_timeout.get_or_insert(options.timeout - options.timeout / 10);
    driver.connect_timeout.get_or_insert(options.timeout);
    // One more for the change stream, which always waits for an answer: a pool of one would have none left for requests.
    driver.max_pool_size = Some(driver.max_pool_size.unwrap_or(POOL).saturating_add(1));
    // Each request is sent once; the engine repeats what may be repeated.
    driver.retry_writes = Some(false);
    driver.retry_reads = Some(false);
    driver.max_adaptive_retries = Some(0);
    mongodb::Client::with_options(driver).map_err(classify)
}

impl Client {
    async fn open(options: Options, coordinator: bool) -> Result<Arc<Self>> {
        let driver = connect(&options).await?;
        let database = driver.database(&options.database);
        let names = Names::of(&options.namespace);
        let requests = Requests { database: &database, timeout: options.timeout };
        let server = schema::look(&requests).await?;
        if coordinator {
            server.check_coordinator()?;
        }
        let realm = schema::prepare(&requests, &names, coordinator).await?;
        let replicated = matches!(server, Server::Replicated);

        let mut coordinates = CoordinatorCapabilities::new(realm);
        coordinates.durable = true;
        coordinates.shared_between_processes = true;
        coordinates.max_record = MAX_RECORD;
        coordinates.max_commit = MAX_COMMIT;
        coordinates.max_keys = MAX_KEYS;
        coordinates.unique_revisions = true;
        coordinates.native_snapshots = true;
        let mut stores = StoreCapabilities::default();
        stores.max_value = MAX_VALUE;
        stores.durable = true;
        stores.shared_between_processes = true;
        stores.push = replicated;
        let admin = driver.database("admin");
        let progress = Arc::<Progress>::default();
        let hub = Arc::new(Hub::new(&database, &names, &progress, options.timeout));
        Ok(Arc::new(Self {
            admin,
            database,
            names,
            realm,
            coordinates,
            stores,
            transactions: Transactions::new(driver),
            hub,
            options,
            progress,
            process: std::process::id(),
        }))
    }

    /// Connections do not survive a fork.
    pub(crate) fn usable(&self) -> Result<()> {
        if std::process::id() != self.process {
            return Err(Error::new(ErrorKind::Misuse, "it was opened before a fork; open it again in the child"));
        }
        Ok(())
    }

    /// Sends a command once and gives the reply, which may still hold errors of single writes.
    pub(crate) async fn run(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        self.requests().run(command).await
    }

    /// The same of the database of administrators.
    pub(crate) async fn run_admin(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        Requests { database: &self.admin, timeout: self.options.timeout }.run(command).await
    }

    /// The reply to a `find` at this level of read concern, which shows all that was acknowledged before the call; with
    /// `at`, what was there at that point.
    pub(crate) async fn find(
        &self,
        find: &RawDocumentBuf,
        level: &str,
        at: Option<Point>,
    ) -> Result<Document, Failure> {
        self.requests().read(&self.progress, &self.names.meta, find, level, at).await
    }

    fn requests(&self) -> Requests<'_> {
        Requests { database: &self.database, timeout: self.options.timeout }
    }

    /// The same in a session.
    pub(crate) async fn run_in(
        &self,
        database: &Database,
        session: &mut ClientSession,
        command: RawDocumentBuf,
    ) -> Result<Document, Failure> {
        let request = database.run_raw_command(command).session(session);
        bounded(self.options.timeout, async move { request.await }).await
    }

    pub(crate) fn saw(&self, point: Point) {
        self.progress.saw(point);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.progress.seen()
    }
}

/// Why there is no reply.
pub(crate) enum Failure {
    /// The driver said so.
    Driver(mongodb::error::Error),
    /// None came in time. The request may have been sent.
    Late,
}

impl Failure {
    /// For a read, or a write that was surely not applied.
    pub(crate) fn unapplied(self) -> Error {
        match self {
            Self::Driver(error) => classify(error),
            Self::Late => Error::new(ErrorKind::Unavailable, "no reply came within the timeout"),
        }
    }

    /// For a write that takes effect by itself.
    pub(crate) fn lost_write(self) -> Error {
        match self {
            Self::Driver(error) => crate::error::lost_write(error),
            Self::Late => Error::new(ErrorKind::OutcomeUnknown, "no reply to a write came within the timeout"),
        }
    }

    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Driver(error) => code(error),
            Self::Late => None,
        }
    }
}

/// Makes a request with the driver, whose future may be polled by any executor.
pub(crate) async fn bounded<T>(
    timeout: Duration,
    request: impl Future<Output = mongodb::error::Result<T>>,
) -> Result<T, Failure> {
    match tasks::request(async { tokio::time::timeout(timeout, request).await }).await {
        Ok(reply) => reply.map_err(Failure::Driver),
        Err(_) => Err(Failure::Late),
    }
}

/// Where to send commands that need no client yet.
pub(crate) struct Requests<'a> {
    pub(crate) database: &'a Database,
    pub(crate) timeout: Duration,
}

impl Requests<'_> {
    pub(crate) async fn run(&self, command: RawDocumentBuf) -> Result<Document, Failure> {
        let request = self.database.run_raw_command(command);
        bounded(self.timeout, async move { request.await }).await
    }
}

/// The first error of a single write, or of the write concern, in a reply that is otherwise fine.
pub(crate) struct WriteErrors {
    /// Of a single write: it was not done.
    pub(crate) write: Option<i32>,
    /// It was done here, and nothing says that a majority has it.
    pub(crate) concern: bool,
}

impl WriteErrors {
    pub(crate) fn of(reply: &Document) -> Self {
        let write = reply.get_array("writeErrors").ok().and_then(|errors| errors.first());
        let write = write.and_then(Bson::as_document).map(|error| error.get_i32("code").unwrap_or(0));
        Self { write, concern: reply.contains_key("writeConcernError") }
    }

    /// For a write that takes effect by itself.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(code) = self.write {
            let (kind, message) = meaning_of_code(code);
            return Err(Error::new(kind, message));
        }
        if self.concern {
            let message = "a majority of the servers did not confirm the write";
            return Err(Error::new(ErrorKind::OutcomeUnknown, message));
        }
        Ok(())
    }
}

/// MongoDB's position in its log, as a point.
pub(crate) fn point(time: Timestamp) -> Point {
    Point::new(u64::from(time.time) << 32 | u64::from(time.increment))
}

/// A point that was made from one, as a position in MongoDB's log.
pub(crate) fn timestamp(point: Point) -> Timestamp {
    let number = point.number();
    Timestamp { time: (number >> 32) as u32, increment: number as u32 }
}

/// A pool of things that are used by one at a time and are never many.
pub(crate) struct Pool<T>(Mutex<Vec<T>>);

impl<T> Pool<T> {
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Vec::new()))
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(crate) fn give_back(&self, thing: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thing);
    }
}
