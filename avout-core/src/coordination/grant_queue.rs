use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task;

use super::rules::{Claimant, Held, Holders, Line, Waiting, advance, evict, observed, responsible};
use super::session::{Dead, Session, seat};
use super::session_manager::SessionManager;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{SystemRef, Tx};
use crate::protocol::{Heartbeat, Key, SessionId};

/// The holders of a lock or semaphore and the line of requests before it: two records, each step on which is one
/// transaction.
#[derive(Clone)]
pub(super) struct GrantQueue {
    pub(super) manager: Arc<SessionManager>,
    /// The key as its user names it.
    pub(super) key: Key,
    /// How much can be held in all.
    pub(super) limit: u32,
    /// A long wait is normal here, as that of a candidate.
    pub(super) standby: bool,
    /// The holders as a request saw them last: each request has its own copy of the queue.
    pub(super) seen: Arc<Mutex<Option<Holders>>>,
    pub(super) holders: SystemRef<Holders>,
    pub(super) line: SystemRef<Line>,
}

/// At most this many requests are granted in one commit: each has a seat to be written.
const GRANTED_AT_ONCE: usize = 16;

/// At most this many sessions are ended in one commit: each has a record to be removed.
const ENDED_AT_ONCE: usize = 64;

/// How a lock or semaphore is used at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// The number of holders. Some may have died without anybody having noticed yet.
    pub held: usize,
    /// The number of requests that wait. Some of their clients may have died.
    pub waiting: usize,
    /// The token of the last grant, or a smaller number if it was never used.
    pub last_token: u64,
}

/// What a request asks of a queue.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) take: u32,
    /// The name that others see once it is granted.
    pub(super) label: String,
    /// The task that asks.
    pub(super) task: Option<task::Id>,
}

impl Request {
    /// A request of the calling task, for so much.
    pub(super) fn of(take: u32) -> Self {
        Self { take, label: String::new(), task: task::try_id() }
    }
}

/// The outcome of entering a request.
pub(super) enum Joined {
    Granted(u64),
    Queued,
    /// Not free, and the caller asked not to wait. The sessions that are in its way.
    NotNow(Vec<SessionId>),
    /// The session has ended.
    Ended,
}

/// The state of a request.
pub(super) enum Place {
    Granted(u64),
    Waiting {
        holders: Holders,
        line: Line,
    },
    /// It is parked elsewhere, to be put into the line later.
    Parked,
    /// It was removed, as happens to requests of sessions that are taken for dead.
    Gone,
}

/// The two records as a transaction found them, and as it leaves them.
pub(super) struct Open<'a> {
    queue: &'a GrantQueue,
    tx: &'a Tx,
    found: Option<(Holders, Line)>,
    pub(super) holders: Holders,
    pub(super) line: Line,
}

impl GrantQueue {
    /// A queue of this kind. All its users must name the same limit.
    pub(super) fn new(manager: Arc<SessionManager>, kind: &str, key: impl AsRef<str>, limit: u32) -> Result<Self> {
        let key = Key::new(key)?;
        let holders = own_key(kind, "held", &key)?;
        let line = own_key(kind, "line", &key)?;
        let (holders, line) =
            (SystemRef::new(&manager.engine, holders, "holders"), SystemRef::new(&manager.engine, line, "line"));
        Ok(Self { manager, key, limit, standby: false, seen: Arc::default(), holders, line })
    }

    /// The record of the holders.
    pub(super) fn holders(&self) -> &SystemRef<Holders> {
        &self.holders
    }

    /// The holders as this request saw them last; `None`: it has not seen them.
    pub(super) fn seen(&self) -> Option<Holders> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads both records and these keys, in one request. Refused if the stored limit is not this handle's.
    pub(super) async fn open<'a>(&'a self, tx: &'a Tx, also: &[&Key]) -> Result<Open<'a>> {
        let open = self.open_any(tx, also).await?;
        if open.holders.limit != self.limit {
            let message = format!("it was made with {} permits, and is used with {}", open.holders.limit, self.limit);
            return Err(Error::new(ErrorKind::Mismatch, message).at(&self.key));
        }
        Ok(open)
    }

    /// The same for a request that is among the holders or in the line already: the limit may have been changed since.
    async fn open_any<'a>(&'a self, tx: &'a Tx, also: &[&Key]) -> Result<Open<'a>> {
        let keys: Vec<&Key> = [self.holders.key(), self.line.key()].into_iter().chain(also.iter().copied()).collect();
        tx.0.see(&keys).await?;
        let holders = self.holders.get(tx).await?;
        let line = self.line.get(tx).await?;
        let found = holders.clone().map(|holders| (holders, line.clone().unwrap_or_default()));
        let holders = holders.unwrap_or_else(|| Holders::none(self.limit));
        Ok(Open { queue: self, tx, found, holders, line: line.unwrap_or_default() })
    }

    /// Enters a request in the line, and at once among the holders if its turn has come. `begun`: whether the session
    /// had begun before the transaction. `before`: an earlier entry of the request, in a session that has ended.
    pub(super) async fn join(
        &self,
        tx: &Tx,
        (session, begun): (&Session, bool),
        request: &Request,
        entry: Waiting,
        before: Option<Claimant>,
        wait: bool,
    ) -> Result<Joined> {
        let who = entry.who;
        let mut open = match before {
            None => self.open(tx, &[session.key()]).await?,
            Some(_) => self.open_any(tx, &[session.key()]).await?,
        };
        if let Some(before) = before {
            refuse_in_vain(self, request.take, &open.holders)?;
            open.remove(before);
        }
        let seat = entry.seat;
        open.line.waiting.push(Waiting { take: request.take, ..entry });
        let granted = open.advance();
        let token = open.holders.of(who).map(|held| held.token);
        if token.is_none() && !wait {
            open.line.remove(who);
            return Ok(Joined::NotNow(observed(&open.holders, &open.line, who)));
        }
        if token.is_none() {
            session.take_seat(seat);
        }
        if !self.manager.enter(session, begun, tx).await? {
            return Ok(Joined::Ended);
        }
        open.close(granted.into_iter().filter(|granted| granted.who != who).collect()).await?;
        Ok(token.map_or(Joined::Queued, Joined::Granted))
    }

    /// The state of a request. One request to the coordinator.
    pub(super) async fn place(&self, who: Claimant, parked: Option<&SystemRef<Line>>) -> Result<Place> {
        self.manager
            .transact(async |tx| {
                let also: Vec<&Key> = parked.iter().map(|parked| parked.key()).collect();
                let Open { holders, line, .. } = self.open_any(&tx, &also).await?;
                if let Some(parked) = parked
                    && parked.get(&tx).await?.is_some_and(|parked| parked.position(who).is_some())
                {
                    return Ok(Place::Parked);
                }
                Ok(match (holders.of(who), line.position(who)) {
                    (Some(Held { token, .. }), _) => Place::Granted(*token),
                    (None, Some(_)) => {
                        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(holders.clone());
                        Place::Waiting { holders, line }
                    }
                    (None, None) => Place::Gone,
                })
            })
            .await
    }

    /// Ends a request, whether it was granted or waits, and lets those behind it move up. `false`: it was not there.
    pub(super) async fn withdraw(&self, who: Claimant) -> Result<bool> {
        let left = self
            .manager
            .transact(async |tx| {
                let mut open = self.open_any(&tx, &[]).await?;
                if !open.remove(who) {
                    return Ok(None);
                }
                let granted = open.advance();
                let more = self.maybe_more(&granted);
                open.close(granted).await?;
                Ok(Some(more))
            })
            .await?;
        if left == Some(true) {
            self.settle().await?;
        }
        Ok(left.is_some())
    }

    /// Changes how much a claimant holds to less. `false`: it holds nothing.
    pub(super) async fn take_less(&self, who: Claimant, take: u32) -> Result<bool> {
        let done = self.manager.transact(async |tx| {
            let mut open = self.open_any(&tx, &[]).await?;
            let Some(held) = open.holders.held.iter_mut().find(|held| held.who == who) else {
                return Ok(None);
            };
            held.take = held.take.min(take);
            let granted = open.advance();
            let more = self.maybe_more(&granted);
            open.close(granted).await?;
            Ok(Some(more))
        });
        let done = done.await?;
        if done == Some(true) {
            self.settle().await?;
        }
        Ok(done.is_some())
    }

    /// Grants what is free but was not granted, as when one commit had no room for all the grants.
    pub(super) async fn settle(&self) -> Result<()> {
        loop {
            let more = self.manager.transact(async |tx| {
                let mut open = self.open_any(&tx, &[]).await?;
                let granted = open.advance();
                let more = self.maybe_more(&granted);
                open.close(granted).await?;
                Ok(more)
            });
            if !more.await? {
                return Ok(());
            }
        }
    }

    /// Whether as many requests were granted as fit into one commit.
    fn maybe_more(&self, granted: &[Waiting]) -> bool {
        granted.len() == self.manager.at_once(GRANTED_AT_ONCE)
    }

    /// Removes the dead among the sessions in the way of a request, as far as they are this waiter's to remove. Gives
    /// whether something has changed, and in what time to look again.
    pub(super) async fn evict_dead_ahead(
        &self,
        who: Claimant,
        holders: &Holders,
        line: &Line,
    ) -> Result<(bool, Duration)> {
        let (dead, tick) = self.manager.look_at(&observed(holders, line, who)).await?;
        let sessions: Vec<SessionId> = dead.iter().map(|dead| dead.session).collect();
        let mine = responsible(holders, line, who, &sessions);
        let dead: Vec<Dead> = dead.into_iter().filter(|dead| mine.contains(&dead.session)).collect();
        let stuck = line.waiting.first().is_some_and(|first| u64::from(first.take) <= holders.free());
        if !dead.is_empty() {
            return Ok((self.evict(&dead).await?, tick));
        }
        if stuck {
            self.settle().await?;
        }
        Ok((stuck, tick))
    }

    /// Removes the entries of dead sessions, and ends these sessions in the same commit: a client that was only late
    /// finds out that it lost all it held.
    pub(super) async fn evict(&self, dead: &[Dead]) -> Result<bool> {
        let (mut evicted, mut more) = (Vec::new(), false);
        for some in dead.chunks(self.manager.at_once(ENDED_AT_ONCE)) {
            let (mut ended, left) = self.manager.transact(async |tx| self.evict_some(&tx, some).await).await?;
            evicted.append(&mut ended);
            more |= left;
        }
        if more {
            self.settle().await?;
        }
        let any = !evicted.is_empty();
        self.manager.clear_seats_of(evicted);
        Ok(any)
    }

    /// Gives the sessions that were removed, and whether more can be granted.
    async fn evict_some(&self, tx: &Tx, dead: &[Dead]) -> Result<(Vec<Dead>, bool)> {
        let records: Vec<Key> = dead.iter().map(|dead| Heartbeat::key(dead.session)).collect();
        let mut open = self.open_any(tx, &records.iter().collect::<Vec<_>>()).await?;
        let mut ended = Vec::new();
        for dead in dead {
            let (mut holders, mut line) = (open.holders.clone(), open.line.clone());
            if evict(&mut holders, &mut line, dead.session) && dead.end(&self.manager.engine, tx).await? {
                tracing::info!(key = %self.key, session = %dead.session, "removed a session that ended");
                (open.holders, open.line) = (holders, line);
                ended.push(dead.clone());
            }
        }
        // A commit that takes few keys has no room for seats beside the sessions.
        let is_full = dead.len() + GRANTED_AT_ONCE > self.manager.at_once(usize::MAX);
        let granted = if is_full { Vec::new() } else { open.advance() };
        let more = is_full || self.maybe_more(&granted);
        open.close(granted).await?;
        Ok((ended, more))
    }

    /// The numbers of holders and waiters at one moment.
    pub(super) async fn status(&self) -> Result<Status> {
        self.manager.engine.begin("status")?;
        self.manager
            .transact_soon(async |tx| {
                let Open { holders, line, .. } = self.open(&tx, &[]).await?;
                Ok(Status { held: holders.held.len(), waiting: line.waiting.len(), last_token: holders.grants })
            })
            .await
    }

    /// Refuses a handle with another limit than the stored one.
    pub(super) async fn check(&self) -> Result<()> {
        self.manager.transact_soon(async |tx| self.open(&tx, &[]).await.map(drop)).await
    }

    /// Changes the limit, and gives the handle with the new one. Holders of more than the new limit keep what they
    /// hold; nothing is granted until enough came back. Waiters that ask for more than the new limit are woken, and
    /// find out.
    pub(super) async fn set_limit(&self, limit: u32) -> Result<Self> {
        let more = self
            .manager
            .transact_soon(async |tx| {
                let mut open = self.open(&tx, &[]).await?;
                open.holders.limit = limit;
                let mut woken = open.advance();
                let more = self.maybe_more(&woken);
                let in_vain = open.line.waiting.iter().filter(|waiting| waiting.take > limit);
                woken.extend(in_vain.take(self.manager.at_once(GRANTED_AT_ONCE) - woken.len()).cloned());
                open.close(woken).await?;
                Ok(more)
            })
            .await?;
        let changed = Self { limit, ..self.clone() };
        // The first waiter grants the rest when it looks, at the latest.
        if more && let Err(error) = changed.settle().await {
            tracing::debug!(key = %self.key, %error, "not all was granted that is free");
        }
        Ok(changed)
    }

    /// Removes both records. Refused while there is a holder or a waiter.
    pub(super) async fn destroy(&self) -> Result<()> {
        self.manager
            .transact_soon(async |tx| {
                let open = self.open(&tx, &[]).await?;
                let used = !open.holders.held.is_empty() || !open.line.waiting.is_empty();
                if used {
                    let message = "it is held or waited for: destroy it when nobody uses it";
                    return Err(Error::new(ErrorKind::Contended, message).at(&self.key));
                }
                self.holders.remove(&tx).await?;
                self.line.remove(&tx).await?;
                Ok(())
            })
            .await
    }
}

impl Open<'_> {
    pub(super) fn remove(&mut self, who: Claimant) -> bool {
        let held = self.holders.remove(who);
        self.line.remove(who) || held
    }

    /// Grants what is free to the first in the line.
    pub(super) fn advance(&mut self) -> Vec<Waiting> {
        let before = self.holders.grants;
        // Every earlier grant was made by an earlier commit, under a number that was not larger than the point of that
        // commit. So numbers grow even if the record was removed in between, or the store has lost the last commits.
        self.holders.grants = before.max(self.tx.0.attempt().read_point.unwrap_or_default().number());
        let granted = advance(&mut self.holders, &mut self.line, self.queue.manager.at_once(GRANTED_AT_ONCE));
        if granted.is_empty() {
            self.holders.grants = before;
        }
        granted
    }

    /// Writes what has changed, and wakes the waiters that were granted something.
    pub(super) async fn close(self, granted: Vec<Waiting>) -> Result<()> {
        let engine = &self.queue.manager.engine;
        let seats: Vec<_> = granted.iter().map(|to| (seat(engine, to.who.session(), to.seat), to.who)).collect();
        if !seats.is_empty() {
            self.tx.0.see(&seats.iter().map(|(seat, _)| seat.key()).collect::<Vec<_>>()).await?;
        }
        for (seat, who) in &seats {
            seat.put(self.tx, who.ticket).await?;
        }
        let (holders_before, line_before) = self.found.map_or((None, None), |(h, l)| (Some(h), Some(l)));
        if line_before.unwrap_or_default() != self.line {
            self.queue.line.put(self.tx, self.line).await?;
        }
        if holders_before.as_ref() != Some(&self.holders) {
            self.queue.holders.put(self.tx, self.holders).await?;
        }
        Ok(())
    }
}

/// Refuses to wait for more than the limit, which may have been changed since.
pub(super) fn refuse_in_vain(queue: &GrantQueue, take: u32, holders: &Holders) -> Result<()> {
    if take <= holders.limit {
        return Ok(());
    }
    let message = format!("it was changed to have {} permits, and {take} are waited for", holders.limit);
    Err(Error::new(ErrorKind::Mismatch, message).at(&queue.key))
}

/// The reserved key of a record for what its user calls `key`.
pub(super) fn own_key(kind: &str, part: &str, key: &Key) -> Result<Key> {
    Key::from_stored(format!("/.avout/{kind}/{part}{key}")).map_err(|_| {
        let message = "too long: keys of locks and the like have at most 480 bytes";
        Error::new(ErrorKind::InvalidInput, message).at(key)
    })
}
