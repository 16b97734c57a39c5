use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{self, AbortHandle};
use tokio::time::Instant;

use super::holdings::{Holdings, told};
use super::session::{Dead, Observer, Session, record};
use super::sights::Sights;
use crate::backend::time::{sleep, sleep_until, timeout, timeout_at};
use crate::engine::{Engine, Options, run};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Companion, Stm, Tx};
use crate::protocol::SessionId;

/// The session of a client that all its locks, queues and barriers share, and the work that it does for them in the
/// background.
pub(super) struct SessionManager {
    pub(super) engine: Arc<Engine>,
    state: Mutex<State>,
    observer: Observer,
    /// What was seen of values that queues have handed out.
    pub(super) sights: Sights,
    tickets: AtomicU64,
    pub(super) holdings: Holdings,
    /// The number of claims and of tasks that give something back.
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// The task that keeps a session alive. Where the clock was paused it has ended with its runtime.
    beat: Option<(SessionId, AbortHandle)>,
    /// The number of claims.
    claims: usize,
    free_seats: Vec<u32>,
    seats: u32,
}

impl State {
    /// Whether the task that keeps this session alive is gone. A task takes note under the same lock that it ends.
    fn has_stopped(&self, session: &Session) -> bool {
        session.is_beating() && self.beat.as_ref().is_some_and(|(id, beat)| *id == session.id && beat.is_finished())
    }
}

/// The right of a request or guard to have the session kept alive, with a number and a seat of its own.
pub(super) struct Claim {
    pub(super) manager: Arc<SessionManager>,
    pub(super) ticket: u64,
    pub(super) seat: u32,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.manager.state();
        state.claims -= 1;
        state.free_seats.push(self.seat);
        drop(state);
        self.manager.busy.send_modify(|busy| *busy -= 1);
    }
}

/// Waits until the sender has gone.
pub(super) async fn gone(wanted: &mut watch::Receiver<()>) {
    while wanted.changed().await.is_ok() {}
}

/// How long a log message may wait for the state that it tells.
const LOOK: Duration = Duration::from_secs(1);

/// How long to wait after an error that may pass.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// A session that ended in an outage is told to others if the outage is no longer than this.
const RETIRE_FOR: Duration = Duration::from_secs(60);

impl SessionManager {
    /// The manager of this client.
    pub(super) fn of(stm: &Stm) -> Arc<Self> {
        let companion = stm.companion.get_or_init(|| {
            Arc::new(Self {
                engine: Arc::clone(&stm.engine),
                state: Mutex::default(),
                observer: Observer::default(),
                sights: Sights::default(),
                tickets: AtomicU64::new(1),
                holdings: Holdings::default(),
                busy: watch::Sender::new(0),
            })
        });
        let any: Arc<dyn std::any::Any + Send + Sync> = Arc::clone(companion) as _;
        any.downcast().expect("a client has one companion, and this makes it")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn claim(self: &Arc<Self>) -> Claim {
        self.busy.send_modify(|busy| *busy += 1);
        let mut state = self.state();
        state.claims += 1;
        let seat = state.free_seats.pop().unwrap_or_else(|| {
            state.seats += 1;
            state.seats - 1
        });
        Claim { manager: Arc::clone(self), ticket: self.tickets.fetch_add(1, Ordering::Relaxed), seat }
    }

    /// Runs a transaction without a deadline.
    pub(super) async fn transact<T, F, Fut>(&self, body: F) -> Result<T>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let options = Options { deadline: None, max_attempts: None, ..Options::silent(&self.engine.config) };
        run(&self.engine, options, |tx| body(Tx(tx))).await
    }

    /// The same while the caller wants it; the caller drops `wanted`'s sender to give up. `None`: it gave up, and
    /// nothing has happened. A commit that was sent is waited for all the same.
    pub(super) async fn transact_wanted<T, F, Fut>(&self, wanted: &watch::Receiver<()>, body: F) -> Result<Option<T>>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let wanted_by = Some(wanted.clone());
        let options =
            Options { deadline: None, max_attempts: None, wanted: wanted_by, ..Options::silent(&self.engine.config) };
        let done = run(&self.engine, options, |tx| {
            let (mut wanted, work) = (wanted.clone(), body(Tx(tx)));
            async move {
                tokio::select! {
                    biased;
                    () = gone(&mut wanted) => Err(Error::abort("nobody wants it any more")),
                    done = work => done,
                }
            }
        });
        match done.await {
            Ok(done) => Ok(Some(done)),
            Err(error) => match error.kind() {
                ErrorKind::Aborted | ErrorKind::Unavailable if wanted.has_changed().is_err() => Ok(None),
                _ => Err(error),
            },
        }
    }

    /// The same until the client's deadline.
    pub(super) async fn transact_soon<T, F, Fut>(&self, body: F) -> Result<T>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        run(&self.engine, Options::new(&self.engine.config), |tx| body(Tx(tx))).await
    }

    /// The same for work that the user did not begin: commits that were lost are not reported to it.
    pub(super) async fn transact_silently<T, F, Fut>(&self, body: F) -> Result<T>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        run(&self.engine, Options::silent(&self.engine.config), |tx| body(Tx(tx))).await
    }

    /// How often a waiter looks after the sessions ahead of it.
    pub(super) fn tick(&self) -> Duration {
        self.engine.config.session_ttl / 4
    }

    /// An id that no other session has: the client's own id is random, but for its last 48 bits, and is counted on
    /// from.
    fn next_session(&self) -> SessionId {
        let number = u128::from(self.tickets.fetch_add(1, Ordering::Relaxed));
        SessionId::new(self.engine.client.number().wrapping_add(number << 48))
    }

    /// A number that hardly any other client or call is given. A simulation gives the same ones again.
    pub(super) fn next_number(&self) -> u64 {
        let number = self.next_session().number();
        (number ^ (number >> 64)) as u64
    }

    /// The session to enter requests in. A coordinator with sessions of its own has been told of it.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Arc<Session>> {
        loop {
            let session = {
                let mut state = self.state();
                let new = || Arc::new(Session::new(&self.engine, self.next_session(), self.engine.config.session_ttl));
                Arc::clone(state.session.get_or_insert_with(new))
            };
            if !session.is_alive() || session.is_forgotten(&self.engine) {
                self.lose(&session);
                continue;
            }
            let Some(native) = self.engine.coordinator.sessions() else {
                return Ok(session);
            };
            if session.is_beating() && !self.state().has_stopped(&session) && !session.is_doubtful(self.turns()) {
                return Ok(session);
            }
            let (sent, turns) = (Instant::now(), self.turns());
            let sign = || match session.has_begun() {
                true => native.renew(session.id, session.ttl),
                false => native.begin(session.id, session.ttl),
            };
            if self.engine.until(None, sign).await? {
                session.confirm(turns);
                self.entered(&session, sent);
                return Ok(session);
            }
            self.lose(&session);
        }
    }

    /// How often the coordinator's history may have changed.
    fn turns(&self) -> u64 {
        self.engine.coordinator.losses().map_or(0, |losses| losses.turns())
    }

    /// Whether a session in which something was just granted can be relied on. A server that has taken over may know
    /// nothing of the session, and then others take at once what was granted in it.
    pub(super) async fn is_confirmed(&self, session: &Session) -> Result<bool> {
        let turns = self.turns();
        if let Some(native) = self.engine.coordinator.sessions()
            && session.is_doubtful(turns)
        {
            if !self.engine.until(None, || native.renew(session.id, session.ttl)).await? {
                return Ok(false);
            }
            session.confirm(turns);
        }
        Ok(session.is_alive() && !session.is_forgotten(&self.engine))
    }

    /// Enters a session in a transaction that will rely on it. `false`: it has ended. `begun`: what
    /// [`has_begun`](Session::has_begun) said before the transaction.
    pub(super) async fn enter(&self, session: &Session, begun: bool, tx: &Tx) -> Result<bool> {
        match self.engine.coordinator.sessions() {
            Some(_) => Ok(session.is_alive()),
            None => session.enter(begun, tx).await,
        }
    }

    /// Takes note that a transaction begun at `sent` has entered the session, which is kept alive from now on while
    /// there are claims.
    pub(super) fn entered(self: &Arc<Self>, session: &Arc<Session>, sent: Instant) {
        let mut state = self.state();
        let stopped = state.has_stopped(session);
        if session.entered(sent) || stopped {
            let now = Instant::now();
            let due = if stopped { now } else { now + session.ttl / 4 };
            let task = self.spawn(beat(Arc::clone(self), Arc::clone(session), due));
            state.beat = Some((session.id, task.abort_handle()));
        }
    }

    /// Ends a session of this client, with all that it holds.
    pub(super) fn lose(self: &Arc<Self>, session: &Arc<Session>) {
        {
            let mut state = self.state();
            if state.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
                state.session = None;
            }
        }
        if session.lose() {
            if session.is_beating() {
                tracing::warn!(session = %session.id, "the session ended: what it held is lost");
            }
            let (manager, session) = (Arc::clone(self), Arc::clone(session));
            self.background(async move { manager.retire_after_outage(&session).await });
        }
    }

    /// Tells others that a session has ended. A session is mostly lost because the store is away, so this is tried
    /// again until the store is back. Otherwise a client that waits for what the session held would count its time to
    /// live only from then on.
    async fn retire_after_outage(&self, session: &Session) {
        let until = Instant::now() + RETIRE_FOR;
        let mut tries = 0;
        while let Err(error) = self.retire(session).await {
            tracing::debug!(session = %session.id, %error, tries, "others may not know yet that a session has ended");
            let passes =
                matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::OutcomeUnknown);
            if !passes || !self.engine.pause_in_outage(tries, Some(until)).await {
                return;
            }
            tries += 1;
        }
    }

    /// Tells others that a session has ended, so that they need not wait until it is late. It may be repeated.
    async fn retire(&self, session: &Session) -> Result<()> {
        let retired = match self.engine.coordinator.sessions() {
            Some(native) => native.end(session.id).await,
            None => self.transact_silently(async |tx| record(&self.engine, session.id).remove(&tx).await).await,
        };
        retired.and(self.clear_seats(session.id, session.seats()).await)
    }

    /// How many items that take a key each fit into a commit beside the two records of a queue, the session, the slot,
    /// the floor, and what a caller adds; but no more than `most`.
    pub(super) fn at_once(&self, most: usize) -> usize {
        self.engine.capabilities.max_keys.saturating_sub(8).clamp(1, most)
    }

    /// Finds the dead among these sessions. One request for each 256 of them.
    pub(super) async fn judge(&self, sessions: &[SessionId]) -> Result<Vec<Dead>> {
        Ok(self.look_at(sessions).await?.0)
    }

    /// The same within the client's deadline.
    pub(super) async fn judge_soon(&self, sessions: &[SessionId]) -> Result<Vec<Dead>> {
        let late = || Error::new(ErrorKind::Timeout, "the deadline passed before the store had told who is alive");
        match self.engine.deadline() {
            None => self.judge(sessions).await,
            Some(deadline) => timeout_at(deadline, self.judge(sessions)).await.unwrap_or_else(|_| Err(late())),
        }
    }

    /// The same as [`judge`](Self::judge), and gives in what time to look again: sessions of others may have a shorter
    /// time to live.
    pub(super) async fn look_at(&self, sessions: &[SessionId]) -> Result<(Vec<Dead>, Duration)> {
        const AT_ONCE: usize = 256;
        let (mut dead, mut tick) = (Vec::new(), self.tick());
        for some in sessions.chunks(self.at_once(AT_ONCE)) {
            let (mut found, shortest) = self.look_at_some(some).await?;
            dead.append(&mut found);
            tick = shortest.map_or(tick, |shortest| tick.min(shortest / 4));
        }
        Ok((dead, tick))
    }

    async fn look_at_some(&self, sessions: &[SessionId]) -> Result<(Vec<Dead>, Option<Duration>)> {
        if let Some(native) = self.engine.coordinator.sessions() {
            let alive = self.engine.until(None, || native.alive(sessions)).await?;
            let dead = sessions.iter().zip(alive).filter(|(_, alive)| !alive);
            return Ok((dead.map(|(session, _)| Dead::gone(*session)).collect(), None));
        }
        let asked = Instant::now();
        let found = self
            .transact(async |tx| {
                let records: Vec<_> = sessions.iter().map(|session| record(&self.engine, *session)).collect();
                tx.0.see(&records.iter().map(|record| record.key()).collect::<Vec<_>>()).await?;
                let mut found = Vec::with_capacity(records.len());
                for (session, record) in sessions.iter().zip(&records) {
                    found.push((*session, record.get(&tx).await?));
                }
                Ok(found)
            })
            .await?;
        Ok(self.observer.judge(asked, found, self.tick() * 8))
    }

    /// Runs a task that outlives the runtime it was started from.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> task::JoinHandle<()> {
        self.engine.config.tasks.spawn(task)
    }

    /// Gives back what was taken, in a task of its own, for which [`close`](Companion::close) waits.
    pub(super) fn background(
        self: &Arc<Self>,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> task::JoinHandle<()> {
        struct Busy(Arc<SessionManager>);
        impl Drop for Busy {
            fn drop(&mut self) {
                self.0.busy.send_modify(|busy| *busy -= 1);
            }
        }
        self.busy.send_modify(|busy| *busy += 1);
        let busy = Busy(Arc::clone(self));
        self.spawn(async move {
            busy.0.engine.closing.last_work(work).await;
            drop(busy);
        })
    }

    /// Waits for the task of a request, until the client is closed; `say` is called when that takes long.
    pub(super) async fn wait_for<T, Fut>(
        &self,
        wait: impl Future<Output = T>,
        say: impl Fn(Duration) -> Fut,
    ) -> Result<T>
    where
        Fut: Future<Output = ()>,
    {
        self.engine.closing.race(told(wait, say)).await
    }

    /// Reads the state that a log message tells; `None`: the store does not answer.
    pub(super) async fn look<T, F, Fut>(&self, body: F) -> Option<T>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        timeout(LOOK, self.transact_silently(body)).await.ok()?.ok()
    }

    async fn sign_of_life(&self, session: &Session) -> Result<bool> {
        match self.engine.coordinator.sessions() {
            Some(native) => native.renew(session.id, session.ttl).await,
            None => self.transact(async |tx| session.renew(&tx).await).await,
        }
    }
}

impl Companion for SessionManager {
    fn close(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            self.holdings.give_back();
            // The sender is in `self`, so it is not gone.
            let _ = self.busy.subscribe().wait_for(|busy| *busy == 0).await;
            let session = self.state().session.take();
            if let Some(session) = session {
                session.lose();
                if let Err(error) = self.retire(&session).await {
                    tracing::debug!(session = %session.id, %error, "the end of a session is left for others to notice");
                }
            }
        })
    }

    fn end(&self) {
        if let Some(session) = self.state().session.take() {
            session.lose();
        }
    }
}

/// Keeps a session alive while there are claims, and notices when it is not. `due`: when the first sign of life is to
/// be sent.
async fn beat(manager: Arc<SessionManager>, session: Arc<Session>, mut due: Instant) {
    let lose = || manager.lose(&session);
    loop {
        tokio::select! {
            biased;
            () = session.lost() => return,
            () = session.forgotten(&manager.engine) => return lose(),
            () = sleep_until(due.min(session.expires())) => {}
        }
        {
            // Claims are made under the same lock, and a new claim enters the session again if it is idle.
            let state = manager.state();
            if state.claims == 0 {
                session.set_idle();
                return;
            }
        }
        let sent = Instant::now();
        if sent >= session.expires() {
            return lose();
        }
        match timeout_at(session.expires(), manager.engine.closing.last_work(manager.sign_of_life(&session))).await {
            Ok(Ok(true)) if session.renewed(sent) => due = sent + session.ttl / 4,
            Ok(Ok(_)) | Err(_) => return lose(),
            Ok(Err(error)) if error.kind() == ErrorKind::Closed => return lose(),
            Ok(Err(error)) => {
                tracing::debug!(session = %session.id, %error, "a sign of life failed");
                sleep(AFTER_ERROR.min(session.ttl / 8)).await;
                due = Instant::now();
            }
        }
    }
}
