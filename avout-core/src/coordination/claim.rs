use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::gate::{Gate, Joined, Place, Request};
use super::hub::{Claim, gone};
use super::rules::{Claimant, Line, Waiting};
use super::session::{Session, seat};
use crate::backend::Watcher;
use crate::backend::time::{sleep, sleep_until, timeout_at};
use crate::engine::planted::Bug;
use crate::engine::refuse_nested;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::Own;
use crate::protocol::{Key, SessionId};

/// How long somebody who has given up is waited for.
const GRACE: Duration = Duration::from_secs(1);

/// What waits looks again no sooner than this, but for a hint.
const TURN: Duration = Duration::from_millis(5);

/// How long to wait for something.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Not at all.
    Now,
    Until(Instant),
    Unlimited,
}

/// Something that a gate has granted. It is given back when this is dropped.
pub(super) struct Hold {
    gate: Gate,
    claim: Option<Claim>,
    pub(super) session: Arc<Session>,
    pub(super) who: Claimant,
    pub(super) token: u64,
}

impl Gate {
    /// Asks for something and waits for it. `None`: it could not be had in time, and nothing is left of the request.
    ///
    /// # Cancel safety
    /// The request is a task of its own: whoever asked may go away at any time, and what was granted meanwhile is given back.
    pub(super) async fn acquire(&self, request: Request, patience: Patience) -> Result<Option<Hold>> {
        if !self.hub.makes(Bug::AcquireNested) {
            refuse_nested("acquire")?;
        }
        let wait = !matches!(patience, Patience::Now);
        let (reply, mut granted) = oneshot::channel();
        let (stop, stopped) = watch::channel(());
        self.hub.spawn(drive(self.clone(), request, wait, Stop { reply, stopped }));
        let deadline = match patience {
            Patience::Unlimited => None,
            Patience::Until(deadline) => Some(deadline),
            Patience::Now => self.hub.engine.deadline(),
        };
        let answer = match deadline {
            None => (&mut granted).await,
            Some(deadline) => match timeout_at(deadline, &mut granted).await {
                Ok(answer) => answer,
                Err(_) => {
                    drop(stop);
                    // It may be granted at the last moment. If the store is out of reach it is taken back in the background.
                    match timeout_at(Instant::now() + GRACE, granted).await {
                        // That it was given up says nothing of whether it is free.
                        Ok(Ok(Ok(None))) | Err(_) if !wait => {
                            let message = "the store did not answer in time: whether it is free is not known";
                            return Err(Error::new(ErrorKind::Unavailable, message).at(&self.key));
                        }
                        Ok(answer) => answer,
                        Err(_) => return Ok(None),
                    }
                }
            },
        };
        let closed = || Error::new(ErrorKind::Closed, "the runtime was shut down while it was waited for");
        answer.map_err(|_| closed())?.map_err(|error| error.at(&self.key))
    }
}

/// What becomes of one who waits.
pub(super) enum Waited {
    Granted(u64),
    Ended,
    Stopped,
}

/// Whoever asked has gone away, or wants no longer.
pub(super) struct Stop<T> {
    pub(super) reply: oneshot::Sender<Result<T>>,
    /// Its sender is with whoever asked, and says so by its end.
    pub(super) stopped: watch::Receiver<()>,
}

impl<T> Stop<T> {
    pub(super) async fn called(&mut self) {
        gone(&mut self.stopped).await;
    }

    /// Does something that may be dropped, unless nobody wants it any more.
    pub(super) async fn unless<R>(&mut self, work: impl Future<Output = R>) -> Option<R> {
        tokio::select! {
            biased;
            () = self.called() => None,
            done = work => Some(done),
        }
    }
}

/// A request from its beginning to its end.
async fn drive(gate: Gate, request: Request, wait: bool, mut stop: Stop<Option<Hold>>) {
    let claim = gate.hub.claim();
    let done = obtain(&gate, &claim, &request, wait, &mut stop).await;
    let answer = match done {
        Ok(Some((session, who, token))) => Ok(Some(Hold::assemble(gate, claim, session, who, token))),
        Ok(None) => Ok(None),
        Err(error) => Err(error),
    };
    // What nobody waits for any more is dropped, and so given back.
    drop(stop.reply.send(answer));
}

type Obtained = (Arc<Session>, Claimant, u64);

async fn obtain(
    gate: &Gate,
    claim: &Claim,
    request: &Request,
    wait: bool,
    stop: &mut Stop<Option<Hold>>,
) -> Result<Option<Obtained>> {
    let hub = &gate.hub;
    let mut before = None;
    loop {
        let Some(session) = stop.unless(hub.session()).await else {
            return withdraw(gate, before).await;
        };
        let session = session?;
        let who = Claimant::new(session.id, claim.ticket);
        let begun = session.has_begun();
        let sent = std::sync::Mutex::new(Instant::now());
        let joined = hub
            .transact_wanted(&stop.stopped, async |tx| {
                *sent.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
                let entry = Waiting { who, take: request.take, seat: claim.seat, label: request.label.clone() };
                gate.join(&tx, (&session, begun), request, entry, before, wait).await
            })
            .await;
        let sent = sent.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let joined = match joined {
            Ok(Some(joined)) => joined,
            Ok(None) => return withdraw(gate, before).await,
            Err(error) => {
                if error.kind() == ErrorKind::OutcomeUnknown {
                    // It may have a place that nobody knows of: the session ends, and with it all its places.
                    hub.lose(&session);
                }
                return Err(error);
            }
        };
        match joined {
            Joined::Ended => hub.lose(&session),
            Joined::NotNow(in_the_way) => match stop.unless(clear(gate, &in_the_way)).await {
                Some(Ok(true)) => {}
                Some(Err(error)) => return Err(error),
                Some(Ok(false)) | None => return Ok(None),
            },
            Joined::Granted(token) => {
                hub.entered(&session, sent);
                if session.is_alive() {
                    return Ok(Some((session, who, token)));
                }
                before = Some(who);
            }
            Joined::Queued => {
                hub.entered(&session, sent);
                match wait_for_grant(gate, &session, who, claim.seat, None, stop).await {
                    Ok(Waited::Granted(token)) if session.is_alive() => return Ok(Some((session, who, token))),
                    Ok(Waited::Granted(_) | Waited::Ended) if hub.makes(Bug::RequestLostWithSession) => {
                        return Err(lost(&gate.key));
                    }
                    // A grant that comes after the session has ended is none.
                    Ok(Waited::Granted(_) | Waited::Ended) => {
                        hub.lose(&session);
                        before = Some(who);
                    }
                    // Where that fails the session ends, and with it the request.
                    Ok(Waited::Stopped) => return give_back(gate, &session, who).await.map(|_| None),
                    Err(error) => return give_back(gate, &session, who).await.and(Err(error)),
                }
            }
        }
    }
}

/// Nobody wants it any more before it was entered: nothing is left of it but an earlier entry in a session that has ended.
async fn withdraw(gate: &Gate, before: Option<Claimant>) -> Result<Option<Obtained>> {
    if let Some(before) = before {
        gate.leave(before).await?;
    }
    Ok(None)
}

/// Removes those in the way of one who does not wait, as far as they are dead. `true`: some were.
async fn clear(gate: &Gate, in_the_way: &[SessionId]) -> Result<bool> {
    let dead = gate.hub.judge(in_the_way).await?;
    if dead.is_empty() { Ok(false) } else { gate.evict(&dead).await }
}

/// Waits for one's turn, and looks after those ahead from time to time. One who is parked elsewhere waits until it is put into
/// the line.
pub(super) async fn wait_for_grant<T>(
    gate: &Gate,
    session: &Session,
    who: Claimant,
    own_seat: u32,
    parked: Option<&Own<Line>>,
    stop: &mut Stop<T>,
) -> Result<Waited> {
    let engine = &gate.hub.engine;
    let keys: [Key; 1] = [seat(engine, session.id, own_seat).key().clone()];
    let mut watcher: Option<Box<dyn Watcher>> = None;
    let mut next_look = Instant::now();
    loop {
        let mut watching = match watcher.take() {
            Some(watcher) => watcher,
            None => engine.until(None, || engine.coordinator.watch(&keys)).await?,
        };
        match gate.place(who, parked).await? {
            Place::Parked => {}
            Place::Granted(token) => return Ok(Waited::Granted(token)),
            Place::Gone => return Ok(Waited::Ended),
            Place::Waiting { holders, line } => {
                if Instant::now() >= next_look {
                    next_look = Instant::now() + gate.hub.tick();
                    if gate.look_after(who, &holders, &line).await? {
                        watcher = Some(watching);
                        continue;
                    }
                }
            }
        }
        tokio::select! {
            () = stop.called() => return Ok(Waited::Stopped),
            () = session.lost() => return Ok(Waited::Ended),
            hint = watching.changed() => match hint {
                Ok(_) => watcher = Some(watching),
                Err(error) if error.kind() == ErrorKind::Unavailable => sleep(gate.hub.tick() / 8).await,
                Err(error) => return Err(error),
            },
            () = sleep_until(next_look.max(Instant::now() + TURN)) => watcher = Some(watching),
        }
    }
}

/// Takes a request back. If that fails for good the session ends, and the request with it. `false`: it was gone.
async fn give_back(gate: &Gate, session: &Arc<Session>, who: Claimant) -> Result<bool> {
    let left = gate.leave(who).await;
    if let Err(error) = &left {
        tracing::warn!(key = %gate.key, %error, "could not be given back: the session ends");
        gate.hub.lose(session);
    }
    left
}

impl Hold {
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }

    pub(super) fn is_held(&self) -> bool {
        self.session.is_alive()
    }

    pub(super) fn ticket(&self) -> u64 {
        self.who.ticket
    }

    /// Gives it back, and waits until that is done.
    pub(super) async fn release(mut self) -> Result<()> {
        refuse_nested("release")?;
        if self.gate.hub.makes(Bug::ReleaseDropped) {
            let claim = self.claim.take();
            tokio::task::yield_now().await;
            self.claim = claim;
        }
        let Some(task) = self.give_back() else {
            return Ok(());
        };
        let closed = |_| Error::new(ErrorKind::Closed, "the runtime was shut down while it was released");
        match task.await.map_err(closed)? {
            Ok(true) => Ok(()),
            Ok(false) => Err(lost(&self.gate.key)),
            Err(error) => Err(error.at(&self.gate.key)),
        }
    }

    fn give_back(&mut self) -> Option<oneshot::Receiver<Result<bool>>> {
        let claim = self.claim.take()?;
        let hub = Arc::clone(&self.gate.hub);
        hub.let_go(self.who.ticket);
        let (gate, session, who) = (self.gate.clone(), Arc::clone(&self.session), self.who);
        let (told, task) = oneshot::channel();
        hub.background(async move {
            // Nobody listens if the guard was dropped. A claim that could not be given back ends with its session.
            let _ = told.send(give_back(&gate, &session, who).await);
            drop(claim);
        });
        Some(task)
    }

    /// Goes on to hold less, and lets in those whom that lets in.
    ///
    /// # Cancel safety
    /// It goes on when the future is dropped, and all is given back then.
    pub(super) async fn take_less(self, take: u32) -> Result<Self> {
        refuse_nested("downgrade")?;
        let (told, done) = oneshot::channel();
        Arc::clone(&self.gate.hub).spawn(async move {
            let answer = match self.gate.take_less(self.who, take).await {
                Ok(true) => Ok(self),
                Ok(false) => Err(lost(&self.gate.key)),
                Err(error) => Err(error.at(&self.gate.key)),
            };
            drop(told.send(answer));
        });
        done.await.map_err(|_| Error::new(ErrorKind::Closed, "the runtime was shut down meanwhile"))?
    }

    /// Takes it apart without giving it back.
    pub(super) fn dissolve(mut self) -> Option<(Gate, Claim, Arc<Session>, Claimant)> {
        self.gate.hub.let_go(self.who.ticket);
        let claim = self.claim.take()?;
        Some((self.gate.clone(), claim, Arc::clone(&self.session), self.who))
    }

    /// The opposite of [`dissolve`](Self::dissolve).
    pub(super) fn assemble(gate: Gate, claim: Claim, session: Arc<Session>, who: Claimant, token: u64) -> Self {
        Self { gate, claim: Some(claim), session, who, token }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.gate.hub.makes(Bug::DropKeeps) {
            std::mem::forget(self.claim.take());
        }
        self.give_back();
    }
}

pub(super) fn lost(key: &Key) -> Error {
    let message = "it was lost before: the session had ended, and others may have had it since";
    Error::new(ErrorKind::Lost, message).at(key)
}
