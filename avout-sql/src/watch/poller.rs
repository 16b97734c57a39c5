use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use avout_core::{Error, ErrorKind, Result};
use rusqlite::Connection;

use crate::client::Shared;
use crate::coordinator::read;
use crate::wire::connection::patiently;
use crate::wire::error::classify;

/// How often the file is looked at for changes by others.
const INTERVAL: Duration = Duration::from_millis(5);

/// How often while that fails.
const BROKEN: Duration = Duration::from_millis(100);

/// How long the thread stays when the last watch has ended.
const LINGER: Duration = Duration::from_secs(1);

/// Starts the thread that finds changes by other connections, unless it runs.
///
/// It asks SQLite for `data_version`, which changes with each commit of another connection, and only then for the points of
/// the keys that are watched. A store in memory has no other connections.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<()> {
    if shared.file.is_none() || !shared.hub.wants_poller() {
        return Ok(());
    }
    let poller = Arc::clone(shared);
    let started = thread::Builder::new().name("avout-sql-poller".into()).spawn(move || poll(&poller));
    if let Err(error) = started {
        shared.hub.poller_ended();
        return Err(Error::new(ErrorKind::Unavailable, "no thread could be started").with_source(error));
    }
    Ok(())
}

fn poll(shared: &Shared) {
    let mut eyes = None;
    let mut broken = false;
    let mut pause = Duration::ZERO;
    while shared.hub.pause(pause, LINGER) {
        let began = Instant::now();
        match look(shared, &mut eyes) {
            Ok(()) => {
                if std::mem::take(&mut broken) {
                    shared.hub.lose();
                }
                // With so many keys that one look takes long, no more than half of the time.
                pause = INTERVAL.max(began.elapsed());
            }
            Err(error) => {
                tracing::debug!(%error, "changes by others cannot be seen");
                eyes = None;
                // Whoever waits is to read, and finds what is wrong.
                if !std::mem::replace(&mut broken, true) {
                    shared.hub.lose();
                }
                pause = BROKEN;
            }
        }
    }
}

/// A connection, and the data version at its last look.
struct Eyes {
    connection: Connection,
    version: Option<i64>,
}

fn look(shared: &Shared, eyes: &mut Option<Eyes>) -> Result<()> {
    if let Some(file) = &shared.file {
        file.check()?;
    }
    let eyes = match eyes {
        Some(eyes) => eyes,
        None => eyes.insert(Eyes { connection: shared.connect()?, version: None }),
    };
    let known = shared.history.known();
    patiently(shared.options.busy_timeout, || {
        let version = eyes
            .connection
            .prepare_cached("PRAGMA data_version")
            .and_then(|mut statement| statement.query_row([], |row| row.get(0)))
            .map_err(classify)?;
        // The version is read before the keys: a commit in between is seen now, and once more the next time.
        if eyes.version != Some(version) {
            shared.look(&eyes.connection, known)?;
            shared.hub.observe(read::stamps(&eyes.connection, &shared.hub.spots())?);
            eyes.version = Some(version);
        }
        Ok(())
    })
}
