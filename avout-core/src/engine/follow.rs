use std::collections::VecDeque;
use std::sync::Arc;

use super::cell::Cell;
use super::client::Engine;
use super::losses::{Position, lost_commits};
use super::options::Options;
use super::read::{Loaded, lost_value};
use super::run::run;
use crate::backend::Watcher;
use crate::error::Result;
use crate::protocol::{Entry, Payload, Point, Shared};

/// Follows the committed values of one ref, in commit order.
pub(crate) struct Follower {
    engine: Arc<Engine>,
    cell: Arc<Cell>,
    watcher: Box<dyn Watcher>,
    /// Where the last value that was told took effect.
    told: Point,
    last: Option<Shared>,
    /// Read and not told yet, oldest first.
    waiting: VecDeque<(Point, Payload)>,
    /// Values went by that are no longer held.
    skipped: bool,
    /// Look before waiting: something may have changed.
    look: bool,
    /// Which losses were told.
    losses: Position,
    /// Commits were lost: the next value is told as it is found, whatever its point.
    anew: bool,
}

/// One step of a ref.
pub(crate) struct Followed {
    pub(crate) old: Option<Shared>,
    pub(crate) new: Option<Shared>,
    pub(crate) point: Point,
    pub(crate) skipped: bool,
}

impl Follower {
    /// Begins with the current value: the first step told is the first commit after it.
    pub(crate) async fn begin(engine: Arc<Engine>, cell: Arc<Cell>) -> Result<Self> {
        let (deadline, losses) = (engine.deadline(), engine.losses.now());
        let watcher = engine.watch(std::slice::from_ref(&cell.key), deadline).await?;
        // A transaction, for that has its turn where others replace the value faster than it is read.
        let options = Options::until(&engine.config, deadline);
        let (last, told) = run(&engine, options, |tx| {
            let cell = Arc::clone(&cell);
            async move { tx.current(&cell).await }
        })
        .await?;
        let (waiting, skipped, look, anew) = (VecDeque::new(), false, false, false);
        Ok(Self { engine, cell, watcher, told, last, waiting, skipped, look, losses, anew })
    }

    /// The next step. Waits through outages. After a loss of commits, which is told once as an error, it goes on with the value
    /// that there is.
    ///
    /// # Cancel safety
    /// Safe: a step is taken off only when it is returned.
    pub(crate) async fn next(&mut self) -> Result<Followed> {
        loop {
            self.tell_losses()?;
            while let Some((point, payload)) = self.waiting.front().cloned() {
                let loaded = load(&self.engine, &self.cell, &payload).await;
                self.tell_losses()?;
                self.waiting.pop_front();
                self.told = point;
                let new = match loaded? {
                    Loaded::Value(value) => Some(value),
                    Loaded::Absent => None,
                    Loaded::Gone(..) => {
                        self.skipped = true;
                        self.look = true;
                        continue;
                    }
                };
                let old = std::mem::replace(&mut self.last, new.clone());
                let skipped = std::mem::take(&mut self.skipped);
                return Ok(Followed { old, new, point, skipped });
            }
            if !self.look {
                self.watcher.changed().await?;
                self.look = true;
            }
            let snapshot = self.engine.read(std::slice::from_ref(&self.cell.key), None).await;
            // A record that cannot be read is told once, and looked at again when it changes.
            self.look = false;
            self.tell_losses()?;
            let mut snapshot = snapshot?;
            let entry = snapshot.entries.pop().flatten();
            self.take_in(snapshot.point, entry);
        }
    }

    /// Tells of a loss, and begins anew: what was read before is of another history, in which points may say something else.
    fn tell_losses(&mut self) -> Result<()> {
        let Some(lost) = self.engine.losses.next(&mut self.losses) else { return Ok(()) };
        self.waiting.clear();
        (self.anew, self.look) = (true, true);
        Err(lost_commits(lost).at(&self.cell.key))
    }

    fn take_in(&mut self, point: Point, entry: Option<Entry>) {
        if std::mem::take(&mut self.anew) {
            let current = entry.as_ref().and_then(|entry| entry.record.payloads(entry.point).next());
            let (point, payload) =
                current.map_or((point, Payload::Deleted), |(since, payload)| (since, payload.clone()));
            self.waiting.push_back((point, payload));
            self.skipped = true;
            return;
        }
        let Some(entry) = entry else {
            // It was swept after it was destroyed. That was told, if there was time to.
            if self.last.is_some() && point > self.told {
                self.waiting.push_back((point, Payload::Deleted));
                self.skipped = true;
            }
            return;
        };
        let mut joined = false;
        for (point, payload) in entry.record.payloads(entry.point) {
            if point <= self.told {
                joined = point == self.told || self.last.is_none();
                break;
            }
            self.waiting.push_front((point, payload.clone()));
        }
        if !self.waiting.is_empty() && !joined {
            self.skipped = true;
        }
    }
}

/// A payload's value. One that its store has lost, though it is the current one, is an error.
async fn load(engine: &Engine, cell: &Cell, payload: &Payload) -> Result<Loaded> {
    let loaded = engine.load(cell, Some(payload), None).await?;
    match &loaded {
        Loaded::Gone(realm, version) if engine.points_at(&cell.key, version, None).await? => {
            Err(lost_value(&cell.key, *realm, version))
        }
        _ => Ok(loaded),
    }
}
