//! How requests are made.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::history::Observed;
use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use redis::{Cmd, RedisError, RedisResult, ServerErrorKind, Value};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::connection::{Home, Link, Wire, read_cells};
use super::error::{NO_POINTS, classify};
use super::scripts::{Loaded, Script};
use super::verdict::{Verdict, answered};
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
    /// The commands, by their place, that the node answers the next time that the slot is on its way to.
    there: Option<Arc<[usize]>>,
    /// The namespace was entered once more, since a key had gone to the other node.
    entered: bool,
}

/// The way that a request takes.
#[derive(Clone)]
struct Way {
    link: Arc<Link>,
    /// The latest point that was known before.
    seen: u64,
    /// The commands, by their place, that go to the node that the slot is on its way to. That holds for this one request: the next one
    /// begins with the link's node again.
    there: Option<Arc<[usize]>>,
}

impl Way {
    /// Where a request of one command goes.
    fn wire(&self) -> &Wire {
        self.wire_of(0)
    }

    fn wire_of(&self, command: usize) -> &Wire {
        match (&self.link.detour, &self.there) {
            (Some(detour), Some(there)) if there.contains(&command) => &detour.wire,
            _ => &self.link.wire,
        }
    }

    /// Sends commands of one key each, of which those before the last may be answered in any order.
    async fn ask_all(&self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
        let mut answers = vec![Value::Nil; commands.len()];
        let last = self.wire_of(commands.len().saturating_sub(1));
        // A key that the link's node does not have any more, or never had, is on the other one if anywhere.
        for with_last in [false, true] {
            let some: Vec<usize> =
                (0..commands.len()).filter(|at| std::ptr::eq(self.wire_of(*at), last) == with_last).collect();
            let mut pipe = redis::pipe();
            for at in &some {
                pipe.add_command(commands[*at].clone());
            }
            let Some(first) = some.first() else { continue };
            let answered: Vec<Value> = self.wire_of(*first).ask_all(&pipe).await?;
            some.iter().zip(answered).for_each(|(at, answer)| answers[*at] = answer);
        }
        Ok(answers)
    }
}

impl Tries {
    fn new() -> Self {
        Self { left: TRIES, moving: None, pause: false, there: None, entered: false }
    }

    /// The way that is taken the next time.
    ///
    /// # Errors
    /// Those of connecting; and that it was made often enough.
    async fn next(&mut self, client: &Client, home: &Home) -> Result<Way> {
        while self.again().await {
            let link = match client.connected(home).await {
                // What was asked for is on the other node, and what a connection begins with is not yet.
                Err(error) if self.entered && error.kind() == ErrorKind::Unavailable && self.is_moving() => continue,
                connected => connected?,
            };
            match client.history.seen(link.era) {
                Some(seen) => {
                    let there = self.there.take().filter(|_| link.detour.is_some());
                    return Ok(Way { link, seen, there });
                }
                None => link.retire(),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the server changes again and again, or scripts are removed from it"))
    }

    /// Before each time.
    async fn again(&mut self) -> bool {
        if std::mem::take(&mut self.pause) {
            sleep(LOOK).await;
            return true;
        }
        if self.there.is_some() {
            return true;
        }
        let left = self.left;
        self.left = left.saturating_sub(1);
        left > 0
    }

    /// After an error: whether the request is made again, which the server did nothing of. `lost` is what it means that no reply came.
    fn refused(&mut self, client: &Client, way: &Way, error: RedisError, lost: ErrorKind) -> Result<()> {
        match client.heed(&way.link, &error) {
            Verdict::Moved(_) | Verdict::Anew => Ok(()),
            Verdict::Asked(to) if way.there.is_none() && way.link.leads_to(&to) => {
                self.there = Some(answered(&error));
                Ok(())
            }
            Verdict::Asked(_) if way.there.is_none() && !std::mem::replace(&mut self.entered, true) => {
                // A connection enters the namespace before it is used: the next one may do so on the other node.
                way.link.retire();
                Ok(())
            }
            Verdict::Asked(_) | Verdict::Moving if self.is_moving() => Ok(()),
            _ => Err(classify(error, lost)),
        }
    }

    /// Whether a request that needs what is on two nodes is made again, in a moment.
    fn is_moving(&mut self) -> bool {
        self.pause = self.moving.get_or_insert_with(Instant::now).elapsed() < MOVING;
        self.pause
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
                if way.there.is_some() {
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
        if replies.len() != commands.len() {
            return Err(Error::new(ErrorKind::Unavailable, "the server left replies out"));
        }
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
