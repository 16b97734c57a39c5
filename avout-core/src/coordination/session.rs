//! Sessions: whether a client is alive, as others see it and as it knows itself. See `docs/protocol.md#sessions`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::Result;
use crate::handles::{SystemRef, Tx};
use crate::protocol::{Heartbeat, Key, SessionId};

/// A session of this client.
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) ttl: Duration,
    record: SystemRef<Heartbeat>,
    vital: Mutex<Vital>,
    /// The number of signs of life, whether they arrived or not. A record that is made anew repeats no number: a client
    /// that saw the number before the session was ended would take it for dead at once.
    beats: AtomicU64,
    /// Nobody has waited in seats from this number on.
    seats: AtomicU32,
    /// How many changes of the store's history were known when the session was last known to be alive there.
    turns: AtomicU64,
    /// How often the store had lost commits when the session was made.
    losses: u64,
    lost: Lost,
}

struct Vital {
    /// When the last sign of life that arrived was sent.
    renewed: Instant,
    /// A task sends signs of life. Without it the session holds nothing and waits for nothing.
    beating: bool,
    /// The record was made: from now on it is missing only if the session was ended.
    begun: bool,
}

/// The end of a session. Tasks that wait for it are woken in the order in which they came. A `watch` channel does not
/// promise that, and would let a simulation take two courses.
#[derive(Default)]
struct Lost {
    so: AtomicBool,
    told: Notify,
}

impl Lost {
    fn is_so(&self) -> bool {
        self.so.load(Ordering::Acquire)
    }

    /// `false`: it had ended before.
    fn set(&self) -> bool {
        let first = !self.so.swap(true, Ordering::AcqRel);
        self.told.notify_waiters();
        first
    }

    async fn wait(&self) {
        // This future sees every notification after its creation, even before it is polled.
        let told = self.told.notified();
        if !self.is_so() {
            told.await;
        }
    }
}

impl Session {
    pub(super) fn new(engine: &Engine, id: SessionId, ttl: Duration) -> Self {
        let vital = Vital { renewed: Instant::now(), beating: false, begun: false };
        let (vital, beats, seats, turns) = (Mutex::new(vital), AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
        let losses = engine.coordinator.losses().map_or(0, |losses| losses.count());
        Self { id, ttl, record: record(engine, id), vital, beats, seats, turns, losses, lost: Lost::default() }
    }

    fn vital(&self) -> MutexGuard<'_, Vital> {
        self.vital.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it can be relied on: nobody has ended it, and by this process's clock nobody can have taken it for dead.
    pub(super) fn is_alive(&self) -> bool {
        let vital = self.vital();
        !self.lost.is_so() && (!vital.beating || Instant::now() < vital.renewed + self.ttl)
    }

    /// Takes note that the store has called it alive, when the store's history had changed this many times.
    pub(super) fn confirm(&self, turns: u64) {
        self.turns.fetch_max(turns, Ordering::AcqRel);
    }

    /// Whether the store may have forgotten it since.
    pub(super) fn is_doubtful(&self, turns: u64) -> bool {
        self.turns.load(Ordering::Acquire) < turns
    }

    /// Waits until the store has lost commits that came after the session was made. Grants to the session may be lost
    /// with them. What it gave back may be its own again, and nobody would give it back.
    pub(super) async fn forgotten(&self, engine: &Engine) {
        match engine.coordinator.losses() {
            Some(losses) => losses.reported(self.losses).await,
            None => std::future::pending().await,
        }
    }

    /// Whether the store has lost such commits.
    pub(super) fn is_forgotten(&self, engine: &Engine) -> bool {
        engine.coordinator.losses().is_some_and(|losses| losses.count() > self.losses)
    }

    /// When it is late, unless a sign of life arrives before.
    pub(super) fn expires(&self) -> Instant {
        self.vital().renewed + self.ttl
    }

    pub(super) fn is_beating(&self) -> bool {
        self.vital().beating
    }

    /// Whether its record was made. Ask before the transaction that enters it, which may read something older than now.
    pub(super) fn has_begun(&self) -> bool {
        self.vital().begun
    }

    pub(super) fn set_idle(&self) {
        self.vital().beating = false;
    }

    /// Ends it, as far as this process is concerned. `false`: it had ended before.
    pub(super) fn lose(&self) -> bool {
        self.lost.set()
    }

    /// Waits for its end, without looking for it: a task of the client notices it.
    pub(super) async fn lost(&self) {
        self.lost.wait().await;
    }

    /// Enters the session in a transaction: if it was idle, observers begin to count anew. `begun`: its record was made
    /// before the transaction began. `false`: others have ended it.
    pub(super) async fn enter(&self, begun: bool, tx: &Tx) -> Result<bool> {
        let found = self.record.get(tx).await?;
        if begun && found.is_none() {
            return Ok(false);
        }
        if !self.is_beating() {
            self.beat(tx).await?;
        }
        Ok(true)
    }

    /// Takes note that a transaction sent at `sent` or later has entered it. `true`: the session was idle, and a task
    /// has to send signs of life from now on.
    pub(super) fn entered(&self, sent: Instant) -> bool {
        let mut vital = self.vital();
        vital.begun = true;
        // Entering a session that is in use does not renew it.
        if !vital.beating {
            vital.renewed = sent;
        }
        !std::mem::replace(&mut vital.beating, true)
    }

    /// Takes note of a sign of life that was sent at `sent` or later. `false`: it was answered too late. Callers may
    /// have been told since that the session is lost, and that must stay so.
    pub(super) fn renewed(&self, sent: Instant) -> bool {
        let mut vital = self.vital();
        let in_time = Instant::now() < vital.renewed + self.ttl;
        if in_time {
            vital.renewed = sent;
        }
        in_time
    }

    /// Sends a sign of life. `false`: others have ended the session.
    pub(super) async fn renew(&self, tx: &Tx) -> Result<bool> {
        if self.record.get(tx).await?.is_none() {
            return Ok(false);
        }
        self.beat(tx).await?;
        Ok(true)
    }

    async fn beat(&self, tx: &Tx) -> Result<()> {
        let ttl = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        let beat = self.beats.fetch_add(1, Ordering::Relaxed) + 1;
        self.record.put(tx, Heartbeat { beat, ttl, seats: self.seats() }).await
    }

    /// Takes note that this seat may be written. Clients that end the session for this one learn of it with a sign of
    /// life.
    pub(super) fn take_seat(&self, number: u32) {
        self.seats.fetch_max(number.saturating_add(1), Ordering::Relaxed);
    }

    /// All its seats have smaller numbers than this.
    pub(super) fn seats(&self) -> u32 {
        self.seats.load(Ordering::Relaxed)
    }

    pub(super) fn key(&self) -> &Key {
        self.record.key()
    }
}

/// The record of a session.
pub(super) fn record(engine: &Engine, id: SessionId) -> SystemRef<Heartbeat> {
    SystemRef::new(engine, Heartbeat::key(id), Heartbeat::TAG)
}

/// A key that one waiter of a session watches: a client that grants it something writes there.
pub(super) fn seat(engine: &Engine, id: SessionId, number: u32) -> SystemRef<u64> {
    SystemRef::new(engine, Heartbeat::seat(id, number), "seat")
}

/// A session that is taken for dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dead {
    pub(super) session: SessionId,
    /// The beat that its record has had for too long; `None`: there is no record.
    beat: Option<u64>,
    /// The number of its seats, as far as its record says.
    pub(super) seats: u32,
}

impl Dead {
    pub(super) fn gone(session: SessionId) -> Self {
        Self { session, beat: None, seats: 0 }
    }

    /// Ends it, in the transaction that removes its entries. `false`: it has shown a sign of life meanwhile.
    pub(super) async fn end(&self, engine: &Engine, tx: &Tx) -> Result<bool> {
        let record = record(engine, self.session);
        match record.get(tx).await? {
            None => Ok(true),
            Some(found) if Some(found.beat) == self.beat => record.remove(tx).await.map(|()| true),
            Some(_) => Ok(false),
        }
    }
}

/// This client's observations of others' sessions.
#[derive(Default)]
pub(super) struct Observer(Mutex<HashMap<SessionId, Sight>>);

struct Sight {
    beat: u64,
    /// When this beat was first seen, by this process's clock.
    since: Instant,
    seen: Instant,
}

/// At most this many sessions are remembered, the latest observed.
const REMEMBERED: usize = 4096;

impl Observer {
    /// Takes in the records that a look found which began at `asked`, and gives the dead sessions: their record is
    /// gone, or has not changed between two looks that are further apart than its time to live. A waiter looks again
    /// within `of_late`. Gives also the shortest time to live of the others.
    pub(super) fn judge(
        &self,
        asked: Instant,
        found: Vec<(SessionId, Option<Heartbeat>)>,
        of_late: Duration,
    ) -> (Vec<Dead>, Option<Duration>) {
        let now = Instant::now();
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut dead, mut shortest) = (Vec::new(), None);
        for (session, found) in found {
            let Some(Heartbeat { beat, ttl, seats }) = found else {
                seen.remove(&session);
                dead.push(Dead::gone(session));
                continue;
            };
            let sight = seen.entry(session).or_insert(Sight { beat, since: now, seen: now });
            if sight.beat != beat {
                *sight = Sight { beat, since: now, seen: now };
            }
            sight.seen = now;
            // Clocks of two machines may run at slightly different speeds.
            let ttl = Duration::from_millis(ttl);
            if asked.saturating_duration_since(sight.since) >= ttl + ttl / 16 {
                dead.push(Dead { session, beat: Some(beat), seats });
            } else {
                shortest = Some(shortest.map_or(ttl, |shortest: Duration| shortest.min(ttl)));
            }
        }
        if seen.len() > REMEMBERED {
            seen.retain(|_, sight| now.saturating_duration_since(sight.seen) <= of_late);
        }
        (dead, shortest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(beat: u64) -> Option<Heartbeat> {
        Some(Heartbeat { beat, ttl: 1000, seats: 0 })
    }

    /// A session is dead once its record has not changed for its time to live by the observer's clock, and at once if there is none.
    #[tokio::test(start_paused = true)]
    async fn judges_by_what_it_has_seen() {
        let observer = Observer::default();
        let session = SessionId::new(1);
        let look = |found| observer.judge(Instant::now(), vec![(session, found)], Duration::from_secs(2)).0.len();
        assert_eq!(look(beat(1)), 0, "the first look, whenever the record was written");
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(look(beat(2)), 0);
        tokio::time::advance(Duration::from_millis(900)).await;
        assert_eq!(look(beat(2)), 0);
        tokio::time::advance(Duration::from_millis(300)).await;
        assert_eq!(look(beat(2)), 1);
        assert_eq!(look(beat(3)), 0, "it is up to others whether it was too late");
        assert_eq!(look(None), 1);
    }

    /// A look tells how soon the first of the live sessions may be late.
    #[tokio::test(start_paused = true)]
    async fn tells_the_shortest_time_to_live() {
        let observer = Observer::default();
        let of = |ttl| Some(Heartbeat { beat: 1, ttl, seats: 0 });
        let look = |ttls: &[u64]| {
            let found = ttls.iter().enumerate().map(|(number, ttl)| (SessionId::new(number as u128), of(*ttl)));
            observer.judge(Instant::now(), found.collect(), Duration::from_secs(60)).1
        };
        assert_eq!(look(&[]), None);
        assert_eq!(look(&[10_000, 500, 1000]), Some(Duration::from_millis(500)));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(look(&[10_000, 500, 1000]), Some(Duration::from_secs(1)), "one of them is dead");
    }

    /// No session of a crowd is forgotten while it is looked at, however large the crowd and however few are looked at
    /// in one request.
    #[tokio::test(start_paused = true)]
    async fn forgets_nobody_of_a_crowd() {
        let observer = Observer::default();
        let crowd: Vec<SessionId> = (0..3 * REMEMBERED as u128).map(SessionId::new).collect();
        let look = || {
            let judge = |some: &[SessionId]| {
                let found = some.iter().map(|session| (*session, beat(1))).collect();
                observer.judge(Instant::now(), found, Duration::from_secs(2)).0.len()
            };
            crowd.chunks(64).map(judge).sum::<usize>()
        };
        for _ in 0..5 {
            assert_eq!(look(), 0);
            tokio::time::advance(Duration::from_millis(250)).await;
        }
        assert_eq!(look(), crowd.len());
    }
}
