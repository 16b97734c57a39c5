use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task;
use tokio::time::Instant;

use super::grant_queue::{GrantQueue, Joined, Place, Request, refuse_in_vain};
use super::holdings::GiveBack;
use super::rules::{Claimant, Line, Waiting};
use super::session::{Session, seat};
use super::session_manager::{Claim, gone};
use crate::backend::time::{sleep_until, timeout_at};
use crate::engine::closed;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::SystemRef;
use crate::protocol::{Key, SessionId};

/// A grant. Dropping it gives it back.
pub(super) struct Hold {
    inner: Arc<Inner>,
    pub(super) token: u64,
}

struct Inner {
    queue: GrantQueue,
    /// `None`: it was given back.
    claim: Mutex<Option<Claim>>,
    session: Arc<Session>,
    who: Claimant,
}

/// How long a caller is willing to wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Not at all.
    Now,
    Until(Instant),
    Unlimited,
}

/// How long to wait for a request that was given up.
const GRACE: Duration = Duration::from_secs(1);

/// A waiter looks again no sooner than this, unless it gets a hint.
const TURN: Duration = Duration::from_millis(5);

impl GrantQueue {
    /// Makes a request and waits for its grant. `None`: it was not granted in time, and nothing is left of it.
    ///
    /// # Cancel safety
    /// Safe: the request is a task of its own. If the future is dropped, the task withdraws the request or gives the
    /// grant back.
    pub(super) async fn acquire(&self, request: Request, patience: Patience) -> Result<Option<Hold>> {
        self.manager.engine.begin("acquire")?;
        let wait = !matches!(patience, Patience::Now);
        let (reply, granted) = oneshot::channel();
        let (stop, stopped) = watch::channel(());
        let (first, tried) = oneshot::channel();
        let task = request.task;
        let queue = Self { seen: Arc::default(), ..self.clone() };
        self.manager.spawn(drive(queue.clone(), request, wait, first, Stop { reply, stopped }));
        let told = AtomicBool::new(false);
        let mut granted = pin!(self.manager.wait_for(granted, |waited| {
            queue.tell(task, waited, !told.swap(true, Ordering::Relaxed));
            std::future::ready(())
        }));
        let deadline = match patience {
            Patience::Unlimited => None,
            Patience::Until(deadline) => Some(deadline),
            Patience::Now => self.manager.engine.deadline(),
        };
        let answer = match deadline {
            None => granted.await,
            Some(deadline) => match timeout_at(deadline, granted.as_mut()).await {
                Ok(answer) => answer,
                Err(_) => {
                    let end = Instant::now() + GRACE;
                    if wait {
                        // The request tries once, however short the time is. The end of this channel says that it has.
                        drop(timeout_at(end - GRACE / 2, tried).await);
                    }
                    drop(stop);
                    // It may be granted at the last moment. If the store is out of reach it is withdrawn in the
                    // background.
                    match timeout_at(end, granted).await {
                        // A request that was given up does not say whether the lock is free.
                        Ok(Ok(Ok(Ok(None)))) | Err(_) if !wait => {
                            let message = "the store did not answer in time: whether it is free is not known";
                            return Err(Error::new(ErrorKind::Unavailable, message).at(&self.key));
                        }
                        Ok(answer) => answer,
                        Err(_) => return Ok(None),
                    }
                }
            },
        };
        let closed = |_| Error::new(ErrorKind::Closed, "the runtime was shut down while it was waited for");
        answer.and_then(|answer| answer.map_err(closed)?).map_err(|error| error.at(&self.key))
    }

    /// Says in the log for what a request waits. Waiting for another's term is normal: it is a warning once.
    fn tell(&self, task: Option<task::Id>, waited: Duration, first: bool) {
        let key = &self.key;
        let (holder, own) = self.manager.holdings.describe(self.holders().key(), self.seen().as_ref(), task);
        match own {
            true => {
                tracing::warn!(%key, %holder, ?waited, "waits for this client's own guard: release or drop that first")
            }
            false if self.standby && first => {
                tracing::warn!(%key, %holder, ?waited, "waits for another client's term to end")
            }
            false if self.standby => tracing::info!(%key, %holder, ?waited, "waits for another client's term to end"),
            false => tracing::warn!(%key, %holder, ?waited, "waits for another client's guard"),
        }
    }
}

/// How a wait ended.
pub(super) enum Waited {
    Granted(u64),
    Ended,
    Stopped,
}

/// The caller's side of a task: where to reply, and whether the caller still waits.
pub(super) struct Stop<T> {
    pub(super) reply: oneshot::Sender<Result<T>>,
    /// The caller has the sender, and drops it to give up.
    pub(super) stopped: watch::Receiver<()>,
}

impl<T> Stop<T> {
    pub(super) async fn called(&mut self) {
        gone(&mut self.stopped).await;
    }

    /// Does work that may be dropped, until the caller gives up.
    pub(super) async fn unless<R>(&mut self, work: impl Future<Output = R>) -> Option<R> {
        tokio::select! {
            biased;
            () = self.called() => None,
            done = work => Some(done),
        }
    }
}

/// Drives a request from its beginning to its end.
async fn drive(
    queue: GrantQueue,
    request: Request,
    wait: bool,
    first: oneshot::Sender<()>,
    mut stop: Stop<Option<Hold>>,
) {
    let claim = queue.manager.claim();
    let done = obtain(&queue, &claim, &request, wait, first, &mut stop).await;
    let answer = match done {
        Ok(Some((session, who, token))) => Hold::assemble(queue, claim, session, who, token, request.task).map(Some),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    // If the caller has gone, the grant in this reply is dropped, and so given back.
    drop(stop.reply.send(answer));
}

type Obtained = (Arc<Session>, Claimant, u64);

async fn obtain(
    queue: &GrantQueue,
    claim: &Claim,
    request: &Request,
    wait: bool,
    first: oneshot::Sender<()>,
    stop: &mut Stop<Option<Hold>>,
) -> Result<Option<Obtained>> {
    let manager = &queue.manager;
    let (mut before, mut first) = (None, Some(first));
    loop {
        let Some(session) = stop.unless(manager.session()).await else {
            return withdraw_earlier(queue, before).await;
        };
        let session = session?;
        let who = Claimant::new(session.id, claim.ticket);
        let begun = session.has_begun();
        let sent = std::sync::Mutex::new(Instant::now());
        let joined = manager
            .transact_wanted(&stop.stopped, async |tx| {
                *sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
                let entry = Waiting { who, take: request.take, seat: claim.seat, label: request.label.clone() };
                queue.join(&tx, (&session, begun), request, entry, before, wait).await
            })
            .await;
        let sent = sent.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        drop(first.take());
        let joined = match joined {
            Ok(Some(joined)) => joined,
            Ok(None) => return withdraw_earlier(queue, before).await,
            Err(error) => {
                if error.kind() == ErrorKind::OutcomeUnknown {
                    // It may have a place that nobody knows of: the session ends, and with it all its places.
                    manager.lose(&session);
                }
                return Err(error);
            }
        };
        match joined {
            Joined::Ended => manager.lose(&session),
            Joined::NotNow(in_the_way) => match stop.unless(clear(queue, &in_the_way)).await {
                Some(Ok(true)) => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(false)) | None => return Ok(None),
            },
            Joined::Granted(token) => {
                manager.entered(&session, sent);
                match confirm(queue, &session, who, stop).await? {
                    Confirmed::Yes => return Ok(Some((session, who, token))),
                    Confirmed::No => before = Some(who),
                    Confirmed::Stopped => return Ok(None),
                }
            }
            Joined::Queued => {
                manager.entered(&session, sent);
                match wait_for_grant(queue, &session, who, claim.seat, None, stop).await {
                    Ok(Waited::Granted(token)) if session.is_alive() => {
                        match confirm(queue, &session, who, stop).await? {
                            Confirmed::Yes => return Ok(Some((session, who, token))),
                            Confirmed::No => before = Some(who),
                            Confirmed::Stopped => return Ok(None),
                        }
                    }
                    // A grant that comes after the session has ended does not count.
                    Ok(Waited::Granted(_) | Waited::Ended) => {
                        manager.lose(&session);
                        before = Some(who);
                    }
                    // If withdrawing fails the session ends, and with it the request.
                    Ok(Waited::Stopped) => return withdraw(queue, &session, who).await.map(|_| None),
                    Err(error) => return withdraw(queue, &session, who).await.and(Err(error)),
                }
            }
        }
    }
}

/// Whether a grant can be relied on.
enum Confirmed {
    Yes,
    /// Its session has ended.
    No,
    /// The caller has given up, and the grant was given back.
    Stopped,
}

async fn confirm(
    queue: &GrantQueue,
    session: &Arc<Session>,
    who: Claimant,
    stop: &mut Stop<Option<Hold>>,
) -> Result<Confirmed> {
    match stop.unless(queue.manager.is_confirmed(session)).await {
        Some(Ok(true)) => Ok(Confirmed::Yes),
        Some(Ok(false)) => {
            queue.manager.lose(session);
            Ok(Confirmed::No)
        }
        Some(Err(error)) => withdraw(queue, session, who).await.and(Err(error)),
        None => withdraw(queue, session, who).await.map(|_| Confirmed::Stopped),
    }
}

/// The caller has given up before the request was entered: nothing is left but an earlier entry in a session that has
/// ended.
async fn withdraw_earlier(queue: &GrantQueue, before: Option<Claimant>) -> Result<Option<Obtained>> {
    if let Some(before) = before {
        queue.withdraw(before).await?;
    }
    Ok(None)
}

/// Removes the dead among the sessions in the way of a request that does not wait. `true`: there were some.
async fn clear(queue: &GrantQueue, in_the_way: &[SessionId]) -> Result<bool> {
    let dead = queue.manager.judge(in_the_way).await?;
    if dead.is_empty() { Ok(false) } else { queue.evict(&dead).await }
}

/// Waits for a grant, and removes dead sessions ahead from time to time. A request that is parked elsewhere waits until
/// it is put into the line.
pub(super) async fn wait_for_grant<T>(
    queue: &GrantQueue,
    session: &Session,
    who: Claimant,
    own_seat: u32,
    parked: Option<&SystemRef<Line>>,
    stop: &mut Stop<T>,
) -> Result<Waited> {
    let engine = &queue.manager.engine;
    let keys: [Key; 1] = [seat(engine, session.id, own_seat).key().clone()];
    let mut watcher = engine.watch(&keys, None).await?;
    let mut next_look = Instant::now();
    loop {
        match queue.place(who, parked).await? {
            Place::Parked if Instant::now() >= next_look => next_look = Instant::now() + queue.manager.tick(),
            Place::Parked => {}
            Place::Granted(token) => return Ok(Waited::Granted(token)),
            Place::Gone => return Ok(Waited::Ended),
            Place::Waiting { holders, line } => {
                let own = line.waiting.iter().find(|waiting| waiting.who == who);
                refuse_in_vain(queue, own.map_or(0, |own| own.take), &holders)?;
                let now = Instant::now();
                if now >= next_look {
                    let (changed, tick) = queue.evict_dead_ahead(who, &holders, &line).await?;
                    next_look = now + tick;
                    if changed {
                        continue;
                    }
                }
            }
        }
        tokio::select! {
            biased;
            () = stop.called() => return Ok(Waited::Stopped),
            () = session.lost() => return Ok(Waited::Ended),
            hint = watcher.changed() => drop(hint?),
            () = sleep_until(next_look.max(Instant::now() + TURN)) => {}
        }
    }
}

/// Ends a request. If that fails for good the session ends, and the request with it. `false`: it was gone.
async fn withdraw(queue: &GrantQueue, session: &Arc<Session>, who: Claimant) -> Result<bool> {
    // This goes on while the client is being closed.
    let withdrawn = queue.manager.engine.closing.last_work(queue.withdraw(who)).await;
    if let Err(error) = &withdrawn {
        tracing::warn!(key = %queue.key, %error, "could not be given back: the session ends");
        queue.manager.lose(session);
    }
    withdrawn
}

impl Hold {
    pub(super) fn queue(&self) -> &GrantQueue {
        &self.inner.queue
    }

    pub(super) fn who(&self) -> Claimant {
        self.inner.who
    }

    pub(super) fn is_held(&self) -> bool {
        GiveBack::is_held(&*self.inner)
    }

    /// Waits until it is lost, or given back since the client is closed.
    pub(super) async fn lost(&self) {
        tokio::select! {
            () = self.inner.session.lost() => {}
            () = self.queue().manager.engine.closing.begins() => {}
        }
    }

    /// Gives it back, and waits until that is done.
    pub(super) async fn release(self) -> Result<()> {
        self.queue().manager.engine.begin("release")?;
        let queue = &self.inner.queue;
        let Some(task) = self.inner.give_back() else {
            // Only a close gives back a grant that has a guard.
            return Err(closed().at(&queue.key).during("release"));
        };
        let closed = |_| Error::new(ErrorKind::Closed, "the runtime was shut down while it was released");
        match task.await.map_err(closed)? {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost(&queue.key)),
            Err(error) => Err(error.at(&queue.key)),
        }
    }

    /// Reduces how much is held, and lets in the waiters for which that makes room.
    ///
    /// # Cancel safety
    /// If the future is dropped it goes on, and then all is given back.
    pub(super) async fn take_less(self, take: u32) -> Result<Self> {
        self.queue().manager.engine.begin("downgrade")?;
        let (told, done) = oneshot::channel();
        Arc::clone(&self.queue().manager).spawn(async move {
            let queue = self.queue();
            let answer = match queue.take_less(self.who(), take).await {
                Ok(true) => Ok(self),
                Ok(false) => Err(lost(&queue.key)),
                Err(error) => Err(error.at(&queue.key)),
            };
            drop(told.send(answer));
        });
        done.await.map_err(|_| Error::new(ErrorKind::Closed, "the runtime was shut down meanwhile"))?
    }

    /// Takes it apart without giving it back.
    pub(super) fn dissolve(self) -> Option<(GrantQueue, Claim, Arc<Session>, Claimant)> {
        let Inner { queue, session, who, .. } = &*self.inner;
        let claim = self.inner.claim().take()?;
        queue.manager.holdings.remove(*who);
        Some((queue.clone(), claim, Arc::clone(session), *who))
    }

    /// The opposite of [`dissolve`](Self::dissolve). `task`: the one that made the request. Refused if the client is
    /// closed: then it is given back.
    pub(super) fn assemble(
        queue: GrantQueue,
        claim: Claim,
        session: Arc<Session>,
        who: Claimant,
        token: u64,
        task: Option<task::Id>,
    ) -> Result<Self> {
        let manager = Arc::clone(&queue.manager);
        let inner = Inner { queue, claim: Mutex::new(Some(claim)), session, who };
        let hold = Self { inner: Arc::new(inner), token };
        let back: Weak<dyn GiveBack> = Arc::downgrade(&hold.inner) as _;
        manager.holdings.add(hold.queue().holders().key(), who, task, back);
        // After it was added: a close either finds it or is seen.
        manager.engine.closing.check().map(|()| hold)
    }
}

impl Inner {
    fn claim(&self) -> MutexGuard<'_, Option<Claim>> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it was given back before.
    fn give_back(&self) -> Option<oneshot::Receiver<Result<bool>>> {
        let claim = self.claim().take()?;
        let manager = Arc::clone(&self.queue.manager);
        manager.holdings.remove(self.who);
        let (queue, session, who) = (self.queue.clone(), Arc::clone(&self.session), self.who);
        let (told, task) = oneshot::channel();
        manager.background(async move {
            // The answer has no receiver if the guard was dropped, and needs none. A claim that could not be given back ends with its session.
            let _ = told.send(withdraw(&queue, &session, who).await);
            drop(claim);
        });
        Some(task)
    }
}

impl GiveBack for Inner {
    fn give_back(&self) {
        // The task goes on although nobody listens.
        drop(Inner::give_back(self));
    }

    fn is_held(&self) -> bool {
        self.claim().is_some() && self.session.is_alive()
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        drop(self.inner.give_back());
    }
}

pub(super) fn lost(key: &Key) -> Error {
    let message = "it was lost before: the session had ended, and others may have had it since";
    Error::new(ErrorKind::Lost, message).at(key)
}
