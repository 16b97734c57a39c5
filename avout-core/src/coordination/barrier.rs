mod place;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use self::place::{Arrived, EVICTED, Evicted, Place};
use super::claim::Stop;
use super::grant_queue::own_key;
use super::rules::{Claimant, Holders, Line, Waiting, observed, responsible};
use super::session::{Dead, Session, record};
use super::session_manager::{Claim, SessionManager};
use crate::backend::time::{sleep_until, timeout_at};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Stm, SystemRef, Tx};
use crate::protocol::{Heartbeat, Key, SessionId};

/// A place where a number of parties wait for each other, again and again, over all processes; made by
/// [`Stm::barrier`](crate::Stm::barrier).
///
/// When the last party arrives all go on, and the next round begins. A party that goes away or dies before that has
/// not arrived: the others wait for another in its place. A party that was only paused for too long arrives anew
/// when it goes on.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let phase = stm.barrier("/phase", 3)?;
/// let parties = [1, 2, 3].map(|_| {
///     let phase = phase.clone();
///     tokio::spawn(async move { phase.wait().await })
/// });
/// let mut last = 0;
/// for party in parties {
///     last += u32::from(party.await.expect("no panic")?.is_last);
/// }
/// assert_eq!(last, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "CyclicBarrier")]
pub struct Barrier {
    manager: Arc<SessionManager>,
    key: Key,
    parties: u32,
    arrived: SystemRef<Arrived>,
    /// The number of the last complete round. Waiting parties watch this record, so that not every arrival wakes
    /// them.
    passed: SystemRef<u64>,
}

/// How a wait at a [`Barrier`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Passed {
    /// One party of each round is told that it was the last to arrive.
    pub is_last: bool,
    /// The number of the round, from 1.
    pub round: u64,
}

/// How many sessions are ended in one commit at most.
const ENDED_AT_ONCE: usize = 64;

fn forgotten() -> Error {
    let message = "it was away for so long that nobody knows whether the round was complete with it";
    Error::new(ErrorKind::OutcomeUnknown, message)
}

/// A waiter looks again no sooner than this, unless it gets a hint.
const TURN: Duration = Duration::from_millis(5);

impl Stm {
    /// The barrier with this name. It makes no request. All its users must name the same number of parties.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, one of more than 480 bytes, or no parties.
    /// [`Mismatch`](ErrorKind::Mismatch), from every operation: it is for another number of parties;
    /// [`Barrier::set_parties`] changes it.
    pub fn barrier(&self, key: impl AsRef<str>, parties: u32) -> Result<Barrier> {
        let manager = SessionManager::of(self);
        let key = Key::new(key)?;
        some(parties).map_err(|error| error.at(&key))?;
        let arrived = SystemRef::new(&manager.engine, own_key("barriers", "here", &key)?, "barrier");
        let passed = SystemRef::new(&manager.engine, own_key("barriers", "gone", &key)?, "round");
        Ok(Barrier { manager, key, parties, arrived, passed })
    }
}

impl Barrier {
    /// The barrier's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Arrives, and waits for the other parties, for as long as it takes.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch), [`Nested`](ErrorKind::Nested), and errors of the store that do not pass.
    /// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): this process was paused for so long that it is no longer
    /// known whether the round was complete with it.
    ///
    /// # Cancel safety
    /// If the future is dropped this party has not arrived, unless all others had.
    pub async fn wait(&self) -> Result<Passed> {
        match self.wait_until(None).await? {
            Some(passed) => Ok(passed),
            None => unreachable!("whoever waits without limit does not give up"),
        }
    }

    /// The same with a time limit.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout): not all parties came in time, and this one no longer counts as arrived. If
    /// the store cannot be reached, it may count as arrived until the store is back. Otherwise as
    /// [`wait`](Self::wait).
    ///
    /// # Cancel safety
    /// As [`wait`](Self::wait).
    pub async fn wait_timeout(&self, timeout: Duration) -> Result<Passed> {
        let passed = self.wait_until(Instant::now().checked_add(timeout)).await?;
        passed.ok_or_else(|| Error::new(ErrorKind::Timeout, "not all have come in time").at(&self.key).during("wait"))
    }

    async fn wait_until(&self, deadline: Option<Instant>) -> Result<Option<Passed>> {
        self.manager.engine.begin("wait")?;
        let (reply, done) = oneshot::channel();
        let (stop, stopped) = watch::channel(());
        self.manager.spawn(drive(self.clone(), Stop { reply, stopped }));
        let mut done = pin!(self.manager.wait_for(done, |waited| self.tell(waited)));
        let answer = match deadline {
            None => done.await,
            Some(deadline) => match timeout_at(deadline, done.as_mut()).await {
                Ok(answer) => answer,
                Err(_) => {
                    drop(stop);
                    match timeout_at(Instant::now() + Duration::from_secs(1), done).await {
                        Ok(answer) => answer,
                        Err(_) => return Ok(None),
                    }
                }
            },
        };
        let closed = |_| Error::new(ErrorKind::Closed, "the runtime was shut down while it waited");
        answer.and_then(|answer| answer.map_err(closed)?).map_err(|error| error.at(&self.key).during("wait"))
    }

    /// Changes the number of parties, while others use the barrier, and returns a handle with the new number. From
    /// now on handles with the old number are refused. Waiting parties go on waiting. If the new number of them has
    /// arrived already their round is complete, and none of them is told that it was the last.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): the barrier is for another number of parties than this handle.
    /// [`InvalidInput`](ErrorKind::InvalidInput): no parties. Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn set_parties(&self, parties: u32) -> Result<Self> {
        self.manager.engine.begin("set_parties")?;
        some(parties).map_err(|error| error.at(&self.key).during("set_parties"))?;
        let change = self.manager.transact_soon(async |tx| {
            let mut here = self.here(&tx).await?;
            here.parties = parties;
            if here.line.waiting.len() as u64 >= u64::from(parties) {
                self.passed.put(&tx, here.round).await?;
                here.round += 1;
                here.line.waiting.clear();
            }
            self.arrived.put(&tx, here).await
        });
        change.await.map_err(|error| error.at(&self.key).during("set_parties"))?;
        Ok(Self { parties, ..self.clone() })
    }

    /// Removes the barrier. It can then be made for another number of parties. The number of its last round stays,
    /// and later rounds are counted from there.
    ///
    /// # Errors
    /// [`Contended`](ErrorKind::Contended): a party waits. [`Mismatch`](ErrorKind::Mismatch): the barrier is for
    /// another number of parties than this handle. Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn destroy(&self) -> Result<()> {
        self.manager.engine.begin("destroy")?;
        let destroy = self.manager.transact_soon(async |tx| {
            if !self.here(&tx).await?.line.waiting.is_empty() {
                return Err(Error::new(ErrorKind::Contended, "it is waited at: destroy it when nobody uses it"));
            }
            // Some parties of the last round may not have seen yet that it is complete.
            self.arrived.remove(&tx).await
        });
        destroy.await.map_err(|error| error.at(&self.key).during("destroy"))
    }

    /// The parties that have arrived. Refused if the barrier is for another number than this handle.
    async fn here(&self, tx: &Tx) -> Result<Arrived> {
        let here = self.here_any(tx).await?;
        if here.parties == self.parties {
            return Ok(here);
        }
        let message = format!("it was made for {} parties, and is used for {}", here.parties, self.parties);
        Err(Error::new(ErrorKind::Mismatch, message))
    }

    /// The same for a party that had arrived already: the number may have been changed since.
    async fn here_any(&self, tx: &Tx) -> Result<Arrived> {
        if let Some(here) = self.arrived.get(tx).await? {
            return Ok(here);
        }
        let passed = self.passed.get(tx).await?.unwrap_or(0);
        let (line, evicted) = (Line::default(), Vec::new());
        Ok(Arrived { parties: self.parties, round: passed + 1, line, evicted })
    }

    /// Says in the log for what a wait waits.
    async fn tell(&self, waited: Duration) {
        let key = &self.key;
        match self.manager.look(async |tx| self.arrived.get(&tx).await).await {
            Some(here) => {
                let (parties, here) = here.map_or((self.parties, 0), |here| (here.parties, here.line.waiting.len()));
                tracing::warn!(%key, here, parties, ?waited, "waits for other parties");
            }
            None => tracing::warn!(%key, ?waited, "waits, and the store does not answer"),
        }
    }

    /// Arrives. Gives the round, and whether that completed it. Inner `None`: the session has ended. Outer `None`:
    /// the caller gave up.
    async fn arrive(
        &self,
        session: &Session,
        who: Claimant,
        before: Option<Claimant>,
        sent: &std::sync::Mutex<Instant>,
        wanted: &watch::Receiver<()>,
    ) -> Result<Option<Option<(u64, bool)>>> {
        let begun = session.has_begun();
        self.manager
            .transact_wanted(wanted, async |tx| {
                *sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
                tx.0.see(&[self.arrived.key(), session.key()]).await?;
                if !self.manager.enter(session, begun, &tx).await? {
                    return Ok(None);
                }
                let mut here = match before {
                    None => self.here(&tx).await?,
                    Some(_) => self.here_any(&tx).await?,
                };
                if let Some(before) = before {
                    here.line.remove(before);
                    here.evicted.retain(|evicted| evicted.who != before);
                }
                here.line.waiting.push(Waiting { who, take: 0, seat: 0, label: String::new() });
                let round = here.round;
                let last = here.line.waiting.len() as u64 >= u64::from(here.parties);
                if last {
                    self.passed.put(&tx, round).await?;
                    here.round += 1;
                    here.line.waiting.clear();
                }
                self.arrived.put(&tx, here).await?;
                Ok(Some((round, last)))
            })
            .await
    }

    /// The state of a party that had arrived, and the record of the parties.
    async fn find(&self, tx: &Tx, round: u64, who: Claimant) -> Result<(Place, Option<Arrived>)> {
        let session = record(&self.manager.engine, who.session());
        tx.0.see(&[self.arrived.key(), self.passed.key(), session.key()]).await?;
        let (here, passed) = (self.arrived.get(tx).await?, self.passed.get(tx).await?.unwrap_or(0));
        let lives = session.get(tx).await?.is_some();
        Ok((Place::of(here.as_ref(), passed, round, who, lives), here))
    }

    /// The same where sessions have no records: a party whose session is alive was not taken for dead.
    async fn settled(&self, place: Place, who: Claimant) -> Result<Place> {
        let engine = &self.manager.engine;
        match (place, engine.coordinator.sessions()) {
            (Place::Forgotten, Some(native)) => {
                let session = [who.session()];
                let lives = engine.until(None, || native.alive(&session)).await?;
                if lives == [true] { Ok(Place::Passed) } else { Err(forgotten()) }
            }
            (Place::Forgotten, None) => Err(forgotten()),
            (place, _) => Ok(place),
        }
    }

    /// The state of a party that had arrived. Until the round is complete this reads one small record.
    async fn place(&self, round: u64, who: Claimant) -> Result<Place> {
        let look = self.manager.transact(async |tx| {
            if self.passed.get(&tx).await?.is_none_or(|passed| passed < round) {
                return Ok(Place::Waits);
            }
            let (place, _) = self.find(&tx, round, who).await?;
            Ok(place)
        });
        self.settled(look.await?, who).await
    }

    /// Withdraws a party that had arrived. `false`: the round is complete with it.
    async fn withdraw(&self, round: u64, who: Claimant) -> Result<bool> {
        let place = self.manager.transact(async |tx| {
            let (place, here) = self.find(&tx, round, who).await?;
            let Some(mut here) = here else {
                return Ok(place);
            };
            let before = here.evicted.len();
            here.evicted.retain(|evicted| evicted.who != who);
            if here.line.remove(who) || here.evicted.len() < before {
                self.arrived.put(&tx, here).await?;
            }
            Ok(place)
        });
        Ok(self.settled(place.await?, who).await? != Place::Passed)
    }

    /// Removes the dead parties that are this one's to remove, and ends their sessions in the same commit: a party
    /// that was only late finds out, and arrives again. Gives in what time to look again.
    async fn evict_dead_ahead(&self, who: Claimant, round: u64) -> Result<Duration> {
        let here = self.manager.transact(async |tx| self.arrived.get(&tx).await).await?;
        let Some(here) = here.filter(|here| here.round == round) else {
            return Ok(self.manager.tick());
        };
        // Parties behind this one count too: there may be nobody behind them to remove them.
        let mut line = here.line;
        let Some(at) = line.position(who) else {
            return Ok(self.manager.tick());
        };
        line.waiting.rotate_left(at + 1);
        let nobody = Holders::none(0);
        let end = Claimant::new(who.session(), u64::MAX);
        // With the line turned so, this party is the last, and all others are ahead of it.
        line.waiting.pop();
        let (dead, tick) = self.manager.look_at(&observed(&nobody, &line, end)).await?;
        let sessions: Vec<SessionId> = dead.iter().map(|dead| dead.session).collect();
        let mine = responsible(&nobody, &line, end, &sessions);
        let dead: Vec<Dead> = dead.into_iter().filter(|dead| mine.contains(&dead.session)).collect();
        for some in dead.chunks(self.manager.at_once(ENDED_AT_ONCE)) {
            self.manager.clear_seats_of(self.evict(round, some).await?);
        }
        Ok(tick)
    }

    /// Gives the sessions that it has ended.
    async fn evict(&self, round: u64, dead: &[Dead]) -> Result<Vec<Dead>> {
        let records: Vec<Key> = dead.iter().map(|dead| Heartbeat::key(dead.session)).collect();
        self.manager
            .transact(async |tx| {
                tx.0.see(&records.iter().chain([self.arrived.key()]).collect::<Vec<_>>()).await?;
                let Some(mut here) = self.arrived.get(&tx).await?.filter(|here| here.round == round) else {
                    return Ok(Vec::new());
                };
                let mut ended = Vec::new();
                for dead in dead {
                    let is_theirs = |waiting: &Waiting| waiting.who.session() == dead.session;
                    if here.line.waiting.iter().any(is_theirs) && dead.end(&self.manager.engine, &tx).await? {
                        tracing::info!(key = %self.key, session = %dead.session, "took back a party that died");
                        let evicted = here.line.waiting.extract_if(.., |waiting| is_theirs(waiting));
                        here.evicted.extend(evicted.map(|waiting| Evicted { who: waiting.who, round }));
                        ended.push(dead.clone());
                    }
                }
                let beyond = here.evicted.len().saturating_sub(EVICTED);
                here.evicted.drain(..beyond);
                if !ended.is_empty() {
                    self.arrived.put(&tx, here).await?;
                }
                Ok(ended)
            })
            .await
    }
}

fn some(parties: u32) -> Result<()> {
    match parties {
        0 => Err(Error::new(ErrorKind::InvalidInput, "a barrier has at least one party")),
        _ => Ok(()),
    }
}

/// Drives a wait from its beginning to its end.
async fn drive(barrier: Barrier, mut stop: Stop<Option<Passed>>) {
    let claim = barrier.manager.claim();
    let done = wait(&barrier, &claim, &mut stop).await;
    drop(stop.reply.send(done));
}

async fn wait(barrier: &Barrier, claim: &Claim, stop: &mut Stop<Option<Passed>>) -> Result<Option<Passed>> {
    let manager = &barrier.manager;
    let mut before: Option<Claimant> = None;
    loop {
        // Nothing is left of an earlier place: it was withdrawn.
        let Some(session) = stop.unless(manager.session()).await else {
            return Ok(None);
        };
        let session = session?;
        let who = Claimant::new(session.id, claim.ticket);
        let sent = std::sync::Mutex::new(Instant::now());
        let arrived = barrier.arrive(&session, who, before, &sent, &stop.stopped).await.inspect_err(|error| {
            if error.kind() == ErrorKind::OutcomeUnknown {
                manager.lose(&session);
            }
        })?;
        let (round, is_last) = match arrived {
            Some(Some(arrived)) => arrived,
            Some(None) => {
                manager.lose(&session);
                continue;
            }
            None => return Ok(None),
        };
        manager.entered(&session, sent.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner));
        if is_last {
            return Ok(Some(Passed { is_last, round }));
        }
        match wait_for_others(barrier, &session, who, round, stop).await {
            Ok(Some(true)) => return Ok(Some(Passed { is_last, round })),
            Ok(Some(false)) => {
                // The session ended. Withdrawing tells whether the arrival counted.
                manager.lose(&session);
                if !barrier.withdraw(round, who).await? {
                    return Ok(Some(Passed { is_last, round }));
                }
                before = Some(who);
            }
            Ok(None) => {
                let withdrawn = manager.engine.closing.last_work(barrier.withdraw(round, who)).await;
                if withdrawn.is_err() {
                    manager.lose(&session);
                }
                return Ok((!withdrawn?).then_some(Passed { is_last, round }));
            }
            Err(error) => {
                if manager.engine.closing.last_work(barrier.withdraw(round, who)).await.is_err() {
                    manager.lose(&session);
                }
                return Err(error);
            }
        }
    }
}

/// Waits until the round is complete. `Some(false)`: the session ended. `None`: the caller gave up.
async fn wait_for_others(
    barrier: &Barrier,
    session: &Session,
    who: Claimant,
    round: u64,
    stop: &mut Stop<Option<Passed>>,
) -> Result<Option<bool>> {
    let engine = &barrier.manager.engine;
    let keys = [barrier.passed.key().clone()];
    let mut watcher = engine.watch(&keys, None).await?;
    let mut next_look = Instant::now();
    loop {
        match barrier.place(round, who).await? {
            Place::Passed => return Ok(Some(true)),
            Place::Evicted => return Ok(Some(false)),
            Place::Waits | Place::Forgotten => {}
        }
        let now = Instant::now();
        if now >= next_look {
            next_look = now + barrier.evict_dead_ahead(who, round).await?;
        }
        tokio::select! {
            biased;
            () = stop.called() => return Ok(None),
            () = session.lost() => return Ok(Some(false)),
            hint = watcher.changed() => drop(hint?),
            () = sleep_until(next_look.max(Instant::now() + TURN)) => {}
        }
    }
}

impl std::fmt::Debug for Barrier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Barrier").field("key", &self.key).field("parties", &self.parties).finish()
    }
}
