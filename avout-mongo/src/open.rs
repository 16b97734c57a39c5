//! Opening a namespace.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::{CoordinatorCapabilities, StoreCapabilities, tasks};
use avout_core::protocol::Realm;
use avout_core::{ErrorKind, Result};
use tokio::time::{Instant, sleep};

use crate::client::{Client, MAX_COMMIT, MAX_KEYS, MAX_RECORD, MAX_VALUE};
use crate::coordinator::Coordinator;
use crate::eras::prove;
use crate::hub::Hub;
use crate::marks::{mark_all, replaced};
use crate::options::Options;
use crate::progress::{Kept, Progress};
use crate::schema::{self, Names, Server, Use};
use crate::sessions::Transactions;
use crate::store::Store;
use crate::wire::driver::{self, Signs};
use crate::wire::request::{Failure, Requests};

/// The longest pause until a namespace is opened again whose server did not answer.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Opens the namespace that a text names, as [`Options::from_url`] reads it, and makes it if it is not there, unless the client
/// [only reads](Options::readonly).
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the URL, or its TLS options.
/// [`Denied`](avout_core::ErrorKind::Denied): wrong credentials, or the user may not write there.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no primary answered within the timeout.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a stand-alone server, a sharded cluster, a server before MongoDB
/// 5.0, or a namespace that a newer library made.
/// [`NotFound`](avout_core::ErrorKind::NotFound): there is no such namespace, and the client only reads.
///
/// # Cancel safety
/// Safe: a namespace that was made, in part or whole, stays, and the next one to open it goes on from there.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; the connections are closed after the last of them
/// is dropped, in the background.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<Coordinator>,
    /// Holds the values.
    pub store: Arc<Store>,
    client: Arc<Client>,
}

impl Backend {
    fn new(client: Arc<Client>) -> Self {
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client)));
        let store = Arc::new(Store::new(Arc::clone(&client)));
        Self { coordinator, store, client }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.options).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens coordinator and store: see [`connect`](crate::connect).
    ///
    /// # Errors
    /// As [`connect`](crate::connect).
    ///
    /// # Cancel safety
    /// As [`connect`](crate::connect).
    pub async fn open(self) -> Result<Backend> {
        open(self).await
    }

    /// Opens the store alone, which a stand-alone server can hold too.
    ///
    /// # Errors
    /// As [`connect`](crate::connect), but for a stand-alone server.
    ///
    /// # Cancel safety
    /// As [`connect`](crate::connect).
    pub async fn open_store(self) -> Result<Store> {
        open_store(self).await
    }
}

/// Opens coordinator and store.
async fn open(options: Options) -> Result<Backend> {
    let client = tasks::request(enter(options, true)).await.map_err(|error| error.during("open"))?;
    Ok(Backend::new(client))
}

/// Opens the store alone.
async fn open_store(options: Options) -> Result<Store> {
    let client = tasks::request(enter(options, false)).await.map_err(|error| error.during("open"))?;
    Ok(Store::new(client))
}

/// An error in the configuration is told at once, and not after the time that it takes to find no server.
async fn enter(options: Options, coordinator: bool) -> Result<Arc<Client>> {
    let (driver, signs) = driver::connect(&options).await?;
    let refused = Arc::clone(&signs);
    tokio::select! {
        biased;
        client = make(driver, &signs, options, coordinator) => client,
        error = refused.refused() => Err(error),
    }
}

/// What is found out of a namespace.
struct Found {
    realm: Realm,
    progress: Arc<Progress>,
}

async fn make(driver: mongodb::Client, signs: &Arc<Signs>, options: Options, coordinator: bool) -> Result<Arc<Client>> {
    let database = driver.database(&options.database);
    let names = Arc::new(Names::of(&options.namespace));
    let requests = Requests { database: &database, timeout: options.timeout };
    let wanted = Use { coordinator, readonly: options.readonly };
    let (begun, mut pause) = (Instant::now(), Duration::from_millis(10));
    // All of it may be repeated, after a connection that was reset as well.
    let Found { realm, progress } = loop {
        match find(&requests, &names, signs, wanted).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && begun.elapsed() + pause < options.timeout => {
                tracing::debug!(%error, "the namespace cannot be opened now, trying again");
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            found => break found?,
        }
    };
    let hub = Arc::new(Hub::new(&database, &names, &progress, options.timeout));
    Ok(Arc::new(Client {
        admin: driver.database("admin"),
        database,
        names,
        realm,
        coordinates: coordinates(realm, options.readonly),
        stores: stores(progress.kept != Kept::Nowhere, options.readonly),
        transactions: Transactions::new(driver),
        hub,
        options,
        progress,
        process: std::process::id(),
    }))
}

async fn find(requests: &Requests<'_>, names: &Arc<Names>, signs: &Arc<Signs>, wanted: Use) -> Result<Found> {
    let Use { coordinator, readonly } = wanted;
    let server = schema::look(requests).await?;
    if coordinator {
        server.check_coordinator()?;
    }
    let realm = schema::prepare(requests, names, wanted).await?;
    let kept = match server {
        Server::Alone => Kept::Nowhere,
        Server::Replicated if coordinator => Kept::Refs,
        Server::Replicated => Kept::Meta,
    };
    mark_all(requests, names, realm, wanted).await?;
    let progress = Arc::new(Progress::new(realm, kept, readonly, Arc::clone(signs)));
    if coordinator {
        prove(requests, &progress, names, true).await.map_err(Failure::unapplied).map_err(replaced)?;
    }
    Ok(Found { realm, progress })
}

fn coordinates(realm: Realm, readonly: bool) -> CoordinatorCapabilities {
    let mut coordinates = CoordinatorCapabilities::new(realm);
    coordinates.readonly = readonly;
    coordinates.durable = true;
    coordinates.shared_between_processes = true;
    coordinates.max_record = MAX_RECORD;
    coordinates.max_commit = MAX_COMMIT;
    coordinates.max_keys = MAX_KEYS;
    coordinates.unique_revisions = true;
    coordinates.native_snapshots = true;
    coordinates
}

fn stores(push: bool, readonly: bool) -> StoreCapabilities {
    let mut stores = StoreCapabilities::default();
    stores.readonly = readonly;
    stores.max_value = MAX_VALUE;
    stores.durable = true;
    stores.shared_between_processes = true;
    stores.push = push;
    stores
}
