use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use super::look::Look;
use super::raise::Raised;
use super::report::SweepReport;
use super::sessions::Seen;
use crate::backend::Store;
use crate::backend::page::Walk;
use crate::backend::time::sleep_until;
use crate::engine::client::Engine;
use crate::error::{Error, ErrorKind, Result};

/// A sweep under way.
pub(super) struct Sweep {
    begun: Instant,
    /// Whether it gives way to other sweeps.
    background: bool,
    pub(super) report: SweepReport,
    stage: Stage,
    /// The observations of the sweep before, and then those for the next one.
    pub(super) seen: Seen,
}

/// How often a sweep by hand looks again because another sweep removed records meanwhile.
const LOOKS: u32 = 8;

enum Stage {
    Begin { looks: u32 },
    Look { look: Look, left: Walk, looks: u32 },
    Raise { look: Look, looks: u32 },
    Remove { look: Look, last: bool },
    Stores { look: Look, left: VecDeque<Arc<dyn Store>> },
    Values { look: Look, store: Arc<dyn Store>, keys: Walk, left: VecDeque<Arc<dyn Store>> },
    Sessions { look: Look },
    Done,
}

impl Sweep {
    pub(super) fn new(background: bool, seen: Seen) -> Self {
        let (begun, report, stage) = (Instant::now(), SweepReport::default(), Stage::Begin { looks: 0 });
        Self { begun, background, report, stage, seen }
    }

    /// Does a few more requests. `false`: the sweep is done.
    ///
    /// # Cancel safety
    /// If the future is dropped the sweep is over: its results stay, and the rest is left to the next one.
    pub(super) async fn step(&mut self, engine: &Engine) -> Result<bool> {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Done) {
            Stage::Begin { looks } => {
                let mut look = engine.begin_look().await?;
                look.sessions.seen.clone_from(&self.seen);
                Stage::Look { look, left: Walk::default(), looks }
            }
            Stage::Look { mut look, mut left, looks } => {
                let keys = engine.next_records(&mut left).await?;
                if keys.is_empty() {
                    Stage::Raise { look, looks }
                } else {
                    engine.look_at(&mut look, &keys, &mut self.report).await?;
                    Stage::Look { look, left, looks }
                }
            }
            Stage::Raise { look, looks } => self.raise(engine, look, looks).await?,
            Stage::Remove { mut look, last } => {
                engine.remove_some(&mut look, &mut self.report).await;
                match look.found.is_empty() {
                    false => Stage::Remove { look, last },
                    true if last => Stage::Done,
                    true => {
                        let left = engine.stores_of(&look, &mut self.report);
                        Stage::Stores { look, left }
                    }
                }
            }
            Stage::Stores { look, mut left } => match left.pop_front() {
                None => Stage::Sessions { look },
                Some(store) => Stage::Values { look, store, keys: Walk::default(), left },
            },
            Stage::Values { look, store, mut keys, left } => {
                let some = engine.next_values(&*store, &mut keys, &mut self.report).await;
                let goes_on = !some.is_empty() && engine.sweep_some(&*store, &some, &mut self.report).await;
                match goes_on {
                    true => Stage::Values { look, store, keys, left },
                    false => Stage::Stores { look, left },
                }
            }
            Stage::Sessions { look } if look.sessions.due().is_none() => {
                self.seen = look.sessions.into_seen();
                Stage::Done
            }
            Stage::Sessions { mut look } => {
                let sessions = std::mem::take(&mut look.sessions);
                let (dead, seen) = engine.look_at_silent(sessions, &mut self.report).await;
                look.found.extend(dead);
                self.seen = seen;
                Stage::Remove { look, last: true }
            }
            Stage::Done => Stage::Done,
        };
        self.report.elapsed = self.begun.elapsed();
        Ok(!matches!(self.stage, Stage::Done))
    }

    /// When to do the next step; `None`: at once.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Sessions { look } => look.sessions.due(),
            _ => None,
        }
    }

    async fn raise(&mut self, engine: &Engine, look: Look, looks: u32) -> Result<Stage> {
        let raised = engine.raise(&look).await?;
        if let Raised::Own(floor) | Raised::Others(floor) = &raised {
            self.report.epoch = floor.epoch;
        }
        match raised {
            Raised::Others(_) if self.background => {
                self.report.skip("the sweep", "another client sweeps");
                Ok(Stage::Done)
            }
            // An epoch above the one at the look will do, even if another sweep raised it: it was raised after the
            // look.
            Raised::Own(_) | Raised::Others(_) => Ok(Stage::Remove { look, last: false }),
            Raised::Not if looks + 1 < LOOKS && !self.background => {
                self.report.skipped.clear();
                Ok(Stage::Begin { looks: looks + 1 })
            }
            Raised::Not => {
                Err(Error::new(ErrorKind::Contended, "other sweeps came between again and again: try later"))
            }
        }
    }
}

impl Engine {
    /// Sweeps once, now.
    pub(crate) async fn sweep(&self) -> Result<SweepReport> {
        let mut sweep = Sweep::new(false, Seen::new());
        while sweep.step(self).await? {
            match sweep.due() {
                Some(due) => self.closing.race(sleep_until(due)).await?,
                None => tokio::task::yield_now().await,
            }
            // Some failures are told in the report only.
            self.closing.check()?;
        }
        tracing::debug!(report = ?sweep.report, "swept");
        Ok(sweep.report)
    }
}
