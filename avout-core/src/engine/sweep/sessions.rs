//! Records of sessions whose clients died, and the seats of their waiters. See `docs/protocol.md#sessions-and-locks`.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::found::AT_ONCE;
use super::found::Found;
use super::report::SweepReport;
use crate::engine::client::Engine;
use crate::error::Result;
use crate::protocol::{Entry, Heartbeat, Key, Payload, Point, SessionId, SessionKey};

/// Sessions that a client's sweeps have found silent: the beats of their records, and since when, by this process's
/// clock.
pub(super) type Seen = HashMap<SessionId, (Heartbeat, Instant)>;

/// The sessions that may have ended, as a look found them.
#[derive(Default)]
pub(super) struct Sessions {
    /// Sessions without a sign of life since the sweep before.
    silent: Vec<Silent>,
    /// Seats whose sessions have not ended.
    seats: Vec<(SessionId, Found)>,
    /// The observations of this client's sweep before.
    pub(super) seen: Seen,
}

/// A sweep does not wait longer than this to see whether a session is dead.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How many sessions one request asks for.
const ASKED_AT_ONCE: usize = 256;

struct Silent {
    session: SessionId,
    found: Found,
    heartbeat: Heartbeat,
    since: Instant,
}

impl Silent {
    /// When it is dead, unless it has shown a sign of life by then. Clocks of two machines may run at slightly
    /// different speeds.
    fn until(&self) -> Option<Instant> {
        let ttl = Duration::from_millis(self.heartbeat.ttl);
        self.since.checked_add(ttl.checked_add(ttl / 16)?)
    }
}

impl Sessions {
    /// Takes in the record of a session; `false`: it is of another kind. The sweep before was at the point `since`.
    /// Seats whose sessions are to be examined go to `seats`.
    pub(super) fn take_in(
        &mut self,
        engine: &Engine,
        since: Option<Point>,
        key: &Key,
        entry: &Entry,
        seats: &mut Vec<(SessionId, Found)>,
    ) -> bool {
        let found = || Found { key: key.clone(), revision: entry.revision.clone(), slot: false, session: true };
        match SessionKey::of(key) {
            // Tombstones are treated as everywhere else.
            None => return false,
            Some(_) if matches!(entry.record.payload, Payload::Deleted) => return false,
            Some(SessionKey::Seat(session)) => seats.push((session, found())),
            Some(SessionKey::Heartbeat(session)) => {
                if since.is_some_and(|since| entry.point < since)
                    && let Some(heartbeat) = engine.heartbeat(entry)
                {
                    let seen = self.seen.get(&session).filter(|(before, _)| *before == heartbeat);
                    let since = seen.map_or_else(Instant::now, |(_, since)| *since);
                    self.silent.push(Silent { session, found: found(), heartbeat, since });
                }
            }
        }
        true
    }
}

impl Engine {
    fn heartbeat(&self, entry: &Entry) -> Option<Heartbeat> {
        let value = match &entry.record.payload {
            Payload::Inline(bytes) => self.heartbeats.decode(bytes).ok()?,
            Payload::Shared(value) => std::sync::Arc::clone(value),
            Payload::Stored { .. } | Payload::Deleted => return None,
        };
        value.downcast_ref().cloned()
    }

    /// Gives the seats whose sessions have ended, and takes note of the others. A session exists before any seat of it
    /// does, and never comes back. So a session that is missing now, after the seat was seen, has ended.
    pub(super) async fn look_at_seats(
        &self,
        seen: &mut Sessions,
        seats: Vec<(SessionId, Found)>,
    ) -> Result<Vec<Found>> {
        let sessions: BTreeSet<SessionId> = seats.iter().map(|(session, _)| *session).collect();
        let sessions: Vec<SessionId> = sessions.into_iter().collect();
        if sessions.is_empty() {
            return Ok(Vec::new());
        }
        let mut alive = BTreeSet::new();
        match self.coordinator.sessions() {
            Some(native) => {
                for some in sessions.chunks(ASKED_AT_ONCE) {
                    let answers = self.until(self.deadline(), || native.alive(some)).await?;
                    alive.extend(some.iter().zip(answers).filter(|(_, alive)| *alive).map(|(session, _)| *session));
                }
            }
            None => {
                let keys: Vec<Key> = sessions.iter().map(|session| Heartbeat::key(*session)).collect();
                for (session, entry) in sessions.iter().zip(self.entries_of(&keys).await?) {
                    // A record that cannot be read exists.
                    let is_gone = match entry {
                        Ok(entry) => entry.is_none_or(|entry| matches!(entry.record.payload, Payload::Deleted)),
                        Err(_) => false,
                    };
                    alive.extend((!is_gone).then_some(*session));
                }
            }
        }
        let (there, ended): (Vec<_>, Vec<_>) = seats.into_iter().partition(|(session, _)| alive.contains(session));
        seen.seats.extend(there);
        Ok(ended.into_iter().map(|(_, found)| found).collect())
    }

    /// Looks again at the silent sessions, once their time to live has passed. Gives the records of the dead ones with
    /// their seats, and the sessions that may be dead later.
    pub(super) async fn look_at_silent(&self, sessions: Sessions, report: &mut SweepReport) -> (Vec<Found>, Seen) {
        let Sessions { silent, seats, .. } = sessions;
        let (mut dead, mut seen) = (BTreeSet::new(), Seen::new());
        for some in silent.chunks(AT_ONCE) {
            let asked = Instant::now();
            let keys: Vec<Key> = some.iter().map(|silent| silent.found.key.clone()).collect();
            let entries = match self.entries_of(&keys).await {
                Ok(entries) => entries,
                Err(error) => {
                    report.skip("sessions", error);
                    break;
                }
            };
            for (silent, entry) in some.iter().zip(entries) {
                let now = entry.ok().flatten().and_then(|entry| self.heartbeat(&entry));
                if now.as_ref() != Some(&silent.heartbeat) {
                    continue;
                }
                if silent.until().is_some_and(|until| until <= asked) {
                    dead.insert(silent.session);
                } else {
                    seen.insert(silent.session, (silent.heartbeat.clone(), silent.since));
                }
            }
        }
        let records = silent.into_iter().map(|silent| (silent.session, silent.found));
        let dead = records.chain(seats).filter(|(session, _)| dead.contains(session)).map(|(_, found)| found).collect();
        (dead, seen)
    }
}

impl Sessions {
    /// When all awaited sessions can be judged; `None`: there are none.
    pub(super) fn due(&self) -> Option<Instant> {
        let latest = Instant::now() + LONGEST_WAIT;
        self.silent.iter().filter_map(Silent::until).filter(|until| *until <= latest).max()
    }

    /// The sessions that may be dead later.
    pub(super) fn into_seen(self) -> Seen {
        self.silent.into_iter().map(|silent| (silent.session, (silent.heartbeat, silent.since))).collect()
    }
}
