//! Entering the namespace: looking whether a server can be used, and in which era it is.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::history::{Entered, Era, Survived};
use avout_core::protocol::{Floor, Realm};
use avout_core::{Error, ErrorKind, Result};
use redis::{RedisError, Value};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::Client;
use super::connection::{Detour, Found, Link, Wire};
use super::error::{NO_POINTS, classify, lost_namespace};
use super::scripts::{Loaded, Script};
use super::servers::{Server, check_settings};
use super::verdict::{Verdict, verdict};
use crate::options::{Address, Topology};
use crate::schema::Clock;

/// The version of the layout that this library makes. It reads and writes the one before too, in which all is told to watchers
/// whether or not there are any.
const FORMAT: &str = "2";
/// How often a redirection is followed.
const HOPS: usize = 8;
/// How long one place has before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);

enum Failed {
    Moved(Address),
    /// The slot is on its way to this node, and the namespace is there already.
    Asked(Address, RedisError),
    Error(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Client {
    /// Connects to the server that takes writes, and enters the namespace.
    ///
    /// # Cancel safety
    /// Safe: entering can be done again.
    pub(crate) async fn enter_anywhere(self: &Arc<Self>) -> Result<(Link, Found)> {
        let mut places = self.finder.places().await?.into_iter().peekable();
        let mut trying = JoinSet::new();
        let mut failed = None;
        loop {
            match places.next() {
                Some(place) => {
                    let client = Arc::clone(self);
                    trying.spawn(async move { client.enter_from(place).await });
                }
                None if trying.is_empty() => break,
                None => {}
            }
            tokio::select! {
                Some(done) = trying.join_next() => match done {
                    Ok(Ok(done)) => return Ok(done),
                    // Another node of the cluster may know more.
                    Ok(Err(error)) if error.kind() == ErrorKind::Unavailable => failed = Some(error),
                    Ok(Err(error)) => return Err(error),
                    Err(error) => failed = Some(Error::new(ErrorKind::Unavailable, "no connection was made").with_source(error)),
                },
                () = sleep(STAGGER), if places.peek().is_some() => {}
            }
        }
        Err(failed.unwrap_or_else(|| Error::new(ErrorKind::InvalidInput, "there is no host")))
    }

    async fn enter_from(&self, mut address: Address) -> Result<(Link, Found)> {
        for _ in 0..HOPS {
            match self.enter_at(&address).await {
                Ok(done) => {
                    self.finder.is_at(&address);
                    return Ok(done);
                }
                Err(Failed::Moved(to)) => address = to.or(&address),
                Err(Failed::Asked(_, error)) => return Err(refused(error)),
                Err(Failed::Error(error)) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the nodes of the cluster do not agree where the namespace lies"))
    }

    async fn enter_at(&self, address: &Address) -> Result<(Link, Found), Failed> {
        let wire = self.finder.dial(address, None).await?;
        let info: String = wire.ask(&redis::cmd("INFO")).await.map_err(refused)?;
        let server = Server::read(&info);
        if let Some(cluster) = self.finder.cluster() {
            let map = cluster.ask(&wire, address).await;
            // Any node leads to the master.
            if let Some(master) =
                map.and_then(|map| map.master).filter(|master| server.is_replica() && master != address)
            {
                return Err(Failed::Moved(master));
            }
        }
        let (detour, (scripts, era, found)) = match self.enter_with(&wire, &server).await {
            Ok(entered) => (None, entered),
            Err(Failed::Asked(to, _)) => {
                let (detour, entered) = self.enter_beside(to.or(address)).await?;
                (Some(detour), entered)
            }
            Err(error) => return Err(error),
        };
        let process = server.process().to_owned();
        wire.counts(self.connection.up());
        Ok((Link::new(wire, detour, scripts, era, address.clone(), process), found))
    }

    /// Enters at the node that the slot is on its way to.
    async fn enter_beside(&self, to: Address) -> Result<(Detour, (Loaded, Era, Found)), Failed> {
        let wire = self.finder.dial(&to, None).await?.asking(true);
        let info: String = wire.ask(&redis::cmd("INFO")).await.map_err(|error| {
            let message =
                "the namespace's slot is being moved to another node, which does not take ASKING of this user";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        })?;
        let entered = self.enter_with(&wire, &Server::read(&info)).await?;
        Ok((Detour { to, wire }, entered))
    }

    async fn enter_with(&self, wire: &Wire, server: &Server<'_>) -> Result<(Loaded, Era, Found), Failed> {
        let options = &self.options;
        server.check(options)?;
        self.confirmer.sees(server);
        let durable = check_settings(wire, options, server).await?;
        let scripts = Loaded::load(wire).await.map_err(refused)?;
        self.finder.set_name(wire).await;

        let realm = self.known_realm();
        let known = self.history.known();
        let mut knowledge = [0; 20];
        knowledge[..4].copy_from_slice(&known.era.number.to_be_bytes());
        knowledge[4..12].copy_from_slice(&known.era.id);
        knowledge[12..].copy_from_slice(&known.seen.to_be_bytes());
        let realm = realm.map(|realm| realm.to_string()).unwrap_or_default();
        let keys = [&*self.names.meta, &self.names.cells, &self.names.names];
        let mut cmd = scripts.call(if options.readonly { Script::Look } else { Script::Enter }, &keys, 9, 512);
        if options.readonly {
            cmd.arg(FORMAT).arg(realm).arg(&knowledge[..]);
        } else {
            cmd.arg(FORMAT)
                .arg(&server.identity)
                .arg(realm)
                .arg(&knowledge[..])
                .arg(Realm::random().to_string())
                .arg(&rand::random::<[u8; 8]>()[..])
                .arg(Floor::key().as_str())
                .arg(Floor::default().to_record().encode()?)
                .arg(&rand::random::<[u8; 8]>()[..]);
        }
        let reply = match wire.ask::<Vec<Value>>(&cmd).await {
            Ok(reply) => reply,
            Err(error) => {
                return Err(match (&options.topology, verdict(&error)) {
                    (Topology::Cluster, Verdict::Moved(Some(to))) => Failed::Moved(to),
                    (Topology::Cluster, Verdict::Asked(to)) => Failed::Asked(to, error),
                    (_, Verdict::Moved(_)) => Failed::Error(
                        Error::new(ErrorKind::Unsupported, "the server is of a cluster: use redis+cluster://")
                            .with_source(error),
                    ),
                    _ => Failed::Error(refused(error)),
                });
            }
        };
        let Welcome { realm, era, clock, survived } = Welcome::read(&reply)?;
        match self.history.enter(known, era, clock, survived) {
            Entered::Current => {}
            Entered::Stale => {
                return Err(Error::new(ErrorKind::Unavailable, "the server changed while a connection was made").into());
            }
        }
        Ok((scripts, era, Found { realm, durable }))
    }
}

fn refused(error: RedisError) -> Error {
    classify(error, ErrorKind::Unavailable)
}

/// How the script of entering answers where all is well.
struct Welcome {
    realm: Realm,
    era: Era,
    clock: u64,
    survived: Option<Survived>,
}

impl Welcome {
    fn read(reply: &[Value]) -> Result<Self> {
        let text = |at: usize| match reply.get(at) {
            Some(Value::BulkString(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let foreign =
            || Error::new(ErrorKind::Mismatch, "a key of the namespace holds something that avout did not write");
        match text(0).unwrap_or_default() {
            "ok" => {
                let read = || {
                    let realm = text(1)?.parse().ok()?;
                    let Some(Value::Int(number)) = reply.get(2) else { return None };
                    let clock = Clock::read(reply.get(3)?)?;
                    let survived = match text(4)? {
                        "" => None,
                        "nothing" => Some(Survived::Nothing),
                        count => Some(Survived::UpTo(count.parse().ok()?)),
                    };
                    let era = Era { number: u32::try_from(*number).ok()?, id: clock.id };
                    Some(Self { realm, era, clock: clock.point, survived })
                };
                read().ok_or_else(foreign)
            }
            "lost" => Err(lost_namespace()),
            "missing" => {
                Err(Error::new(ErrorKind::NotFound, "there is no such namespace, and readonly=true makes none"))
            }
            "foreign" => Err(foreign()),
            "format" => {
                let format: String = text(1).unwrap_or_default().chars().take(20).collect();
                let message = format!(
                    "the namespace has the format {format}, and this library knows {FORMAT}: use the library that made it"
                );
                Err(Error::new(ErrorKind::Unsupported, message))
            }
            "denied" => {
                let message = format!("this user may not run {}, which avout needs", text(1).unwrap_or_default());
                Err(Error::new(ErrorKind::Denied, message))
            }
            _ => Err(Error::new(ErrorKind::Full, NO_POINTS)),
        }
    }
}
