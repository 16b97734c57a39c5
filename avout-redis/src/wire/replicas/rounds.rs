use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use avout_core::backend::history::Era;
use avout_core::{Error, ErrorKind, Result};
use redis::{RedisError, Value};
use tokio::time::sleep;

use super::confirmer::Confirmer;
use crate::options::{Address, Replicas};
use crate::schema::Clock;
use crate::wire::client::Client;
use crate::wire::connection::{Link, Wire};
use crate::wire::error::classify;
use crate::wire::requests::milliseconds;
use crate::wire::scripts::{Loaded, Script};
use crate::wire::servers::{Server, Standing};
use crate::wire::verdict::{Verdict, verdict};

/// Pauses between attempts to reach the server.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);

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

/// Runs as long as there is the client.
pub(crate) async fn confirm_rounds(confirmer: Arc<Confirmer>, client: Weak<Client>) {
    let mut line = None;
    loop {
        confirmer.wanted().await;
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(client) = client.upgrade() else { return };
            let Err(error) = client.round(&mut line).await else { break };
            line = None;
            drop(client);
            tracing::debug!(%error, "replicas cannot be waited for");
            if confirmer.state.receiver_count() == 0 {
                break;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

impl Client {
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
        // A server that hangs answers nothing here either, and who waits for this may ask it nothing else.
        tokio::select! {
            done = self.doubting(self.options.wait_timeout, self.round_at(&link, line)) => done,
            () = link.left() => Err(Error::new(ErrorKind::Unavailable, "the server was left while replicas were waited for")),
        }
    }

    async fn round_at(&self, link: &Link, line: &mut Option<Line>) -> Result<()> {
        let changed = || {
            link.retire();
            Error::new(ErrorKind::Unavailable, "the server changed while replicas were waited for")
        };
        let seen = self.history.seen(link.era).ok_or_else(changed)?;
        if line.as_ref().is_none_or(|line| line.era != link.era || line.address != link.address) {
            let wire = self.finder.dial_beside(link, None).await?;
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
        let answer = match self.ask_replicas(line, link, seen).await {
            Ok(None) => return Err(changed()),
            Ok(Some(clock)) => Ok(clock),
            Err(Failed::Link(error)) => return Err(error),
            Err(Failed::Short(why)) => {
                self.doubt();
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
        self.confirmer.sees(&server);
        if confirmed < wanted.least {
            return Err(Failed::Short(format!(
                "{confirmed} replicas of {} have confirmed the last write",
                wanted.least
            )));
        }
        // A replica that was just made a master is one that did not confirm it; the others may go on confirming for a while.
        if confirmed < wanted.all && self.finder.standing(link.place(), &link.process).await != Standing::Master {
            let message = "another server may be the master by now, and not all replicas have confirmed the last write";
            return Err(Failed::Short(message.to_owned()));
        }
        Ok(clock)
    }

    fn no_round(&self, link: &Link, error: RedisError) -> Failed {
        match verdict(&error) {
            Verdict::Doubt => Failed::Short(classify(error, ErrorKind::Unavailable).to_string()),
            answer => {
                self.heed(link, &error);
                if let Verdict::Asked(_) = answer {
                    link.retire();
                }
                Failed::Link(classify(error, ErrorKind::Unavailable))
            }
        }
    }
}
