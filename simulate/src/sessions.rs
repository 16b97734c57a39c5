use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use avout_core::protocol::SessionId;
use tokio::time::Instant;

/// The server's own notion of who is alive, for coordinators that have one.
#[derive(Default)]
pub(crate) struct Alive(Mutex<BTreeMap<SessionId, Option<Instant>>>);

impl Alive {
    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<SessionId, Option<Instant>>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Begins a session or shows that its client is alive, for so long from now. `false`: it has ended.
    pub(crate) fn renew(&self, session: SessionId, lasts: Duration) -> bool {
        let now = Instant::now();
        self.with(|sessions| {
            let until = sessions.entry(session).or_insert(Some(now + lasts));
            *until = until.filter(|until| *until > now).map(|until| until.max(now + lasts));
            until.is_some()
        })
    }

    pub(crate) fn are_alive(&self, asked: &[SessionId]) -> Vec<bool> {
        let now = Instant::now();
        let is_alive = |until: &Option<Instant>| until.is_some_and(|until| until > now);
        self.with(|sessions| asked.iter().map(|session| sessions.get(session).is_some_and(is_alive)).collect())
    }

    pub(crate) fn end(&self, session: SessionId) {
        self.with(|sessions| sessions.insert(session, None));
    }
}
