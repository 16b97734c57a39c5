use std::sync::atomic::{AtomicU32, Ordering};

use avout_core::backend::history::Era;
use tokio::sync::{Notify, watch};

use crate::wire::servers::Server;

/// Waits for replicas, for all who wait.
pub(crate) struct Confirmer {
    pub(super) state: watch::Sender<State>,
    wanted: Notify,
    /// The most replicas that the server had at once.
    pub(super) replicas_seen: AtomicU32,
    /// How many of them there were when it was looked last.
    pub(super) live: AtomicU32,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// All that was committed in this era up to this point is confirmed.
    pub(super) era: Era,
    pub(super) point: u64,
    /// How many rounds have begun.
    pub(super) begun: u64,
    /// The last round that was confirmed, and the last one that was not.
    pub(super) good: u64,
    pub(super) short: u64,
    pub(super) why: String,
}

/// The round from which on it is proven that the server was the master after some moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round(pub(super) u64);

impl Confirmer {
    pub(crate) fn new() -> Self {
        let live = AtomicU32::new(u32::MAX);
        Self { state: watch::Sender::default(), wanted: Notify::new(), replicas_seen: AtomicU32::new(0), live }
    }

    /// Takes in what a server tells of its replicas: those that are away are not to be waited for.
    pub(crate) fn sees(&self, server: &Server<'_>) {
        self.replicas_seen.fetch_max(server.replicas(), Ordering::Relaxed);
        self.live.store(server.live_replicas(), Ordering::Relaxed);
    }

    /// The next round.
    pub(crate) fn next(&self) -> Round {
        let round = Round(self.state.borrow().begun + 1);
        self.wanted.notify_one();
        round
    }

    /// Returns when somebody wants a round.
    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Whether this is confirmed already.
    pub(crate) fn has(&self, era: Era, point: u64) -> bool {
        let state = self.state.borrow();
        state.era == era && state.point >= point
    }
}
