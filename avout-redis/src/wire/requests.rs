//! How requests are made.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::history::Observed;
use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use redis::{Cmd, RedisError, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::connection::{Home, Link};
use super::error::{NO_POINTS, classify};
use super::scripts::{Loaded, Script};
use super::verdict::Verdict;
use crate::schema::cell::{self, CLOCK, Clock};

/// How often a request is made that the server refused before it did anything, for a reason that is mended at once.
const TRIES: usize = 5;
/// How long a request waits for a namespace that is on its way to another node of the cluster, and how often it looks.
const MOVING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(25);

/// The first bytes of each script's first argument: the era, the latest point that is known, and a number by chance.
pub(crate) type Head = [u8; 24];

/// How often and how long a request is made again.
struct Tries {
    left: usize,
    moving: Option<Instant>,
    pause: bool,
}

impl Tries {
    fn new() -> Self {
        Self { left: TRIES, moving: None, pause: false }
    }

    /// Before each time.
    async fn again(&mut self) -> bool {
        if std::mem::take(&mut self.pause) {
            sleep(LOOK).await;
            return true;
        }
        let left = self.left;
        self.left = left.saturating_sub(1);
        left > 0
    }

    /// After an error: whether the request is made again, which the server did nothing of. `lost` is what it means that no reply came.
    fn refused(&mut self, client: &Client, link: &Link, error: RedisError, lost: ErrorKind) -> Result<()> {
        match client.heed(link, &error) {
            Verdict::Moved(_) | Verdict::Anew => Ok(()),
            Verdict::Moving if self.moving.get_or_insert_with(Instant::now).elapsed() < MOVING => {
                self.pause = true;
                Ok(())
            }
            _ => Err(classify(error, lost)),
        }
    }
}

impl Client {
    pub(crate) fn head(link: &Link, seen: u64) -> Head {
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
            let mut tries = Tries::new();
            while tries.again().await {
                let link = self.connected(&home).await?;
                let Some(seen) = self.history.seen(link.era) else {
                    link.retire();
                    continue;
                };
                let head = Self::head(&link, seen);
                let mut cmd = link.scripts.call(script, keys, size.0, size.1);
                arguments(&mut cmd, &head);
                match link.wire.ask::<Value>(&cmd).await {
                    Ok(Value::Int(0 | 1)) => link.retire(),
                    Ok(Value::Int(2)) => return Err(Error::new(ErrorKind::Full, NO_POINTS)),
                    Ok(reply) => return Ok((reply, head, link)),
                    Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                        let loaded = Loaded::load(&link.wire).await;
                        loaded.map(drop).or_else(|error| tries.refused(self, &link, error, ErrorKind::Unavailable))?;
                    }
                    Err(error) => tries.refused(self, &link, error, lost)?,
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
            let mut tries = Tries::new();
            let round = self.reading();
            while tries.again().await {
                let link = self.connected(&home).await?;
                let Some(seen) = self.history.seen(link.era) else {
                    link.retire();
                    continue;
                };
                let mut reply = match link.read(&self.names.cells, fields.clone()).await {
                    Some(Ok(reply)) => reply.into_iter(),
                    Some(Err(error)) => {
                        tries.refused(self, &link, error, ErrorKind::Unavailable)?;
                        continue;
                    }
                    None => continue,
                };
                let clock = reply.next();
                match self.check(&link, seen, clock.as_ref()) {
                    Some(clock) => {
                        let latest = cell::latest(reply.as_slice(), clock.point);
                        self.confirm_read(link.era, latest, round).await?;
                        return Ok((clock, reply));
                    }
                    None => link.retire(),
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
            let mut tries = Tries::new();
            let round = self.reading();
            while tries.again().await {
                let link = self.connected(&home).await?;
                let Some(seen) = self.history.seen(link.era) else {
                    link.retire();
                    continue;
                };
                let mut pipe = redis::pipe();
                for command in commands {
                    pipe.add_command(command.clone());
                }
                pipe.cmd("HGET").arg(&self.names.cells).arg(CLOCK);
                let mut replies = match link.wire.ask_all::<Vec<Value>>(&pipe).await {
                    Ok(replies) => replies,
                    Err(error) => {
                        tries.refused(self, &link, error, ErrorKind::Unavailable)?;
                        continue;
                    }
                };
                match self.check(&link, seen, replies.pop().as_ref()) {
                    Some(clock) if replies.len() == commands.len() => {
                        self.confirm_read(link.era, clock.point, round).await?;
                        return Ok(replies);
                    }
                    Some(_) => return Err(Error::new(ErrorKind::Unavailable, "the server left replies out")),
                    None => link.retire(),
                }
            }
            Err(unsteady())
        })
        .await
    }

    /// The clock, if it is the one that the connection entered under, and not before what was known when the request was sent.
    pub(crate) fn check(&self, link: &Link, seen: u64, clock: Option<&Value>) -> Option<Clock> {
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
}

fn unsteady() -> Error {
    Error::new(ErrorKind::Unavailable, "the server changes again and again, or scripts are removed from it")
}

/// Rounds up, so that a short time is not none.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
