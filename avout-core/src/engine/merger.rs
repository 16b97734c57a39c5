//! Transactions that do nothing but commute one ref, merged: while the commit of one is in flight, those that come
//! meanwhile wait, and are then committed together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::cell::{Cell, Function};
use super::merged::{Sent, Stage};
use super::plan::CommitPlan;
use super::time::GRACE;
use crate::backend::time::timeout_at;
use crate::error::{Error, ErrorKind};
use crate::protocol::{Key, Point, Receipt};

/// The refs with a commit of this kind in flight, and who waits for it.
#[derive(Clone, Default)]
pub(super) struct Merger {
    by_key: Arc<Mutex<HashMap<Key, Vec<Waiting>>>>,
    /// Numbers those who wait.
    numbers: Arc<AtomicU64>,
}

/// A transaction that waits to be committed with others.
pub(super) struct Waiting {
    number: u64,
    pub(super) deadline: Option<Instant>,
    pub(super) cell: Arc<Cell>,
    pub(super) functions: Vec<Function>,
    pub(super) stage: Arc<Stage>,
    pub(super) told: oneshot::Sender<Told>,
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

impl Merger {
    fn by_key(&self) -> MutexGuard<'_, HashMap<Key, Vec<Waiting>>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a plan in that is nothing but one commute.
    pub(super) fn enter(&self, plan: &CommitPlan, deadline: Option<Instant>) -> Entered {
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

pub(super) fn lost_reply(key: &Key, receipt: Option<Receipt>) -> Error {
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
    pub(super) fn take(&self) -> Vec<Waiting> {
        let mut by_key = self.merger.by_key();
        match by_key.get_mut(&self.key) {
            Some(waiting) if !waiting.is_empty() => std::mem::take(waiting),
            _ => {
                by_key.remove(&self.key);
                Vec::new()
            }
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
