//! How requests are made.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::history::Observed;
use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use redis::{Cmd, RedisResult, ServerErrorKind, Value};

use super::client::Client;
use super::connection::{Home, Link, read_cells};
use super::error::NO_POINTS;
use super::scripts::{Loaded, Script};
use super::way::{Tries, Way};
use crate::schema::cell::{self, CLOCK, Clock};

/// The first bytes of each script's first argument: the era, the latest point that is known, and a number by chance.
pub(crate) type Head = [u8; 24];

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
            loop {
                let way = tries.next(self, &home).await?;
                let head = Self::head(&way.link, way.seen);
                let mut cmd = way.link.scripts.call(script, keys, size.0, size.1);
                arguments(&mut cmd, &head);
                match way.wire().ask::<Value>(&cmd).await {
                    Ok(Value::Int(0 | 1)) => way.link.retire(),
                    Ok(Value::Int(2)) => return Err(Error::new(ErrorKind::Full, NO_POINTS)),
                    Ok(reply) => return Ok((reply, head, way.link)),
                    Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                        match Loaded::load(way.wire()).await {
                            Ok(_) => {}
                            Err(error) => tries.refused(self, &way, error, ErrorKind::Unavailable)?,
                        }
                    }
                    Err(error) => tries.refused(self, &way, error, lost)?,
                }
            }
        })
        .await
    }

    /// Reads fields of the cells, all at one moment, with the clock of that moment.
    pub(crate) async fn read<'a>(
        &self,
        fields: impl Iterator<Item = &'a str> + Clone,
    ) -> Result<(Clock, std::vec::IntoIter<Value>)> {
        let ask = |way: Way| {
            let fields = fields.clone();
            async move {
                if way.is_detour() {
                    return Some(way.wire().ask(&read_cells(&self.names.cells, fields)).await);
                }
                way.link.read(&self.names.cells, fields).await
            }
        };
        self.asked(ask, std::vec::IntoIter::next, cell::latest).await
    }

    /// Looks at one key of the namespace, as [`look_all`](Self::look_all) does.
    pub(crate) async fn look(&self, command: &Cmd) -> Result<Value> {
        let mut found = self.look_all(std::slice::from_ref(command)).await?;
        Ok(found.pop().expect("one reply for one command"))
    }

    /// Looks at keys of the namespace, and then at the clock. The replies are not older than the call; the clock tells
    /// whether they are of the right namespace at all.
    pub(crate) async fn look_all(&self, commands: &[Cmd]) -> Result<Vec<Value>> {
        let mut look = redis::cmd("HGET");
        look.arg(&self.names.cells).arg(CLOCK);
        let all: Arc<[Cmd]> = commands.iter().cloned().chain([look]).collect();
        let ask = |way: Way| {
            let all = Arc::clone(&all);
            async move { Some(way.ask_all(&all).await) }
        };
        let (_, replies) = self.asked(ask, std::vec::IntoIter::next_back, |_, clock| clock).await?;
        Ok(replies.collect())
    }

    /// Asks until an answer is current, and has it confirmed as far as the options say. `clock` takes the clock out of an answer;
    /// `latest` gives the point of the latest of the rest.
    async fn asked<F: Future<Output = Option<RedisResult<Vec<Value>>>>>(
        &self,
        ask: impl Fn(Way) -> F,
        clock: fn(&mut std::vec::IntoIter<Value>) -> Option<Value>,
        latest: fn(&[Value], u64) -> u64,
    ) -> Result<(Clock, std::vec::IntoIter<Value>)> {
        let home = Home::here();
        tasks::request(async {
            let mut tries = Tries::new();
            let round = self.reading();
            loop {
                let way = tries.next(self, &home).await?;
                let mut found = match ask(way.clone()).await {
                    Some(Ok(found)) => found.into_iter(),
                    Some(Err(error)) => {
                        tries.refused(self, &way, error, ErrorKind::Unavailable)?;
                        continue;
                    }
                    None => continue,
                };
                match self.check(&way.link, way.seen, clock(&mut found).as_ref()) {
                    Some(clock) => {
                        self.confirm_read(way.link.era, latest(found.as_slice(), clock.point), round).await?;
                        return Ok((clock, found));
                    }
                    None => way.link.retire(),
                }
            }
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

/// Rounds up, so that a short time is not none.
pub(crate) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}
