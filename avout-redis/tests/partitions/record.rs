//! What happened to each client, in order.

use std::sync::{Arc, Mutex, PoisonError};

use avout_core::{Error, ErrorKind};
use avout_redis::LostCommits;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The last entry of a client's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// How many entries there are.
    pub(crate) count: u64,
    /// The number that the client gave the last one.
    pub(crate) last: u32,
}

/// One thing that a client saw.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A commit was acknowledged; the log's head after it.
    Committed(Head),
    /// A commit ended without an outcome.
    Unknown,
    /// What was told of it later.
    Resolved { number: u32, committed: bool },
    /// The heads of some clients' logs, as of one moment.
    Read(Vec<(usize, Head)>),
    /// A watch told of a head.
    Watched(usize, Head),
    /// Commits that the client had seen are lost.
    Told,
    /// A lock was acquired.
    Acquired,
    /// An error that an outage may bring.
    Failed(ErrorKind),
    /// What must not be.
    Wrong(String),
}

/// A thing that a client saw, with when it asked and when it was answered.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) what: What,
}

/// The record of one client.
#[derive(Clone, Debug, Default)]
pub(crate) struct Record(Arc<Mutex<Vec<Event>>>);

impl Record {
    pub(crate) fn note(&self, begun: Instant, what: What) {
        let event = Event { begun, ended: Instant::now(), what };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }

    /// Notes an error that says that nothing was done, or of a loss.
    pub(crate) fn note_error(&self, begun: Instant, error: &Error) {
        let what = match error.kind() {
            ErrorKind::StoreLost if error.downcast_ref::<LostCommits>().is_some() => What::Told,
            kind @ (ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Lost | ErrorKind::OutcomeUnknown) => {
                What::Failed(kind)
            }
            _ => What::Wrong(format!("{error:?}")),
        };
        self.note(begun, what);
    }

    /// Whether something was done that was asked for since then.
    pub(crate) fn goes_on(&self, since: Instant) -> bool {
        let events = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_done = |what: &What| matches!(what, What::Committed(_) | What::Read(_) | What::Watched(..));
        events.iter().rev().take_while(|event| event.ended >= since).any(|event| is_done(&event.what))
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
