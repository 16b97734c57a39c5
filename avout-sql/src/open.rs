use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::client::{Client, Shared, told};
use crate::options::{Options, Place};
use crate::schema::clock::Name;
use crate::schema::tables;
use crate::wire::connection;
use crate::wire::error::with_path;
use crate::wire::file::{File, forbidden};
use crate::writer::{self, Writer};
use crate::{Coordinator, Store};

/// Opens the file at `path`, or makes it.
///
/// # Errors
/// [`Denied`](avout_core::ErrorKind::Denied): it is read-only, of another user, or a link.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): it is a database of another application.
/// [`Corrupt`](avout_core::ErrorKind::Corrupt): it is no SQLite database, or damaged.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a newer library made it, or its file system cannot do what SQLite needs.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): others kept it locked for too long.
/// In all these cases a file that is not avout's is as it was.
///
/// # Cancel safety
/// Safe: a file that was made stays, and a client that nobody got ends.
pub async fn open(path: impl Into<PathBuf>) -> Result<Backend> {
    Options::new(path).open().await
}

/// Opens what a text names, as [`Options::from_url`] reads it.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput), and those of [`open`].
///
/// # Cancel safety
/// As [`open`].
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A file that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the client ends, in the
/// background. [`close`](Self::close) ends it surely.
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

    /// Ends the client: requests that were sent are done, later ones and all watchers get
    /// [`Closed`](avout_core::ErrorKind::Closed), the connections are closed and the threads end. Without it the
    /// same happens after the last handle is dropped, but nobody can wait for it.
    ///
    /// # Cancel safety
    /// The end is begun at the first poll and cannot be taken back; a later call waits for it.
    pub async fn close(&self) {
        self.client.close().await;
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.shared.options).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the file: see [`open`](crate::open).
    ///
    /// # Errors
    /// As [`open`](crate::open).
    ///
    /// # Cancel safety
    /// As [`open`](crate::open).
    pub async fn open(self) -> Result<Backend> {
        open_client(self).await
    }
}

async fn open_client(options: Options) -> Result<Backend> {
    let (queue, requests) = mpsc::channel();
    let (opened, open) = oneshot::channel();
    let (running, ended) = watch::channel(());
    // All that may take long is done on the thread that will write. Nobody joins it: it ends when the last handle is
    // dropped, which may be on a thread of the async runtime that must not wait for the disk. `Backend::close` waits.
    thread::Builder::new()
        .name("avout-sql-writer".into())
        .spawn(move || {
            let _running = running;
            match prepare(options) {
                Ok((shared, writer, reader)) => {
                    let writer = Arc::new(Mutex::new(Some(writer)));
                    // If nobody waits any more, the queue has no sender and the writer ends at once.
                    let _ = opened.send(Ok((shared, Arc::clone(&writer), reader)));
                    writer::serve(&writer, &requests);
                }
                Err(error) => drop(opened.send(Err(error.during("open")))),
            }
        })
        .map_err(|error| Error::new(ErrorKind::Unavailable, "no thread could be started").with_source(error))?;
    let answer = told(open).await;
    let (shared, writer, reader) =
        answer.map_err(|_| Error::new(ErrorKind::Unavailable, "the writer's thread ended"))??;
    let client = Arc::new(Client::new(shared, queue, writer, reader, ended));
    Ok(Backend::new(client))
}

type Prepared = (Arc<Shared>, Writer, Option<Connection>);

fn prepare(options: Options) -> Result<Prepared> {
    let Place::File(path) = &options.place else {
        return prepare_with(options, None);
    };
    let file = File::prepare(path, !options.readonly)?;
    let path = file.path().to_owned();
    prepare_with(options, Some(file)).map_err(|error| with_path(denied(error, &path), &path))
}

/// SQLite says only that it cannot open something, be it for want of a right or of a file descriptor.
fn denied(error: Error, path: &Path) -> Error {
    let code = error.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
    match forbidden(path) {
        Some(why) if code == Some(rusqlite::ErrorCode::CannotOpen) => {
            Error::new(ErrorKind::Denied, why).with_source(error)
        }
        _ => error,
    }
}

fn prepare_with(options: Options, file: Option<File>) -> Result<Prepared> {
    let mut connection = connection::connect(&options, file.as_ref())?;
    let id = Name::new();
    let (realm, clock) = tables::prepare(&mut connection, &options, id)?;
    let shared = Arc::new(Shared::new(options, file, realm, clock));
    let reader = match &shared.file {
        Some(file) => {
            // SQLite says that it uses the log even where writing that to the file has just failed.
            file.remember_companions().map_err(|error| {
                Error::new(ErrorKind::Unavailable, "the write-ahead log was not begun; open it again")
                    .with_source(error)
            })?;
            Some(shared.connect()?)
        }
        None => None,
    };
    let writer = Writer::new(Arc::clone(&shared), connection, id)?;
    Ok((shared, writer, reader))
}
