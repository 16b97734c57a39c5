//! The driver's client, and what its events tell.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_core::backend::{Connection, LONGEST_TIME, Up, tasks};
use avout_core::{Error, ErrorKind, Result};
use avout_tls::Refused;
use mongodb::ServerType;
use mongodb::event::EventHandler;
use mongodb::event::cmap::CmapEvent;
use mongodb::event::sdam::SdamEvent;
use mongodb::options::{ClientOptions, DriverInfo, Tls};
use tokio::sync::watch;

use super::error::{classify, missing_feature, told};
use crate::options::{Driver, Options, invalid};

/// The name by which servers know that a session is one of ours. Its version is the [namespace](mark).
pub(crate) const DRIVER: &str = "avout";

/// The most connections to a server for requests, unless the URL says `maxPoolSize`.
const POOL: u32 = 100;

/// The database and the namespace, as servers know a session by them.
pub(crate) fn mark(options: &Options) -> String {
    format!("{}.{}", options.database, options.namespace)
}

/// What the driver's events tell of the servers.
pub(crate) struct Signs {
    /// How many connections for requests were made.
    connections: AtomicU64,
    /// Up while there is a server that takes writes.
    pub(crate) connection: Arc<Connection>,
    up: Mutex<Option<Up>>,
    /// Why none of the servers can be talked to, where only another configuration helps.
    refused: watch::Sender<Option<Refused>>,
}

impl Signs {
    fn new() -> Self {
        Self {
            connections: AtomicU64::new(0),
            connection: Connection::new(),
            up: Mutex::default(),
            refused: watch::Sender::new(None),
        }
    }

    /// Each connection counts before the first request is sent on it. As long as there is no new one, requests go to the processes
    /// that they went to before.
    pub(crate) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    /// Waits until there is a reason why no server can be talked to.
    pub(crate) async fn refused(&self) -> Error {
        let mut refused = self.refused.subscribe();
        let why = refused.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => told(&why),
            // The sender is a field of this.
            None => std::future::pending().await,
        }
    }

    fn take_in(&self, event: &SdamEvent) {
        let SdamEvent::TopologyDescriptionChanged(event) = event else { return };
        let servers = event.new_description.servers();
        let takes_writes = |kind| matches!(kind, ServerType::RsPrimary | ServerType::Standalone);
        let mut up = self.up.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.values().any(|server| takes_writes(server.server_type())) {
            up.get_or_insert_with(|| self.connection.up());
        } else {
            *up = None;
        }
        let whys = servers.values().map(|server| server.error().and_then(|error| Refused::of_text(&error.to_string())));
        let all: Option<Vec<Refused>> = whys.collect();
        self.refused.send_replace(all.and_then(|all| all.into_iter().next()));
    }
}

/// Sets the driver up. It connects by itself, when it is first used.
pub(crate) async fn connect(options: &Options) -> Result<(mongodb::Client, Arc<Signs>)> {
    let signs = Arc::new(Signs::new());
    let mut driver = parse(options).await?;
    if driver.load_balanced == Some(true) {
        return Err(Error::new(ErrorKind::Unsupported, "a load balancer hides the servers that transactions need"));
    }
    check_authorities(driver.tls.as_ref())?;
    driver.app_name.get_or_insert_with(|| "avout".into());
    driver.driver_info = Some(DriverInfo::builder().name(DRIVER).version(mark(options)).build());
    // Shorter than the request's own, so that the driver gets to say why no server was found.
    driver.server_selection_timeout.get_or_insert(options.timeout - options.timeout / 10);
    driver.connect_timeout.get_or_insert(options.timeout);
    let times = [
        &mut driver.server_selection_timeout,
        &mut driver.connect_timeout,
        &mut driver.heartbeat_freq,
        &mut driver.local_threshold,
        &mut driver.max_idle_time,
    ];
    times.into_iter().for_each(bound);
    // One more for the change stream, which always waits for an answer: a pool of one would have none left for requests.
    driver.max_pool_size = Some(driver.max_pool_size.unwrap_or(POOL).saturating_add(1));
    // Each request is sent once; the engine repeats what may be repeated.
    driver.retry_writes = Some(false);
    driver.retry_reads = Some(false);
    driver.max_adaptive_retries = Some(0);
    let (made, seen) = (Arc::clone(&signs), Arc::clone(&signs));
    driver.cmap_event_handler = Some(before(driver.cmap_event_handler.take(), move |event| {
        if matches!(event, CmapEvent::ConnectionReady(_)) {
            made.connections.fetch_add(1, Ordering::SeqCst);
        }
    }));
    driver.sdam_event_handler =
        Some(before(driver.sdam_event_handler.take(), move |event: &SdamEvent| seen.take_in(event)));
    // Each request says itself what it needs.
    (driver.selection_criteria, driver.read_concern, driver.write_concern) = (None, None, None);
    Ok((mongodb::Client::with_options(driver).map_err(classify)?, signs))
}

/// A handler that calls ours, and then the one that there was.
fn before<T: Send + Sync + 'static>(
    theirs: Option<EventHandler<T>>,
    ours: impl Fn(&T) + Send + Sync + 'static,
) -> EventHandler<T> {
    EventHandler::callback(move |event| {
        ours(&event);
        match &theirs {
            Some(EventHandler::Callback(call)) => call(event),
            Some(EventHandler::AsyncCallback(call)) => drop(tasks::connections().spawn(call(event))),
            // One who does not keep up with them misses some.
            Some(EventHandler::TokioMpsc(sender)) => drop(sender.try_send(event)),
            // There are no other kinds.
            None | Some(_) => {}
        }
    })
}

/// Times that the driver adds to the present.
fn bound(time: &mut Option<Duration>) {
    *time = time.map(|time| time.min(LONGEST_TIME));
}

/// Reads the URL. With `mongodb+srv` the driver asks for the names of the servers, by itself for any time.
async fn parse(options: &Options) -> Result<ClientOptions> {
    let url = match &options.driver {
        Driver::Url(url) => url,
        Driver::Ready(ready) => return Ok((**ready).clone()),
    };
    let late =
        |_| Error::new(ErrorKind::Unavailable, "the names of the servers could not be looked up within the timeout");
    let parsed = async { ClientOptions::parse(url).await };
    tokio::time::timeout(options.timeout, parsed).await.map_err(late)?.map_err(|error| match &*error.kind {
        mongodb::error::ErrorKind::DnsResolve { .. } | mongodb::error::ErrorKind::Io(_) => Error::new(
            ErrorKind::Unavailable,
            "the names of the servers cannot be looked up: ask the name server for their SRV records",
        ),
        // The driver's own message may show a part of the URL.
        _ => missing_feature(&error).unwrap_or_else(|| {
            invalid("the driver cannot read the servers, the user or the options: percent-encode them")
        }),
    })
}

/// The driver takes a file in which there is no certificate, and then trusts nobody.
fn check_authorities(tls: Option<&Tls>) -> Result<()> {
    let Some(Tls::Enabled(tls)) = tls else { return Ok(()) };
    let Some(path) = &tls.ca_file_path else { return Ok(()) };
    let unreadable = |error: std::io::Error| {
        Error::new(ErrorKind::InvalidInput, "the file of tlsCAFile cannot be read").with_source(error)
    };
    let text = fs::read(path).map_err(unreadable)?;
    let begin = b"-----BEGIN CERTIFICATE-----";
    if text.windows(begin.len()).any(|part| part == begin) {
        return Ok(());
    }
    Err(invalid("the file of tlsCAFile has no certificate in it: it holds those of the authorities to trust, as PEM"))
}
