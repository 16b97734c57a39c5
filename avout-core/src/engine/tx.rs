//! What a body holds of its transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::attempt::{Action, Attempt, Phase, Write};
use super::cell::{Cell, Function, absent};
use super::client::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Shared;

/// One attempt of a transaction, as its body sees it.
pub(crate) struct TxInner {
    pub(crate) engine: Arc<Engine>,
    pub(crate) deadline: Option<Instant>,
    pub(super) begun: Instant,
    pub(crate) number: u32,
    pub(super) attempt: Mutex<Attempt>,
}

impl TxInner {
    pub(crate) fn attempt(&self) -> MutexGuard<'_, Attempt> {
        self.attempt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds to an outage, which ends the transaction if the body passes it on, how long it was tried.
    pub(crate) fn effort(&self, error: Error) -> Error {
        match error.kind() {
            ErrorKind::Unavailable => error.with_effort(self.number, self.begun.elapsed()).during("dosync"),
            _ => error,
        }
    }

    /// Takes the attempt out; what the body left behind finds it ended.
    pub(super) fn end(&self) -> Attempt {
        let ended = Attempt { phase: Phase::Ended, ..Attempt::default() };
        std::mem::replace(&mut *self.attempt(), ended)
    }

    /// Buffers a write.
    pub(crate) fn write(&self, cell: &Arc<Cell>, action: Action) -> Result<()> {
        self.check_own(cell)?;
        let mut attempt = self.attempt();
        attempt.check_running()?;
        let touched = attempt.keys.entry(&cell.key);
        let action = match (&touched.write, action) {
            (Some(Write { action: Action::Create(_), .. }), Action::Set(value)) => Action::Create(value),
            (Some(Write { action: Action::Destroy, .. }), Action::Set(_)) => {
                return Err(absent(&cell.key));
            }
            (Some(Write { action: Action::Commute { .. }, .. }), action) => {
                // What is written over a provisional value may have been made from it.
                touched.read = true;
                action
            }
            (_, action) => action,
        };
        touched.write = Some(Write { cell: Arc::clone(cell), action });
        Ok(())
    }

    /// Applies `function` for a provisional answer, and keeps it for the commit.
    pub(crate) async fn commute(&self, cell: &Arc<Cell>, function: Function) -> Result<Shared> {
        let loaded = match self.values(&[cell], false).await {
            Ok(mut values) => values.pop().expect("one value for one cell"),
            Err(error) => {
                // What keeps it from its value is as good as read: the body may go on with that.
                let mut attempt = self.attempt();
                let touched = attempt.keys.entry(&cell.key);
                touched.read |= touched.seen.is_some();
                return Err(error);
            }
        };
        // Others of the body may write the ref meanwhile, and the function must not be called under the lock.
        let mut current = self.pending(cell).unwrap_or_else(|| Arc::clone(&loaded));
        let mut value = function(&current)?;
        let mut attempt = loop {
            let attempt = self.attempt();
            attempt.check_running()?;
            let now = attempt.write(&cell.key).and_then(Write::shown).unwrap_or(&loaded);
            if Arc::ptr_eq(now, &current) {
                break attempt;
            }
            current = Arc::clone(now);
            drop(attempt);
            value = function(&current)?;
        };
        let touched = attempt.keys.entry(&cell.key);
        let known = touched.read || touched.ensured;
        let action = match touched.write.take().map(|write| write.action) {
            Some(Action::Create(_)) => Action::Create(Arc::clone(&value)),
            Some(Action::Set(_)) => Action::Set(Arc::clone(&value)),
            Some(Action::Commute { mut functions, .. }) => {
                functions.push(function);
                Action::Commute { functions, provisional: Arc::clone(&value) }
            }
            // The body knows the value it was applied to, so it is an alter.
            None | Some(Action::Destroy) if known => Action::Set(Arc::clone(&value)),
            None | Some(Action::Destroy) => {
                Action::Commute { functions: vec![function], provisional: Arc::clone(&value) }
            }
        };
        touched.write = Some(Write { cell: Arc::clone(cell), action });
        Ok(value)
    }

    /// The value that the body's own writes show of a cell.
    fn pending(&self, cell: &Cell) -> Option<Shared> {
        self.attempt().write(&cell.key).and_then(Write::shown).cloned()
    }

    /// Has the commit check these cells whatever the isolation.
    pub(crate) fn protect(&self, cell: &Cell) {
        self.attempt().keys.entry(&cell.key).ensured = true;
    }

    /// Ends the attempt, to wait for a change of what it read.
    pub(crate) fn retry(&self) -> Error {
        let mut attempt = self.attempt();
        if matches!(attempt.phase, Phase::Running) {
            attempt.phase = Phase::Retry;
        }
        match attempt.check_running() {
            Err(error) => error,
            Ok(()) => unreachable!("the attempt was just ended"),
        }
    }
}
