use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task;
use tokio::time::Instant;

use super::claim::{Hold, Stop, Waited, lost, wait_for_grant};
use super::grant_queue::GrantQueue;
use super::lock::{Lock, LockGuard};
use super::rules::{Claimant, Holders, Line, Waiting};
use super::session::{Dead, Session};
use crate::backend::time::timeout_at;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{SystemRef, Tx};
use crate::protocol::{Heartbeat, Key, SessionId};

/// A place to wait, while a [`Lock`] is released, until another holder of the lock notifies; made by [`Lock::condition`].
///
/// Waiting releases the lock in the same commit in which the wait begins, so no notification is missed in between. A
/// notified waiter goes to the end of the lock's line, and returns when it holds the lock again, with a new token.
/// Waiters are notified in the order in which they came. A wait never returns without a notification, but the state
/// that it is about may have changed again by then: look at it again.
///
/// A notification goes to one waiter. If that waiter dies before it returns, the notification is lost with it, unless
/// its death was known before. Where that matters, use [`notify_all`](Self::notify_all) or
/// [`wait_timeout`](Self::wait_timeout). Often a transaction that [`retry`](crate::Tx::retry)s is simpler than a
/// condition.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let ready = stm.create_ref("/ready", false).await?;
/// let lock = stm.lock("/lock")?;
/// let changed = lock.condition("changed")?;
/// let waiter = tokio::spawn({
///     let (lock, changed, ready) = (lock.clone(), changed.clone(), ready.clone());
///     async move {
///         let mut guard = lock.acquire().await?;
///         while !ready.get().await? {
///             guard = changed.wait(guard).await?;
///         }
///         guard.release().await
///     }
/// });
/// let guard = lock.acquire().await?;
/// ready.set(true).await?;
/// changed.notify_all(&guard).await?;
/// guard.release().await?;
/// waiter.await.expect("no panic")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "distributed-condition")]
pub struct Condition {
    queue: GrantQueue,
    parked: SystemRef<Line>,
}

impl Lock {
    /// The condition with this name at the lock. The name is one part of a key, without `/`. It makes no request.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid name, or too long: at most 470 bytes with the lock's key.
    #[doc(alias = "newCondition")]
    pub fn condition(&self, name: impl AsRef<str>) -> Result<Condition> {
        let (name, queue) = (name.as_ref(), &self.0);
        let key = (!name.contains('/'))
            .then(|| Key::from_stored(format!("/.avout/conditions/{name}{}", queue.key)).ok())
            .flatten();
        let key = key.ok_or_else(|| {
            let message =
                "a condition's name is one part of a key, without /, and has with its lock's at most 470 bytes";
            Error::new(ErrorKind::InvalidInput, message).at(&queue.key)
        })?;
        Ok(Condition { queue: queue.clone(), parked: SystemRef::new(&queue.manager.engine, key, "line") })
    }
}

/// The label of a waiter in the lock's line that timed out before it was notified.
const TIMED_OUT: &str = "timed out";

/// How many sessions are ended in one commit at most.
const ENDED_AT_ONCE: usize = 64;

/// What a wait ends with: the guard, and whether it timed out.
type Ended = (Hold, bool);

impl Condition {
    /// Releases the lock, waits for a notification, and returns when it holds the lock again.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the lock was lost before, or the session ended during the wait. The lock is not held
    /// then. [`Misuse`](ErrorKind::Misuse): the guard is of another lock or client. Errors of the store that do not
    /// pass.
    ///
    /// # Cancel safety
    /// If the future is dropped the wait ends in the background, and the lock is not held. A notification that it had
    /// got goes to the next waiter.
    #[doc(alias = "await")]
    pub async fn wait(&self, guard: LockGuard) -> Result<LockGuard> {
        let (hold, _) = self.wait_until(guard, None).await?;
        Ok(LockGuard(hold))
    }

    /// The same with a time limit, after which it goes to the end of the lock's line without a notification, and waits
    /// for its turn there. `true`: it timed out.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Cancel safety
    /// As [`wait`](Self::wait).
    #[doc(alias = "awaitNanos")]
    pub async fn wait_timeout(&self, guard: LockGuard, timeout: Duration) -> Result<(LockGuard, bool)> {
        let (hold, timed_out) = self.wait_until(guard, Instant::now().checked_add(timeout)).await?;
        Ok((LockGuard(hold), timed_out))
    }

    /// Notifies the waiter that has waited longest; it goes on when the lock is released. `false`: nobody waits.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the lock was lost before; nobody was notified. [`Misuse`](ErrorKind::Misuse): the guard is of another
    /// lock or client.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    #[doc(alias = "signal")]
    pub async fn notify_one(&self, guard: &LockGuard) -> Result<bool> {
        Ok(self.notify(guard, 1).await? > 0)
    }

    /// Notifies all waiters; they go on one after the other, when the lock is released. Returns how many there were.
    ///
    /// # Errors
    /// As [`notify_one`](Self::notify_one).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    #[doc(alias = "signalAll")]
    pub async fn notify_all(&self, guard: &LockGuard) -> Result<usize> {
        self.notify(guard, usize::MAX).await
    }

    async fn notify(&self, guard: &LockGuard, most: usize) -> Result<usize> {
        self.queue.manager.engine.begin("notify")?;
        self.check(guard)?;
        let manager = &self.queue.manager;
        let parked = manager.transact_soon(async |tx| self.parked.get(&tx).await).await?.unwrap_or_default();
        let sessions = parked.waiting.iter().map(|waiting| waiting.who.session()).collect();
        self.evict_dead(sessions).await.map_err(|error| error.at(&self.queue.key).during("notify"))?;
        let notify = manager.transact_silently(async |tx| {
            let mut open = self.queue.open(&tx, &[self.parked.key()]).await?;
            if open.holders.of(guard.0.who()).is_none() {
                return Err(lost(&self.queue.key));
            }
            let mut parked = self.parked.get(&tx).await?.unwrap_or_default();
            let before = parked.waiting.len();
            let notified: Vec<Waiting> = parked.waiting.drain(..parked.waiting.len().min(most)).collect();
            let count = notified.len();
            open.line.waiting.extend(notified);
            if parked.waiting.len() < before {
                self.put(&tx, parked).await?;
            }
            open.close(Vec::new()).await?;
            Ok(count)
        });
        notify.await.map_err(|error| error.during("notify"))
    }

    async fn wait_until(&self, guard: LockGuard, deadline: Option<Instant>) -> Result<Ended> {
        self.queue.manager.engine.begin("wait")?;
        self.check(&guard)?;
        let (reply, done) = oneshot::channel();
        let (stop, stopped) = watch::channel(());
        let task = task::try_id();
        self.queue.manager.spawn(drive(self.clone(), guard.0, task, deadline, Stop { reply, stopped }));
        let done = self.queue.manager.wait_for(done, |waited| self.tell(task, waited)).await;
        drop(stop);
        let closed = |_| Error::new(ErrorKind::Closed, "the runtime was shut down while it waited");
        done.and_then(|done| done.map_err(closed)?).map_err(|error| error.at(&self.queue.key).during("wait"))
    }

    /// Says in the log for what a wait waits.
    async fn tell(&self, task: Option<task::Id>, waited: Duration) {
        let key = &self.queue.key;
        let of_lock = self.parked.key().as_str().strip_prefix("/.avout/conditions/").unwrap_or_default();
        let condition = of_lock.strip_suffix(key.as_str()).unwrap_or(of_lock);
        let seen =
            self.queue.manager.look(async |tx| Ok((self.queue.holders().get(&tx).await?, self.parked.get(&tx).await?)));
        let Some((holders, parked)) = seen.await else {
            return tracing::warn!(%key, condition, ?waited, "waits, and the store does not answer");
        };
        let holders = holders.unwrap_or_else(|| Holders::none(self.queue.limit));
        let (holder, _) = self.queue.manager.holdings.describe(self.queue.holders().key(), Some(&holders), task);
        let waiting = parked.map_or(0, |parked| parked.waiting.len());
        let message = "waits to be notified, or for the lock when it was";
        tracing::warn!(%key, condition, %holder, waiting, ?waited, "{message}");
    }

    fn check(&self, guard: &LockGuard) -> Result<()> {
        let of = guard.0.queue();
        if of.key == self.queue.key && Arc::ptr_eq(&of.manager, &self.queue.manager) {
            return Ok(());
        }
        let message = "the guard is of another lock or client than the condition";
        Err(Error::new(ErrorKind::Misuse, message).at(&self.queue.key))
    }

    /// Removes the dead among these sessions.
    async fn evict_dead(&self, mut sessions: Vec<SessionId>) -> Result<()> {
        let manager = &self.queue.manager;
        sessions.sort_unstable();
        sessions.dedup();
        for some in manager.judge_soon(&sessions).await?.chunks(manager.at_once(ENDED_AT_ONCE)) {
            self.evict(some).await?;
        }
        Ok(())
    }

    /// Removes dead waiters, and ends their sessions in the same commit: a waiter that was only late finds out, and
    /// does not wait for a notification that will never come.
    async fn evict(&self, dead: &[Dead]) -> Result<()> {
        let manager = &self.queue.manager;
        let records: Vec<Key> = dead.iter().map(|dead| Heartbeat::key(dead.session)).collect();
        let evicted = manager.transact_silently(async |tx| {
            tx.0.see(&records.iter().chain([self.parked.key()]).collect::<Vec<_>>()).await?;
            let mut parked = self.parked.get(&tx).await?.unwrap_or_default();
            let mut evicted = Vec::new();
            for dead in dead {
                let is_theirs = |waiting: &Waiting| waiting.who.session() == dead.session;
                if parked.waiting.iter().any(is_theirs) && dead.end(&manager.engine, &tx).await? {
                    parked.waiting.retain(|waiting| !is_theirs(waiting));
                    evicted.push(dead.clone());
                }
            }
            if !evicted.is_empty() {
                self.put(&tx, parked).await?;
            }
            Ok(evicted)
        });
        manager.clear_seats_of(evicted.await?);
        Ok(())
    }

    /// Writes the record of the waiters. A condition without any has no record.
    async fn put(&self, tx: &Tx, parked: Line) -> Result<()> {
        match parked.waiting.is_empty() {
            true => self.parked.remove(tx).await,
            false => self.parked.put(tx, parked).await,
        }
    }

    /// Removes dead waiters in the background. While nobody notifies, nobody else would do so.
    fn tidy(&self, others: Vec<SessionId>) {
        if others.is_empty() {
            return;
        }
        let (manager, condition) = (&self.queue.manager, self.clone());
        manager.background(async move {
            if let Err(error) = condition.evict_dead(others).await {
                tracing::debug!(key = %condition.queue.key, %error, "those that died are left to others");
            }
        });
    }

    /// Gives the lock back and begins to wait, in one commit. Gives the sessions of the other waiters. Inner `None`:
    /// the lock was lost. Outer `None`: the caller gave up.
    async fn park(
        &self,
        who: Claimant,
        seat: u32,
        wanted: &watch::Receiver<()>,
    ) -> Result<Option<Option<Vec<SessionId>>>> {
        let manager = &self.queue.manager;
        let park = manager.transact_wanted(wanted, async |tx| {
            let mut open = self.queue.open(&tx, &[self.parked.key()]).await?;
            if !open.holders.remove(who) {
                return Ok(None);
            }
            let mut parked = self.parked.get(&tx).await?.unwrap_or_default();
            let others = parked.waiting.iter().map(|waiting| waiting.who.session());
            let others = others.filter(|session| *session != who.session()).collect();
            parked.waiting.push(Waiting { who, take: 1, seat, label: String::new() });
            self.put(&tx, parked).await?;
            let granted = open.advance();
            open.close(granted).await?;
            Ok(Some(others))
        });
        park.await
    }

    /// Moves a waiter that timed out to the end of the lock's line. `false`: it no longer waits here.
    async fn time_out(&self, who: Claimant) -> Result<bool> {
        let manager = &self.queue.manager;
        let time_out = manager.transact(async |tx| {
            let mut open = self.queue.open(&tx, &[self.parked.key()]).await?;
            let mut parked = self.parked.get(&tx).await?.unwrap_or_default();
            let Some(at) = parked.position(who) else {
                return Ok(false);
            };
            let waiting = parked.waiting.remove(at);
            open.line.waiting.push(Waiting { label: TIMED_OUT.to_owned(), ..waiting });
            self.put(&tx, parked).await?;
            let granted = open.advance();
            let granted = granted.into_iter().filter(|granted| granted.who != who).collect();
            open.close(granted).await?;
            Ok(true)
        });
        time_out.await
    }

    /// Ends the wait in whatever state it is, and hands its notification on. `token`: that of its guard from before the
    /// wait.
    async fn withdraw(&self, who: Claimant, token: u64) -> Result<()> {
        let manager = &self.queue.manager;
        let withdraw = manager.transact(async |tx| {
            let mut open = self.queue.open(&tx, &[self.parked.key()]).await?;
            let mut parked = self.parked.get(&tx).await?.unwrap_or_default();
            let in_line = open.line.waiting.iter().find(|waiting| waiting.who == who).map(|waiting| &waiting.label);
            // A claimant that holds the lock as before has not begun to wait.
            let held = open.holders.of(who).filter(|held| held.token != token).map(|held| &held.label);
            let notified = in_line.or(held).is_some_and(|label| label != TIMED_OUT);
            let mut changed = parked.remove(who);
            if open.remove(who) && notified && !parked.waiting.is_empty() {
                open.line.waiting.push(parked.waiting.remove(0));
                changed = true;
            }
            if changed {
                self.put(&tx, parked).await?;
            }
            let granted = open.advance();
            open.close(granted).await
        });
        // This goes on while the client is being closed.
        manager.engine.closing.last_work(withdraw).await
    }
}

/// Drives a wait from its beginning to its end.
async fn drive(
    condition: Condition,
    hold: Hold,
    task: Option<task::Id>,
    deadline: Option<Instant>,
    mut stop: Stop<Ended>,
) {
    let (key, before) = (condition.queue.key.clone(), hold.token);
    let Some((queue, claim, session, who)) = hold.dissolve() else {
        return;
    };
    session.take_seat(claim.seat);
    let waited = match condition.park(who, claim.seat, &stop.stopped).await {
        Ok(Some(Some(others))) => {
            condition.tidy(others);
            wait(&condition, &session, who, claim.seat, deadline, &mut stop).await
        }
        Ok(Some(None)) => Err(lost(&key)),
        Ok(None) => Err(nobody_waits()),
        Err(error) => Err(error),
    };
    let answer = match waited {
        Ok(Some((token, timed_out))) => {
            Hold::assemble(queue, claim, session, who, token, task).map(|hold| (hold, timed_out))
        }
        ended => {
            // Whether it waits, is in the lock's line or holds the lock: it is withdrawn.
            if condition.withdraw(who, before).await.is_err() {
                queue.manager.lose(&session);
            }
            Err(ended.err().unwrap_or_else(|| lost(&key)))
        }
    };
    if let Err(Ok((hold, timed_out))) = stop.reply.send(answer) {
        // The caller has gone: its notification is for another waiter.
        if !timed_out && let Some((queue, claim, session, who)) = hold.dissolve() {
            if condition.withdraw(who, before).await.is_err() {
                queue.manager.lose(&session);
            }
            drop(claim);
        }
    }
}

/// Waits for a notification or the deadline, and then for the lock. `None`: the session ended.
async fn wait(
    condition: &Condition,
    session: &Arc<Session>,
    who: Claimant,
    seat: u32,
    deadline: Option<Instant>,
    stop: &mut Stop<Ended>,
) -> Result<Option<(u64, bool)>> {
    let (queue, mut deadline, mut timed_out) = (&condition.queue, deadline, false);
    loop {
        let waited = wait_for_grant(queue, session, who, seat, Some(&condition.parked), stop);
        let waited = match deadline {
            None => waited.await,
            Some(at) => match timeout_at(at, waited).await {
                Ok(waited) => waited,
                Err(_) => {
                    deadline = None;
                    timed_out = condition.time_out(who).await?;
                    continue;
                }
            },
        };
        return match waited? {
            Waited::Granted(token) if session.is_alive() => Ok(Some((token, timed_out))),
            Waited::Granted(_) | Waited::Ended => {
                queue.manager.lose(session);
                Ok(None)
            }
            Waited::Stopped => Err(nobody_waits()),
        };
    }
}

fn nobody_waits() -> Error {
    Error::new(ErrorKind::Aborted, "nobody waits any more")
}

impl std::fmt::Debug for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Condition").field("lock", &self.queue.key).field("key", self.parked.key()).finish()
    }
}
