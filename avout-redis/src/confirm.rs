//! What replicas have confirmed.
//!
//! One task waits for all: it writes something of its own behind what is to be confirmed, with a connection of its own, and has the
//! server wait until replicas have that (`WAIT`). So any number of commits and reads share one round trip, and hold up no request.
//! What was committed up to the clock that the write found is confirmed then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use avout_core::backend::history::Era;
use avout_core::backend::tasks;
use avout_core::{Error, ErrorKind, Result};
use redis::{RedisError, Value};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::cell::Clock;
use crate::client::Client;
use crate::dial::Wire;
use crate::error::classify;
use crate::find::Standing;
use crate::link::{Link, milliseconds};
use crate::options::{Address, Replicas};
use crate::scripts::{Loaded, Script};
use crate::server::Server;
use crate::verdict::{Verdict, verdict};

/// Pauses between attempts to reach the server.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Waits for replicas, for all who wait.
pub(crate) struct Confirmer {
    state: watch::Sender<State>,
    wanted: Notify,
    /// The most replicas that the server had at once.
    pub(crate) replicas_seen: AtomicU32,
    /// How many of them there were when it was looked last.
    live: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    /// All that was committed in this era up to this point is confirmed.
    era: Era,
    point: u64,
    /// How many rounds have begun.
    begun: u64,
    /// The last round that was confirmed, and the last one that was not.
    good: u64,
    short: u64,
    why: String,
}

/// The round from which on it is proven that the server was the master after some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round(u64);

/// How many replicas are asked for.
struct Wanted {
    ask: u32,
    least: u32,
    /// With so many no other server can be the master. With fewer whoever knows is asked too.
    all: u32,
}

/// The task's connection.
struct Line {
    wire: Wire,
    scripts: Loaded,
    era: Era,
    address: Address,
}

enum Failed {
    /// Another connection may do better.
    Link(Error),
    Short(String),
}

impl Confirmer {
    pub(crate) fn new() -> Self {
        let live = AtomicU32::new(u32::MAX);
        Self { state: watch::Sender::default(), wanted: Notify::new(), replicas_seen: AtomicU32::new(0), live }
    }

    /// The next round.
    pub(crate) fn next(&self) -> Round {
        let round = Round(self.state.borrow().begun + 1);
        self.wanted.notify_one();
        round
    }

    /// Whether this is confirmed already.
    pub(crate) fn has(&self, era: Era, point: u64) -> bool {
        let state = self.state.borrow();
        state.era == era && state.point >= point
    }

    /// Runs as long as there is the client.
    pub(crate) async fn run(self: Arc<Self>, client: Weak<Client>) {
        let mut line = None;
        loop {
            self.wanted.notified().await;
            let mut pause = FIRST_PAUSE;
            loop {
                let Some(client) = client.upgrade() else { return };
                let Err(error) = client.round(&mut line).await else { break };
                line = None;
                drop(client);
                tracing::debug!(%error, "replicas cannot be waited for");
                if self.state.receiver_count() == 0 {
                    break;
                }
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        }
    }
}

impl Client {
    fn waits_for_replicas(&self) -> bool {
        self.options.wait_replicas != Replicas::Number(0)
    }

    /// Waits until as many replicas as the options say have what was committed at this point.
    ///
    /// # Errors
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) if they do not in time. The write is there, but a failover may lose it, and its
    /// slot is not read until they have it.
    pub(crate) async fn confirm(&self, era: Era, point: u64) -> Result<()> {
        if !self.waits_for_replicas() {
            return Ok(());
        }
        self.confirmed(era, point, None).await.map_err(|source| {
            let message = "the write is done, but too few replicas have confirmed it: a failover may lose it";
            Error::new(ErrorKind::OutcomeUnknown, message).with_source(source)
        })
    }

    /// What a read has to wait for beside its reply: call it when the read begins.
    pub(crate) fn reading(&self) -> Option<Round> {
        self.options.confirmed_reads.then(|| self.confirmer.next())
    }

    /// Waits until what was read is confirmed: nothing that a failover may lose is told. `latest` is the point of the latest of it.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if too few replicas confirm it in time.
    pub(crate) async fn confirm_read(&self, era: Era, latest: u64, round: Option<Round>) -> Result<()> {
        if !self.waits_for_replicas() || (round.is_none() && self.confirmer.has(era, latest)) {
            return Ok(());
        }
        self.confirmed(era, latest, round).await
    }

    async fn confirmed(&self, era: Era, point: u64, round: Option<Round>) -> Result<()> {
        let confirmer = &self.confirmer;
        let next = confirmer.next().0;
        let round = round.map_or(0, |Round(round)| round);
        let mut state = confirmer.state.subscribe();
        let is_over = || self.history.seen(era).is_none();
        let decided = |state: &State| {
            let done = state.era == era && state.point >= point && state.good >= round;
            done || state.short >= next.max(round) || is_over()
        };
        let unavailable = |message: String| Error::new(ErrorKind::Unavailable, message);
        let waited = tasks::request(async { timeout(self.options.timeout, state.wait_for(decided)).await });
        match waited.await {
            Ok(Ok(state)) if state.era == era && state.point >= point && state.good >= round => Ok(()),
            Ok(Ok(_)) if is_over() => {
                Err(unavailable("the server changed before replicas had confirmed it".to_owned()))
            }
            Ok(Ok(state)) => Err(unavailable(state.why.clone())),
            Ok(Err(_)) | Err(_) => {
                Err(unavailable("the server was out of reach before replicas had confirmed it".to_owned()))
            }
        }
    }

    fn wanted(&self) -> Wanted {
        match self.options.wait_replicas {
            Replicas::Number(number) => Wanted { ask: number, least: number, all: number },
            Replicas::Majority => {
                let known =
                    self.finder.replicas().unwrap_or(0).max(self.confirmer.replicas_seen.load(Ordering::Relaxed));
                let all = known.max(1);
                // A majority of the master and its replicas, but for the master itself.
                let least = all.div_ceil(2);
                Wanted { ask: self.confirmer.live.load(Ordering::Relaxed).clamp(least, all), least, all }
            }
        }
    }

    /// Has all confirmed that is committed by now.
    ///
    /// # Errors
    /// Those of the connection. That too few replicas confirm it is told to those that wait.
    async fn round(&self, line: &mut Option<Line>) -> Result<()> {
        let link = self.any_link().await?;
        let changed = || {
            link.retire();
            Error::new(ErrorKind::Unavailable, "the server changed while replicas were waited for")
        };
        let seen = self.history.seen(link.era).ok_or_else(changed)?;
        if line.as_ref().is_none_or(|line| line.era != link.era || line.address != link.address) {
            let wire = self.finder.dial(&link.address, None).await?;
            let scripts = Loaded::load(&wire).await.map_err(|error| classify(error, ErrorKind::Unavailable))?;
            self.finder.set_name(&wire).await;
            *line = Some(Line { wire, scripts, era: link.era, address: link.address.clone() });
        }
        let Some(line) = line else { return Err(changed()) };
        let mut begun = 0;
        self.confirmer.state.send_modify(|state| {
            state.begun += 1;
            begun = state.begun;
        });
        let answer = match self.ask_replicas(line, &link, seen).await {
            Ok(None) => return Err(changed()),
            Ok(Some(clock)) => Ok(clock),
            Err(Failed::Link(error)) => return Err(error),
            Err(Failed::Short(why)) => {
                self.lookout.doubt();
                Err(why)
            }
        };
        self.confirmer.state.send_modify(|state| match answer {
            Ok(clock) => {
                let point = if state.era == link.era { state.point.max(clock.point) } else { clock.point };
                (state.era, state.point, state.good) = (link.era, point, begun);
            }
            Err(why) => (state.short, state.why) = (begun, why),
        });
        Ok(())
    }

    /// One round. `None`: the server is in another era.
    async fn ask_replicas(&self, line: &Line, link: &Link, seen: u64) -> Result<Option<Clock>, Failed> {
        let wanted = self.wanted();
        let head = Self::head(link, seen);
        let mut touch = line.scripts.call(Script::Touch, &[&self.names.cells], 2, 48);
        touch.arg(&head[..]).arg(&head[16..]);
        let mut wait = redis::cmd("WAIT");
        wait.arg(wanted.ask).arg(milliseconds(self.options.wait_timeout));
        let mut pipe = redis::pipe();
        pipe.add_command(touch).add_command(wait).cmd("INFO").arg("replication");
        let answered = line.wire.ask_all::<(Value, u32, String)>(&pipe).await;
        let (clock, confirmed, info) = answered.map_err(|error| self.no_round(link, error))?;
        if !matches!(clock, Value::BulkString(_)) {
            return Ok(None);
        }
        let clock = Clock::read(&clock).filter(|clock| clock.is_of(link.era) && clock.point >= seen);
        let server = Server::read(&info);
        self.confirmer.replicas_seen.fetch_max(server.replicas(), Ordering::Relaxed);
        self.confirmer.live.store(server.live_replicas(), Ordering::Relaxed);
        if confirmed < wanted.least {
            return Err(Failed::Short(format!(
                "{confirmed} replicas of {} have confirmed the last write",
                wanted.least
            )));
        }
        // A replica that was just made a master is one that did not confirm it; the others may go on confirming for a while.
        if confirmed < wanted.all && self.finder.standing(link).await != Standing::Master {
            let message = "another server may be the master by now, and not all replicas have confirmed the last write";
            return Err(Failed::Short(message.to_owned()));
        }
        Ok(clock)
    }

    fn no_round(&self, link: &Link, error: RedisError) -> Failed {
        if verdict(&error) == Verdict::Doubt {
            return Failed::Short(classify(error, ErrorKind::Unavailable).to_string());
        }
        self.heed(link, &error);
        Failed::Link(classify(error, ErrorKind::Unavailable))
    }
}
