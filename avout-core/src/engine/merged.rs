//! Several transactions' functions as one commit's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::cell::{Cell, Function};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Receipt, Shared};

/// Transactions that are being committed as one.
pub(super) struct Merged {
    operations: Vec<Operation>,
    /// What became of each when all were last applied.
    steps: Mutex<Vec<Step>>,
}

#[derive(Clone)]
pub(super) struct Operation {
    pub(super) cell: Arc<Cell>,
    pub(super) functions: Vec<Function>,
    pub(super) stage: Arc<Stage>,
}

/// What a function has made of the value that the others before it left.
pub(super) enum Step {
    Applied,
    Refused(Error),
    Panicked,
    LeftOut,
}

/// How far the change of one that waits has come.
#[derive(Default)]
pub(super) struct Stage(Mutex<Progress>);

#[derive(Default)]
struct Progress {
    /// Nobody waits for it any more.
    gone: bool,
    /// A commit is under way that contains it.
    sent: Option<Sent>,
}

#[derive(Clone)]
pub(super) struct Sent {
    pub(super) receipt: Option<Receipt>,
}

impl Stage {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_gone(&self) -> bool {
        self.progress().gone
    }

    /// Nobody waits for it any more. Gives the commit that contains it, if one is under way; else it will be in none.
    pub(super) fn leave(&self) -> Option<Sent> {
        let mut progress = self.progress();
        progress.gone = true;
        progress.sent.clone()
    }
}

impl Merged {
    pub(super) fn new(operations: Vec<Operation>) -> Arc<Self> {
        Arc::new(Self { operations, steps: Mutex::default() })
    }

    /// What became of each when all were last applied.
    pub(super) fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut *self.steps())
    }

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
    pub(super) fn apply(&self, current: &Shared) -> Result<Shared> {
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
