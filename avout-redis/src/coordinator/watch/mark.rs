//! The mark that has commits told, and whether the namespace is still there.

use avout_core::{Error, ErrorKind, Result};
use redis::Value;

use crate::schema::{CLOCK, Clock, WATCHED};
use crate::wire::connection::{Home, Link, Wire};
use crate::wire::{Client, Loaded, Script, Verdict, classify};

impl Client {
    /// Has the server tell what is committed from now on. `wire` listens already, and goes where `link` does.
    ///
    /// The mark stays for as long as the history does, so it is written at most once for each. A client that only reads does not write
    /// it: `false` if it is not there, and nothing is told.
    ///
    /// # Errors
    /// As for a read; [`Unavailable`](ErrorKind::Unavailable) also if the server is in another era than the link, which is given up.
    pub(super) async fn mark_watched(&self, link: &Link, wire: &Wire) -> Result<bool> {
        let changed = || {
            link.retire();
            Error::new(ErrorKind::Unavailable, "the server changed while it was asked to tell of changes")
        };
        let refused = |error| {
            if let Verdict::Asked(_) = self.heed(link, &error) {
                link.retire();
            }
            classify(error, ErrorKind::Unavailable)
        };
        let seen = self.history.seen(link.era).ok_or_else(changed)?;
        let mut look = redis::cmd("HMGET");
        look.arg(&self.names.cells).arg(CLOCK).arg(WATCHED);
        let (clock, mark): (Value, Value) = wire.ask(&look).await.map_err(refused)?;
        self.check(link, seen, Some(&clock)).ok_or_else(changed)?;
        if mark != Value::Nil || self.options.readonly {
            return Ok(mark != Value::Nil);
        }
        let scripts = Loaded::load(wire).await.map_err(refused)?;
        let head = Self::head(link, seen);
        let mut cmd = scripts.call(Script::Watch, &[&self.names.cells], 1, head.len());
        match wire.ask::<Value>(cmd.arg(&head[..])).await.map_err(refused)? {
            Value::Int(3) => Ok(true),
            _ => Err(changed()),
        }
    }

    /// Whether the mark is there, asked with a connection that listens; `None`: no answer comes.
    pub(super) async fn is_marked_watched(&self, wire: &Wire) -> Option<bool> {
        let mut look = redis::cmd("HGET");
        look.arg(&self.names.cells).arg(WATCHED);
        wire.ask::<Value>(&look).await.ok().map(|mark| mark != Value::Nil)
    }

    /// Whether the namespace is surely gone from the server.
    pub(super) async fn is_gone(&self) -> bool {
        let home = Home::here();
        let link = match self.connected(&home).await {
            Ok(link) => link,
            Err(error) => return error.kind() == ErrorKind::StoreLost,
        };
        let mut look = redis::cmd("HGET");
        look.arg(&self.names.cells).arg(CLOCK);
        let clock = link.wire.ask::<Value>(&look).await;
        if !clock.is_ok_and(|clock| Clock::read(&clock).is_none()) {
            return false;
        }
        // Entering again tells for sure.
        link.retire();
        self.connected(&home).await.is_err_and(|error| error.kind() == ErrorKind::StoreLost)
    }
}
