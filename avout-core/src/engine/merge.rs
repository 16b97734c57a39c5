//! Transactions that do nothing but commute one ref, merged: while the commit of one is in flight, those that come
//! meanwhile wait, and are then committed together.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::attempt::{Action, Attempt, Write};
use super::commit::{Ended, Standing};
use super::options::Isolation;
use super::plan::Plan;
use super::send::GRACE;
use super::time::latest;
use super::{Cell, Engine, Function};
use crate::backend::time::timeout_at;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Key, Point, Receipt, Shared};

/// The refs with a commit of this kind in flight, and who waits for it.
#[derive(Clone, Default)]
pub(super) struct Merger {
    by_key: Arc<Mutex<HashMap<Key, Vec<Waiting>>>>,
    /// Numbers those who wait.
    numbers: Arc<AtomicU64>,
}

/// A transaction that waits to be committed with others.
struct Waiting {
    number: u64,
    deadline: Option<Instant>,
    cell: Arc<Cell>,
    functions: Vec<Function>,
    stage: Arc<Stage>,
    told: oneshot::Sender<Told>,
}

/// How far the change of one that waits has come.
#[derive(Default)]
struct Stage(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    /// Nobody waits for it any more.
    gone: bool,
    /// A commit is under way that contains it.
    sent: Option<Sent>,
}

#[derive(Clone)]
struct Sent {
    receipt: Option<Receipt>,
}

impl Stage {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_gone(&self) -> bool {
        self.progress().gone
    }

    /// Nobody waits for it any more. Gives the commit that contains it, if one is under way; else it will be in none.
    fn leave(&self) -> Option<Sent> {
        let mut progress = self.progress();
        progress.gone = true;
        progress.sent.clone()
    }
}

/// What becomes of a transaction that waited.
pub(super) enum Told {
    Committed(Point),
    Failed(Error),
    /// Nothing happened to it: it should go on by itself.
    Alone,
}

/// How a transaction goes on.
pub(super) enum Entered {
    /// Nothing is in flight: it commits itself.
    Lead(Lead),
    Wait(Place),
    /// It cannot be merged with what is in flight.
    Alone,
}

/// A place among those who wait. Dropped before the commit that would contain its change is sent, it is left out of that.
pub(super) struct Place {
    merger: Merger,
    key: Key,
    number: u64,
    deadline: Option<Instant>,
    stage: Arc<Stage>,
    told: oneshot::Receiver<Told>,
}

/// The duty to see to those who wait. Dropped, it sends them on by themselves.
pub(super) struct Lead {
    merger: Merger,
    key: Key,
}

/// Transactions that are being committed as one.
pub(super) struct Merged {
    operations: Vec<Operation>,
    /// What became of each when all were last applied.
    steps: Mutex<Vec<Step>>,
}

#[derive(Clone)]
struct Operation {
    cell: Arc<Cell>,
    functions: Vec<Function>,
    stage: Arc<Stage>,
}

/// What a function has made of the value that the others before it left.
enum Step {
    Applied,
    Refused(Error),
    Panicked,
    LeftOut,
}

impl Merger {
    fn by_key(&self) -> MutexGuard<'_, HashMap<Key, Vec<Waiting>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a plan in that is nothing but one commute.
    pub(super) fn enter(&self, plan: &Plan, deadline: Option<Instant>) -> Entered {
        let Some((cell, functions)) = plan.lone_commute() else {
            return Entered::Alone;
        };
        let mut by_key = self.by_key();
        let Some(waiting) = by_key.get_mut(&cell.key) else {
            by_key.insert(cell.key.clone(), Vec::new());
            return Entered::Lead(Lead { merger: self.clone(), key: cell.key.clone() });
        };
        let differs = |first: &Cell| first.meta != cell.meta || first.coder.rust_type() != cell.coder.rust_type();
        if waiting.first().is_some_and(|first| differs(&first.cell)) {
            return Entered::Alone;
        }
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (told, receiver) = oneshot::channel();
        let stage = Arc::<Stage>::default();
        let (key, functions) = (cell.key.clone(), functions.to_vec());
        let place = Place { merger: self.clone(), key, number, deadline, stage: Arc::clone(&stage), told: receiver };
        waiting.push(Waiting { number, deadline, cell: Arc::clone(cell), functions, stage, told });
        Entered::Wait(place)
    }
}

impl Place {
    /// Waits to be told. At its own deadline it leaves, if nothing is under way that contains its change. Else it waits as much
    /// longer as a commit of its own would at most.
    pub(super) async fn told(mut self) -> Told {
        let Some(deadline) = self.deadline else {
            return (&mut self.told).await.unwrap_or_else(|_| self.let_down());
        };
        if let Ok(told) = timeout_at(deadline, &mut self.told).await {
            return told.unwrap_or_else(|_| self.let_down());
        }
        if self.leave().is_none() {
            return self.late();
        }
        match timeout_at(deadline + GRACE * 2, &mut self.told).await {
            Ok(Ok(Told::Alone)) | Err(_) => self.late(),
            Ok(told) => told.unwrap_or_else(|_| self.let_down()),
        }
    }

    /// What it is told when nobody is left to tell it.
    fn let_down(&self) -> Told {
        match self.leave() {
            Some(Sent { receipt }) => Told::Failed(lost_reply(&self.key, receipt)),
            None => Told::Alone,
        }
    }

    /// What it is told after its deadline.
    fn late(&self) -> Told {
        Told::Failed(match self.leave() {
            Some(Sent { receipt }) => lost_reply(&self.key, receipt),
            None => {
                let message = "the deadline passed before its commit, which is made with others of the ref, was sent";
                Error::new(ErrorKind::Timeout, message).at(&self.key)
            }
        })
    }

    /// Takes its change out. Gives the commit that contains it, if one is under way.
    fn leave(&self) -> Option<Sent> {
        let left = self.merger.by_key().get_mut(&self.key).and_then(|waiting| {
            let at = waiting.iter().position(|waiting| waiting.number == self.number)?;
            Some(waiting.remove(at))
        });
        // It has a user's functions, which are not to be dropped under the lock.
        drop(left);
        self.stage.leave()
    }
}

fn lost_reply(key: &Key, receipt: Option<Receipt>) -> Error {
    let message = "it was committed together with others, and the reply to that was lost";
    let unknown = Error::new(ErrorKind::OutcomeUnknown, message).at(key);
    receipt.into_iter().fold(unknown, Error::with_receipt)
}

impl Drop for Place {
    fn drop(&mut self) {
        // Whoever was told, or is not waited for any more, is in no list.
        if !self.told.is_terminated() {
            self.leave();
        }
    }
}

impl Lead {
    /// Those who wait; without any the lead is over.
    fn take(&self) -> Vec<Waiting> {
        let mut by_key = self.merger.by_key();
        match by_key.get_mut(&self.key) {
            Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
            _ => {
                by_key.remove(&self.key);
                Vec::new()
            }
        }
    }

    /// The lead's own commit is over: those who wait are committed in a task of its own, since it is many
    /// transactions' business and must not end with one of them.
    pub(super) fn done(self, engine: &Arc<Engine>) {
        let waiting = self.take();
        if !waiting.is_empty() {
            let tasks = &engine.config.tasks;
            let engine = Arc::clone(engine);
            tasks.spawn_near(async move {
                let mut waiting = waiting;
                while !waiting.is_empty() {
                    engine.commit_merged(waiting).await;
                    waiting = self.take();
                }
            });
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let waiting = self.merger.by_key().remove(&self.key);
        for waiting in waiting.into_iter().flatten() {
            // One that no longer waits does not need to know.
            drop(waiting.told.send(Told::Alone));
        }
    }
}

impl Engine {
    /// Commits transactions that have waited as one, and tells each how it ended.
    async fn commit_merged(self: &Arc<Self>, waiting: Vec<Waiting>) {
        let first = &waiting[0].cell;
        // Each waits until its own deadline, and after the last one nobody does.
        let deadline = latest(waiting.iter().map(|waiting| waiting.deadline));
        let key = first.key.clone();
        let cell = Arc::new(first.without_validator());
        let (operations, told): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .map(|waiting| {
                let Waiting { cell, functions, stage, told, .. } = waiting;
                (Operation { cell, functions, stage }, told)
            })
            .unzip();
        let merged = Arc::new(Merged { operations, steps: Mutex::default() });
        let function: Function = Arc::new({
            let merged = Arc::clone(&merged);
            move |current: &Shared| merged.apply(current)
        });

        let action = Action::Commute { functions: vec![function], provisional: Arc::new(()) };
        let plan = Plan::blind(Write { cell, action });
        let mut standing = Standing { merged: Some(Arc::clone(&merged)), ..Standing::new(deadline) };
        let ended = self.commit_plan(plan, &mut Attempt::default(), Isolation::Serializable, &mut standing).await;

        let mut steps = std::mem::take(&mut *merged.steps()).into_iter();
        for told in told {
            let tell = match (&ended, steps.next()) {
                (Ok(Ended::Committed(Some(point))), Some(Step::Applied)) => Told::Committed(*point),
                (Ok(Ended::Committed(_)), Some(Step::Refused(error))) => Told::Failed(error),
                (Err(error), Some(Step::Applied)) if error.kind() == ErrorKind::OutcomeUnknown => {
                    Told::Failed(lost_reply(&key, error.receipt().cloned()))
                }
                // What it decided was decided on a value that did not come to be.
                _ => Told::Alone,
            };
            // One that no longer waits does not need to know.
            drop(told.send(tell));
        }
    }
}

impl Merged {
    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was made last is about to be sent. `false`: one has left that is in it, so it is to be made anew.
    pub(super) fn begin(&self, receipt: Option<&Receipt>) -> bool {
        let steps = self.steps();
        let made = self.operations.iter().zip(&*steps).filter(|(_, step)| matches!(step, Step::Applied));
        for (Operation { stage, .. }, _) in made {
            let mut progress = stage.progress();
            if progress.gone {
                drop(progress);
                self.undo();
                return false;
            }
            progress.sent = Some(Sent { receipt: receipt.cloned() });
        }
        true
    }

    /// What was sent did not take effect.
    pub(super) fn undo(&self) {
        for Operation { stage, .. } in &self.operations {
            stage.progress().sent = None;
        }
    }

    /// All functions after each other, each checked by its own validator, and left out if that refuses it.
    fn apply(&self, current: &Shared) -> Result<Shared> {
        let mut value = Arc::clone(current);
        let mut made = Vec::with_capacity(self.operations.len());
        for Operation { cell, functions, stage } in &self.operations {
            if stage.is_gone() {
                made.push(Step::LeftOut);
                continue;
            }
            let apply = || {
                let new = functions.iter().try_fold(Arc::clone(&value), |value, function| function(&value))?;
                cell.validate(&new)?;
                Ok(new)
            };
            made.push(match catch_unwind(AssertUnwindSafe(apply)) {
                Ok(Ok(new)) => {
                    value = new;
                    Step::Applied
                }
                Ok(Err(error)) => Step::Refused(error),
                Err(_) => Step::Panicked,
            });
        }
        let any = made.iter().any(|step| matches!(step, Step::Applied));
        *self.steps() = made;
        if any { Ok(value) } else { Err(Error::new(ErrorKind::Aborted, "none of the merged functions applies")) }
    }
}
