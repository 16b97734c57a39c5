//! Which connections a request takes, and how often it is made.

use std::sync::Arc;
use std::time::Duration;

use avout_core::{Error, ErrorKind, Result};
use redis::{Cmd, RedisError, RedisResult, Value};
use tokio::time::{Instant, sleep};

use super::client::Client;
use super::connection::{Home, Link, Wire};
use super::error::classify;
use super::verdict::{Verdict, answered};
use crate::options::Address;

/// How often a request is made that the server refused before it did anything, for a reason that is mended at once.
const TRIES: usize = 5;
/// How long a request waits for a namespace that is on its way to another node of the cluster, and how often it looks.
const MOVING: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(25);

/// How often and how long a request is made again.
pub(super) struct Tries {
    left: usize,
    moving: Option<Instant>,
    pause: bool,
    /// The node that the slot is on its way to, and the commands, by their place, that it is to answer the next time.
    there: Option<(Address, Arc<[usize]>)>,
    /// The namespace was entered once more, since a key had gone to the other node.
    entered: bool,
}

/// The way that a request takes.
#[derive(Clone)]
pub(super) struct Way {
    pub(super) link: Arc<Link>,
    /// The latest point that was known before.
    pub(super) seen: u64,
    /// The commands, by their place, that go to the node that the slot is on its way to. That holds for this one request: the next one
    /// begins with the link's node again.
    there: Option<Arc<[usize]>>,
}

impl Way {
    /// Where a request of one command goes.
    pub(super) fn wire(&self) -> &Wire {
        self.wire_of(0)
    }

    /// Whether the link's node has been asked already, and has named the other one.
    pub(super) fn is_detour(&self) -> bool {
        self.there.is_some()
    }

    fn wire_of(&self, command: usize) -> &Wire {
        match (&self.link.detour, &self.there) {
            (Some(detour), Some(there)) if there.contains(&command) => &detour.wire,
            _ => &self.link.wire,
        }
    }

    /// Sends commands of one key each, of which those before the last may be answered in any order.
    pub(super) async fn ask_all(&self, commands: &[Cmd]) -> RedisResult<Vec<Value>> {
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
            if answered.len() != some.len() {
                return Err((redis::ErrorKind::UnexpectedReturnType, "the server left replies out").into());
            }
            some.iter().zip(answered).for_each(|(at, answer)| answers[*at] = answer);
        }
        Ok(answers)
    }
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { left: TRIES, moving: None, pause: false, there: None, entered: false }
    }

    /// The way that is taken the next time.
    ///
    /// # Errors
    /// Those of connecting; and that it was made often enough.
    pub(super) async fn next(&mut self, client: &Client, home: &Home) -> Result<Way> {
        while self.again().await {
            let link = match client.connected(home).await {
                // What was asked for is on the other node, and what a connection begins with is not yet.
                Err(error) if self.entered && error.kind() == ErrorKind::Unavailable && self.is_moving() => continue,
                connected => connected?,
            };
            match client.history.seen(link.era) {
                Some(seen) => {
                    let there = self.there.take().filter(|(to, _)| link.leads_to(to));
                    return Ok(Way { link, seen, there: there.map(|(_, commands)| commands) });
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
    pub(super) fn refused(&mut self, client: &Client, way: &Way, error: RedisError, lost: ErrorKind) -> Result<()> {
        match client.heed(&way.link, &error) {
            Verdict::Moved(_) | Verdict::Anew => Ok(()),
            Verdict::Asked(to) if way.there.is_none() && way.link.leads_to(&to) => {
                self.there = Some((to, answered(&error)));
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
