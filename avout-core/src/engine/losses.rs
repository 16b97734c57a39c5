//! Commits that a store has lost: who has been told of them, and what was begun before. Backends report losses and tell nobody.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use futures_util::future::select_all;

use crate::backend::history::{Losses, LostCommits};
use crate::error::{Error, ErrorKind};

/// The losses of all stores of a client, in one count.
#[derive(Default)]
pub(crate) struct LossLog {
    /// The coordinator's, and those of other stores behind it. Nothing is ever taken out.
    sources: RwLock<Vec<Source>>,
    any: AtomicBool,
    /// How many of them users' operations were told of.
    told: AtomicU64,
    position: Mutex<Position>,
}

struct Source {
    losses: Arc<Losses>,
    /// How many there were before the client knew the store.
    before: u64,
}

/// What a listener was told of: the number of the last loss of each source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position(Vec<u64>);

impl LossLog {
    /// Takes in where a store reports its losses. Several stores of one client have one.
    pub(super) fn add(&self, losses: Option<&Arc<Losses>>) {
        let Some(losses) = losses else { return };
        let mut sources = self.sources.write().unwrap_or_else(PoisonError::into_inner);
        if !sources.iter().any(|source| Arc::ptr_eq(&source.losses, losses)) {
            sources.push(Source { losses: Arc::clone(losses), before: losses.count() });
            self.any.store(true, Ordering::Release);
        }
    }

    /// How many losses there were. What was read while this number was another one is of another history.
    pub(crate) fn count(&self) -> u64 {
        if !self.any.load(Ordering::Acquire) {
            return 0;
        }
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        sources.iter().map(|source| source.losses.count() - source.before).sum()
    }

    /// Where a listener stands that is told of what is lost from now on.
    pub(crate) fn now(&self) -> Position {
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        Position(sources.iter().map(|source| source.losses.count()).collect())
    }

    /// The next loss that a listener was not told of.
    pub(crate) fn next(&self, position: &mut Position) -> Option<LostCommits> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        for (at, source) in sources.iter().enumerate() {
            if position.0.len() == at {
                position.0.push(source.before);
            }
            if let Some((number, lost)) = source.losses.after(position.0[at]) {
                position.0[at] = number;
                return Some(lost);
            }
        }
        None
    }

    /// Waits until there is a loss that a listener was not told of; for ever where no store reports any.
    ///
    /// # Cancel safety
    /// Safe: it changes nothing.
    pub(crate) async fn reported(&self, position: &Position) {
        let sources: Vec<(Arc<Losses>, u64)> = {
            let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
            let told = |(at, source): (usize, &Source)| {
                (Arc::clone(&source.losses), position.0.get(at).copied().unwrap_or(source.before))
            };
            sources.iter().enumerate().map(told).collect()
        };
        if sources.is_empty() {
            return std::future::pending().await;
        }
        select_all(sources.iter().map(|(losses, told)| Box::pin(losses.reported(*told)))).await;
    }

    /// A loss that no user's operation was told of.
    pub(super) fn take(&self) -> Option<LostCommits> {
        if self.count() <= self.told.load(Ordering::Acquire) {
            return None;
        }
        let mut position = self.position.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = self.next(&mut position);
        let sources = self.sources.read().unwrap_or_else(PoisonError::into_inner);
        let told = position.0.iter().zip(&*sources).map(|(told, source)| told.saturating_sub(source.before)).sum();
        self.told.store(told, Ordering::Release);
        lost
    }
}

/// The error that tells of a loss.
pub(crate) fn lost_commits(lost: LostCommits) -> Error {
    let message = "the store has lost commits that it had acknowledged; the client goes on with what is left";
    Error::new(ErrorKind::StoreLost, message).with_source(lost)
}

/// Whether an error tells of lost commits, after which all goes on, and not of a store that is gone.
pub(crate) fn tells_of_lost_commits(error: &Error) -> bool {
    error.kind() == ErrorKind::StoreLost && error.downcast_ref::<LostCommits>().is_some()
}
