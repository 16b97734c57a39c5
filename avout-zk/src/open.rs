//! Makes a namespace, and opens one that is there.

use std::fmt;
use std::sync::Arc;

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{CreateMode, Error as ZkError, MultiReadResult, MultiWriteError};

use crate::coordinator::{Coordinator, Hub};
use crate::options::Options;
use crate::schema::{Folder, Opened, made_by, parse, text};
use crate::store::Store;
use crate::wire::{Client, Right, classify, classify_at, classify_write, parent, tls, unexpected};

/// How often two clients may come between each other while both make the namespace.
const ATTEMPTS: u32 = 10;

/// Opens what a text names, as [`Options::from_url`] reads it.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the text, or a file that it names.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no server answered within the timeout.
/// [`Denied`](avout_core::ErrorKind::Denied): the servers refuse the user.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): the namespace belongs to another application.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a newer library made it, or the servers are older than ZooKeeper 3.6.
/// [`Full`](avout_core::ErrorKind::Full): a quota leaves no room for the namespace.
///
/// # Cancel safety
/// Safe: a namespace that was made stays, and a client that nobody got ends.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the client's sessions end, in
/// the background.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<Coordinator>,
    /// Holds the values.
    pub store: Arc<Store>,
    client: Arc<Client>,
}

impl Backend {
    fn new(client: Arc<Client>, opened: Opened) -> Self {
        let hub = Hub::new(&client);
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client), Arc::clone(&hub), opened));
        let store = Arc::new(Store::new(Arc::clone(&client), hub, opened));
        Self { coordinator, store, client }
    }

    /// Ends the client's sessions: later requests and all watchers get [`Closed`](avout_core::ErrorKind::Closed), and those under way
    /// end as they would with a lost connection.
    pub fn close(&self) {
        self.client.close();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.options).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the namespace: see [`connect`].
    ///
    /// # Errors
    /// As [`connect`].
    ///
    /// # Cancel safety
    /// As [`connect`].
    pub async fn open(self) -> Result<Backend> {
        if let Some(tls) = &self.tls {
            // The names of files are mistaken more often than servers are gone.
            tls::certificates(tls)?;
        }
        let client = Client::new(self);
        for _ in 0..ATTEMPTS {
            if let Some(opened) = find(&client).await? {
                client.open(opened).await?;
                return Ok(Backend::new(Arc::new(client), opened));
            }
            if client.options.readonly {
                let message = "there is no such namespace, and readonly=true makes none";
                return Err(Error::new(ErrorKind::NotFound, message));
            }
            match make(&client).await {
                Err(error) if error.kind() != ErrorKind::OutcomeUnknown => return Err(error),
                // Made by this client or another, or unmade: the next look tells.
                _ => {}
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others make and delete the namespace"))
    }
}

/// Reads what the namespace is; `None`: it is not there.
async fn find(client: &Client) -> Result<Option<Opened>> {
    let paths = &client.paths;
    let answer = client.ask(async |zk| {
        let mut reader = zk.new_multi_reader();
        reader.add_get_data(&paths.meta)?;
        reader.add_get_data(&paths.clock)?;
        // The client is new, but its user was told of the namespace by somebody.
        let sync = zk.sync("/");
        let read = reader.commit();
        sync.await?;
        read.await
    });
    let mut results = answer.await?.map_err(classify)?.into_iter();
    let meta = match results.next() {
        Some(MultiReadResult::Data { data, .. }) => data,
        Some(MultiReadResult::Error { err: ZkError::NoNode }) => return Ok(None),
        Some(MultiReadResult::Error { err }) => return Err(classify_at(err, Right::Read, &paths.meta)),
        _ => return Err(unexpected()),
    };
    let realm = parse(&meta)?;
    match results.next() {
        Some(MultiReadResult::Data { stat, .. }) => Ok(Some(Opened { realm, clock_made: stat.czxid })),
        Some(MultiReadResult::Error { err }) => Err(classify_at(err, Right::Read, &paths.clock)),
        _ => Err(unexpected()),
    }
}

/// Makes the namespace, all at once under its znode.
async fn make(client: &Client) -> Result<()> {
    make_root(client).await?;
    let paths = &client.paths;
    let options = &made_by(&client.options, CreateMode::Persistent);
    let answer = client.send(async |zk| {
        let mut writer = zk.new_multi_writer();
        writer.add_create(&paths.meta, text(Realm::random()).as_bytes(), options)?;
        for path in [&paths.clock, &paths.floor, &paths.era, &paths.entered] {
            writer.add_create(path, b"", options)?;
        }
        for folder in Folder::ALL {
            writer.add_create(&paths.folder(folder), b"", options)?;
            for bucket in paths.buckets(folder) {
                writer.add_create(&bucket, b"", options)?;
            }
        }
        writer.commit().await
    });
    match answer.await? {
        Ok(_) | Err(MultiWriteError::OperationFailed { index: 0, source: ZkError::NodeExists }) => Ok(()),
        Err(MultiWriteError::OperationFailed { source: ZkError::NodeExists, .. }) => {
            let message = "there are znodes with the names of avout's under the namespace: take another one";
            Err(Error::new(ErrorKind::Mismatch, message))
        }
        Err(MultiWriteError::OperationFailed { source, .. }) => Err(classify_at(source, Right::Create, &paths.root)),
        Err(MultiWriteError::RequestFailed { source }) => Err(classify_write(source)),
    }
}

/// Makes the namespace's znode and those above it, where they are not there.
async fn make_root(client: &Client) -> Result<()> {
    let root = client.paths.root.as_str();
    let ends = root.match_indices('/').skip(1).map(|(end, _)| end).chain([root.len()]);
    let prefixes: Vec<&str> = ends.map(|end| &root[..end]).collect();
    let mut missing = prefixes.len();
    while missing > 0 {
        let path = prefixes[missing - 1];
        let stat = client.ask(async |zk| zk.check_stat(path).await).await?;
        if stat.map_err(classify)?.is_some() {
            break;
        }
        missing -= 1;
    }
    let options = &made_by(&client.options, CreateMode::Persistent);
    for path in &prefixes[missing..] {
        match client.ask(async |zk| zk.create(path, b"", options).await).await? {
            Ok(_) | Err(ZkError::NodeExists) => {}
            Err(error) => return Err(classify_at(error, Right::Create, parent(path))),
        }
    }
    Ok(())
}
