use std::any::Any;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

#[cfg(doc)]
use super::Tx;
use super::coder::{Tags, TypedCoder};
use super::{AsStore, AtomBuilder, Body, Events, MessagePack, RefBuilder, Snapshot, Transaction};
use crate::backend::tasks::Tasks;
use crate::backend::time::timeout;
use crate::backend::{Coordinator, Store};
use crate::engine::{Config, Engine, Last, Stats, SweepReport, sweep_in_background};
use crate::error::Result;
#[cfg(doc)]
use crate::error::{Error, ErrorKind};
use crate::protocol::{Heartbeat, Receipt, Resolution};

/// A client of shared state: makes refs and atoms, and runs transactions over them.
///
/// It is a cheap handle: clone it, and share it among all tasks of a process.
///
/// # Runtimes
/// A client belongs to no runtime: keep it in a `static` if you like, and use it from any number of tokio's runtimes,
/// which may end, and from other executors. Background work runs on a thread of the library's own. If tokio's clock is
/// paused, it runs on the paused runtime instead, on simulated time.
///
/// # Examples
/// In a service, with state in a struct, transactions in its methods, and the application's own errors:
/// ```
/// # use avout_core::{Error, Ref, Stm};
/// # use std::sync::Arc;
/// struct Shop {
///     stm: Stm,
///     stock: Ref<u32>,
///     sold: Ref<Vec<String>>,
/// }
///
/// #[derive(Debug)]
/// enum ShopError {
///     SoldOut,
///     State(Error),
/// }
///
/// impl From<Error> for ShopError {
///     fn from(error: Error) -> Self {
///         Self::State(error)
///     }
/// }
///
/// impl Shop {
///     async fn sell(&self, customer: &str) -> Result<u32, ShopError> {
///         self.stm
///             .transaction()
///             .dosync(async |tx| {
///                 let left = tx.get(&self.stock).await?;
///                 let left = left.checked_sub(1).ok_or(ShopError::SoldOut)?;
///                 tx.set(&self.stock, left).await?;
///                 tx.update(&self.sold, |sold| sold.push(customer.to_string())).await?;
///                 Ok(left)
///             })
///             .await
///     }
///
///     async fn report(&self) -> Result<(u32, usize), ShopError> {
///         let report = self.stm.dosync(async |tx| {
///             let (stock, sold) = tx.get_many((&self.stock, &self.sold)).await?;
///             Ok((stock, sold.len()))
///         });
///         Ok(report.await?)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), ShopError> {
/// # let local = avout_local::Local::new();
/// let stm = Stm::new(local.coordinator(), local.store());
/// let stock = stm.create_or_open_ref("/stock", 2_u32).await?;
/// let sold = stm.create_or_open_ref("/sold", Vec::new()).await?;
/// let shop = Arc::new(Shop { stm, stock, sold });
/// let requests = ["ann", "bob", "cy"].map(|customer| {
///     let shop = Arc::clone(&shop);
///     tokio::spawn(async move { shop.sell(customer).await })
/// });
/// let mut served = 0;
/// for request in requests {
///     match request.await.expect("no panic") {
///         Ok(_) => served += 1,
///         Err(ShopError::SoldOut) => {}
///         Err(other) => return Err(other),
///     }
/// }
/// assert_eq!((served, shop.report().await?), (2, (0, 2)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Stm {
    pub(crate) engine: Arc<Engine>,
    /// What the layer above the handles keeps for each client.
    pub(crate) companion: Arc<OnceLock<Arc<dyn Companion>>>,
}

/// What a layer above the handles keeps for each client: made when it is first needed, and shared by the handle's
/// clones.
pub(crate) trait Companion: Any + Send + Sync {
    /// Gives back all that is held, finishes the background work, and ends.
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Ends, with background work unfinished.
    fn end(&self);
}

const SHORTEST_TTL: Duration = Duration::from_millis(50);
const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
const LEAST_SWEEP_EVERY: Duration = Duration::from_millis(10);

/// Configures a client; made by [`Stm::builder`].
#[must_use = "a builder does nothing until build is called"]
pub struct StmBuilder {
    coordinator: Arc<dyn Coordinator>,
    store: Arc<dyn Store>,
    pub(super) config: Config,
}

impl Stm {
    /// A client with the default [`Config`]. `store` holds the atoms, and values that are too large for the
    /// coordinator.
    pub fn new(coordinator: Arc<dyn Coordinator>, store: Arc<dyn Store>) -> Self {
        Self::builder(coordinator, store).build()
    }

    /// Begins to configure a client.
    pub fn builder(coordinator: Arc<dyn Coordinator>, store: Arc<dyn Store>) -> StmBuilder {
        StmBuilder { coordinator, store, config: Config::default() }
    }

    /// Runs `body` as a transaction: it reads one consistent moment, and its writes take effect together or not at all.
    ///
    /// The body runs again when another transaction came first, so it should only compute and use its [`Tx`]. It may
    /// borrow from its surroundings, even in a spawned task. Write `async |tx|` without `move`: with `move` the closure
    /// would give away in its first run what the second one needs, and the compiler refuses it. If the body returns an
    /// `Err` the transaction ends and nothing is written. An application's own reason travels in [`Error::abort`]; for
    /// your own error type see [`transaction`](Self::transaction).
    ///
    /// # Errors
    /// The body's own, and: [`Rejected`](ErrorKind::Rejected) by a validator; [`Timeout`](ErrorKind::Timeout) and
    /// [`Contended`](ErrorKind::Contended), which tell the attempts, the time and the key that they were lost on;
    /// [`Nested`](ErrorKind::Nested) inside another body; [`TooLarge`](ErrorKind::TooLarge), which names the limit;
    /// [`Unavailable`](ErrorKind::Unavailable) if the store was unavailable until the deadline;
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if the commit was sent and the store then stayed out of reach: of
    /// all errors, only with this one may the transaction have taken effect.
    ///
    /// # Cancel safety
    /// If the future is dropped before the commit is sent nothing happens; after that, the transaction takes effect as
    /// a whole or not at all.
    ///
    /// # Panics
    /// A panic of the body is passed on to the caller, and nothing is written.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
    /// let count = stm.create_or_open_ref("/count", 0_i64).await?;
    /// let log = stm.create_or_open_ref("/log", Vec::<i64>::new()).await?;
    ///
    /// stm.dosync(async |tx| {
    ///     let n = tx.alter(&count, |n| n + 1).await?;
    ///     tx.alter(&log, |mut log| { log.push(n); log }).await
    /// }).await?;
    /// # assert_eq!(log.get().await?, [1]);
    /// # Ok(()) }
    /// ```
    #[doc(alias = "dosync!!")]
    pub async fn dosync<T, F, Fut>(&self, body: F) -> Result<T>
    where
        F: Body<Fut>,
        Fut: Future<Output = Result<T>>,
    {
        self.transaction().dosync(body).await
    }

    /// A transaction with options: isolation, deadline, attempts, error type, hooks.
    pub fn transaction(&self) -> Transaction<'_> {
        Transaction::new(&self.engine)
    }

    /// Creates a ref that must not exist yet.
    ///
    /// The type of `value` must be readable too: a `String`, where the compiler would call a `&str` "not general
    /// enough".
    ///
    /// # Errors
    /// When awaited: [`AlreadyExists`](ErrorKind::AlreadyExists), and see [`RefBuilder`].
    pub fn create_ref<T>(&self, key: impl AsRef<str>, value: T) -> RefBuilder<T, MessagePack> {
        RefBuilder::create(&self.engine, key.as_ref(), value, false)
    }

    /// Opens a ref that must exist.
    ///
    /// # Errors
    /// When awaited: [`NotFound`](ErrorKind::NotFound), [`Mismatch`](ErrorKind::Mismatch) if it was created with
    /// another type, codec or store, and see [`RefBuilder`].
    pub fn open_ref<T>(&self, key: impl AsRef<str>) -> RefBuilder<T, MessagePack> {
        RefBuilder::open(&self.engine, key.as_ref())
    }

    /// Opens a ref, or creates it with `value` if there is none. An existing value is left as it is.
    ///
    /// # Errors
    /// When awaited: as [`open_ref`](Self::open_ref), except `NotFound`.
    #[doc(alias = "zk-ref")]
    pub fn create_or_open_ref<T>(&self, key: impl AsRef<str>, value: T) -> RefBuilder<T, MessagePack> {
        RefBuilder::create(&self.engine, key.as_ref(), value, true)
    }

    /// Creates an atom that must not exist yet.
    ///
    /// # Errors
    /// When awaited: [`AlreadyExists`](ErrorKind::AlreadyExists), and see [`AtomBuilder`].
    pub fn create_atom<T>(&self, key: impl AsRef<str>, value: T) -> AtomBuilder<T, MessagePack> {
        AtomBuilder::create(&self.engine, key.as_ref(), value, false)
    }

    /// Opens an atom that must exist.
    ///
    /// # Errors
    /// When awaited: [`NotFound`](ErrorKind::NotFound), [`Mismatch`](ErrorKind::Mismatch), and see [`AtomBuilder`].
    pub fn open_atom<T>(&self, key: impl AsRef<str>) -> AtomBuilder<T, MessagePack> {
        AtomBuilder::open(&self.engine, key.as_ref())
    }

    /// Opens an atom, or creates it with `value` if there is none. An existing value is left as it is.
    ///
    /// # Errors
    /// When awaited: as [`open_atom`](Self::open_atom), except `NotFound`.
    #[doc(alias = "zk-atom")]
    pub fn create_or_open_atom<T>(&self, key: impl AsRef<str>, value: T) -> AtomBuilder<T, MessagePack> {
        AtomBuilder::create(&self.engine, key.as_ref(), value, true)
    }

    /// All refs as of this moment, to read at leisure, outside a transaction.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable); [`Nested`](ErrorKind::Nested).
    pub async fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(&self.engine).await
    }

    /// Attaches a store, so that refs in it can be opened without naming it.
    pub fn attach<S: AsStore + ?Sized>(&self, store: &S) {
        let _ = self.engine.attach(store.as_store());
    }

    /// The client's own store.
    pub fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.engine.home)
    }

    /// The coordinator.
    pub fn coordinator(&self) -> Arc<dyn Coordinator> {
        Arc::clone(&self.engine.coordinator)
    }

    /// Finds out how a transaction with [`ErrorKind::OutcomeUnknown`] ended, from its [receipt](Error::receipt), and
    /// makes that final. Any client of the namespace can do it.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable): try again later.
    /// [`Unsupported`](ErrorKind::Unsupported): too much has happened since, and the outcome can no longer be found
    /// out.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn resolve(&self, receipt: &Receipt) -> Result<Resolution> {
        self.engine.resolve(receipt).await
    }

    /// Removes garbage now: values that no record points at, in all attached stores; records of destroyed refs; and
    /// leftovers of dead clients, which are slots that no commit has used since the sweep before, and sessions without
    /// a sign of life since then.
    ///
    /// Clients do the same in the background, see [`StmBuilder::sweep_every`]. It is safe at any time, from any client,
    /// and from several at once. Transactions continue; one that is running may have to run its body once more. The
    /// outcome of a commit whose reply was lost can no longer be found out if nobody has asked for it since the sweep
    /// before last.
    ///
    /// It reads all records and lists all values once: if there are many, choose a quiet time. If there are sessions
    /// that may be dead it waits at its end until they have been silent for their [time to
    /// live](StmBuilder::session_ttl), but at most a minute.
    ///
    /// # Errors
    /// [`Denied`](ErrorKind::Denied) in a client that only [reads](StmBuilder::readonly);
    /// [`Unavailable`](ErrorKind::Unavailable) if the coordinator is; [`Contended`](ErrorKind::Contended) if other
    /// sweeps come between again and again; [`Nested`](ErrorKind::Nested). Failures after it has begun to remove are
    /// told in the report.
    ///
    /// # Cancel safety
    /// Safe: the next sweep does the rest.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
    /// stm.create_ref("/once", 1_u8).await?.destroy().await?;
    /// let report = stm.sweep().await?;
    /// assert_eq!((report.tombstones, report.all_values()), (1, 0));
    /// # Ok(()) }
    /// ```
    pub async fn sweep(&self) -> Result<SweepReport> {
        self.engine.begin("sweep")?;
        self.engine.check_writes().map_err(|error| error.during("sweep"))?;
        self.engine.sweep().await.map_err(|error| error.during("sweep"))
    }

    /// The events of this client's stores from now on: commits that a store has lost, and connections that are made and
    /// lost.
    ///
    /// # Examples
    /// ```
    /// # use avout_core::{Event, Stm};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = Stm::new(local.coordinator(), local.store());
    /// let mut events = stm.events();
    /// let alarms = tokio::spawn(async move {
    ///     while let Some(event) = events.next().await {
    ///         match event {
    ///             Event::CommitsLost(lost) => eprintln!("call the operator: {lost}"),
    ///             other => eprintln!("{other:?}"),
    ///         }
    ///     }
    /// });
    /// stm.close().await;
    /// alarms.await.expect("it ends with the client");
    /// # Ok(()) }
    /// ```
    pub fn events(&self) -> Events {
        Events::of(&self.engine)
    }

    /// The counts of this client's operations so far.
    pub fn stats(&self) -> Stats {
        self.engine.stats.get()
    }

    /// Closes the client, with all its clones, handles, guards and watches.
    ///
    /// From now on every operation fails with [`Closed`](ErrorKind::Closed), including those that wait: requests for
    /// locks and permits, watches, observers, retries, receivers of queues and sweeps. What the client holds is given
    /// back, and others can have it when this returns. The session ends, and so does sweeping in the background. A
    /// transaction whose commit was sent by then is waited for and tells how it ended; one whose commit was not sent
    /// has not happened.
    ///
    /// If the store is out of reach it waits no longer than a session lives, no longer than the client's deadline, and
    /// no longer than 10 s. What is held is then lost with the session, and others notice. The sweeper does the
    /// deletions and frees the slots that are left.
    ///
    /// Calling it is optional: dropping the last handle leaves guards to their own drops, and the rest to the sweeper.
    /// No committed data is at risk.
    ///
    /// # Cancel safety
    /// If the future is dropped it goes on in the background. It may be called several times: each call returns when
    /// all is done.
    pub async fn close(&self) {
        let closing = &self.engine.closing;
        if closing.is_forked() {
            // Its connections and tasks are the parent's.
            return;
        }
        if closing.begin() {
            self.engine.config.tasks.spawn(close(Arc::clone(&self.engine), Arc::clone(&self.companion)));
        }
        closing.over().await;
    }
}

async fn close(engine: Arc<Engine>, companion: Arc<OnceLock<Arc<dyn Companion>>>) {
    /// How long to wait at most for requests in flight and for what is given back, and then for the clean-up.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// How long to wait for the clean-up if the store was out of reach.
    const IN_VAIN: Duration = Duration::from_secs(1);
    let _last = Last(&engine.closing);
    let patience = PATIENCE.min(engine.config.session_ttl).min(engine.config.deadline.unwrap_or(PATIENCE));
    let companion = companion.get();
    let given_back = async {
        if let Some(companion) = companion {
            companion.close().await;
        }
        engine.closing.idle().await;
    };
    let given_back = engine.closing.last_work(timeout(patience, given_back)).await.is_ok();
    engine.closing.end();
    if let Some(companion) = companion {
        companion.end();
    }
    engine.close(if given_back { PATIENCE } else { IN_VAIN }).await;
}

impl StmBuilder {
    /// The default time limit of transactions and of operations on handles; `None`, or a hundred years and more: none.
    /// 30 s by default.
    pub fn deadline(mut self, deadline: Option<Duration>) -> Self {
        self.config.deadline = deadline;
        self
    }

    /// The default limit of a transaction's attempts; none unless set.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.config.max_attempts = Some(attempts);
        self
    }

    /// How many bytes of values from stores are kept in memory. 32 MiB by default; 0 keeps none. Values of a store in
    /// the same process do not count.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.config.cache_bytes = bytes;
        self
    }

    /// How long a session of this client lives without a sign of life: 10 s by default, from 50 ms to 30 days; shorter
    /// and longer times are clamped. A process that dies or is paused for longer loses its locks, and others
    /// get them within twice this time. See [`Lock`](crate::Lock).
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.config.session_ttl = ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
        self
    }

    /// About how often one of all clients of the namespace [sweeps](Stm::sweep) in the background: once an hour by
    /// default; `None`: this client never does. At least 10 ms.
    ///
    /// A client sweeps when it has seen for once to twice this long, by its own clock, that nobody else did. It works a
    /// tenth of the time, and begins with its first read. Have at least one client that lives that long sweep, or sweep
    /// by hand.
    pub fn sweep_every(mut self, every: Option<Duration>) -> Self {
        self.config.sweep_every = every.map(|every| every.max(LEAST_SWEEP_EVERY));
        self
    }

    /// The seed of back-off times, for runs that repeat.
    pub fn seed(mut self, seed: u64) -> Self {
        self.config.seed = Some(seed);
        self
    }

    /// The random part of the client's id, for simulations, whose runs repeat. No two clients may have the same.
    #[doc(hidden)]
    pub fn client_id(mut self, random: u128) -> Self {
        self.config.client = Some(random);
        self
    }

    /// About how long a task that waits for a change waits for a hint before it looks by itself: for tests that are to
    /// find lost hints.
    #[doc(hidden)]
    pub fn look_every(mut self, every: Duration) -> Self {
        self.config.look_every = every;
        self
    }

    /// How background tasks are run, for simulations.
    #[doc(hidden)]
    pub fn tasks(mut self, tasks: Tasks) -> Self {
        self.config.tasks = tasks;
        self
    }

    /// The client. It makes no request.
    pub fn build(self) -> Stm {
        let heartbeats =
            Arc::new(TypedCoder::<Heartbeat, _>::new(MessagePack, Tags::pinned(Heartbeat::TAG), Vec::new()));
        let engine = Engine::new(self.coordinator, self.store, self.config, heartbeats);
        sweep_in_background(&engine);
        Stm { engine, companion: Arc::default() }
    }
}

impl std::fmt::Debug for Stm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stm").field("client", &self.engine.client).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StmBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StmBuilder").field("config", &self.config).finish_non_exhaustive()
    }
}
