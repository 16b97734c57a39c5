use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::Engine;
use super::attempt::{AbortHook, Attempt, Phase, Primed};
use super::commit::{Ended, Standing};
use super::nested::{in_body, refuse_nested};
use super::options::Options;
use super::precedence::First;
use super::queue::{find_left, hand_over, hold_all};
use super::time::{by, deadline};
use super::tx::TxInner;
use super::wait::Awaited;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Holder, Key};

/// Runs `body` until an attempt of it commits, or gives up.
pub(crate) async fn run<T, E, F, Fut>(engine: &Arc<Engine>, options: Options, body: F) -> Result<T, E>
where
    E: From<Error>,
    F: Fn(Arc<TxInner>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    refuse_nested("dosync")?;
    let mut runner = Runner::new(engine, options);
    loop {
        if let Err(closed) = engine.closing.check() {
            return Err(runner.end(closed.during("dosync")).await.into());
        }
        if let Err(lost) = runner.tell_losses() {
            return Err(runner.end(lost.during("dosync")).await.into());
        }
        let tx = runner.begin();
        let done = {
            let body = pin!(in_body(body(Arc::clone(&tx))));
            by(runner.standing.deadline, body).await
        };
        let Ok(done) = done else {
            let error = runner.too_late(&tx);
            return Err(runner.end(error).await.into());
        };
        match runner.settle(&tx, done.is_ok()).await {
            Ok(Next::Return) => return done,
            Ok(Next::RunAgain) => {}
            Err(error) => return Err(runner.end(error).await.into()),
        }
    }
}

/// From this loss on a transaction queues for all keys that it touches, and not only for those that it lost on.
const ESCALATES: u32 = 3;

/// From this loss on it asks the transactions of all processes to wait for it.
const RESERVES: u32 = 8;

/// In memory a commit is so short that to race is faster than to wait for a turn, as long as that ends: only from this loss
/// on a transaction queues.
const QUEUES_IN_MEMORY: u32 = 8;

/// And only from this one on it reserves.
const RESERVES_IN_MEMORY: u32 = 12;

/// What follows an attempt.
enum Next {
    Return,
    RunAgain,
}

/// The part of a run that does not depend on types.
struct Runner<'a> {
    engine: &'a Arc<Engine>,
    options: Options,
    standing: Standing,
    attempts: u32,
    /// How many of its attempts were lost to others. Waiting is no loss.
    losses: u32,
    /// The keys that it lost on, the last one at the end.
    lost_on: Vec<Key>,
    /// When the attempt began, if one was lost before.
    began: Option<Instant>,
    /// How long the longest of the attempts took that were lost.
    longest: Duration,
    primed: Option<Box<Primed>>,
    /// How many losses its stores had had when the last attempt began.
    history: u64,
}

impl<'a> Runner<'a> {
    fn new(engine: &'a Arc<Engine>, options: Options) -> Self {
        let mut standing = Standing::new(None);
        let mut options = options;
        standing.wanted = options.wanted.take();
        standing.deadline = deadline(standing.begun, options.deadline);
        let (lost_on, longest) = (Vec::new(), Duration::ZERO);
        let history = engine.losses.count();
        Self { engine, options, standing, attempts: 0, losses: 0, lost_on, began: None, longest, primed: None, history }
    }

    /// Begins no attempt if there is a loss to tell of.
    fn tell_losses(&self) -> Result<()> {
        if self.options.tells { self.engine.tell_losses() } else { Ok(()) }
    }

    fn begin(&mut self) -> Arc<TxInner> {
        self.attempts += 1;
        let history = std::mem::replace(&mut self.history, self.engine.losses.count());
        if history != self.history {
            self.primed = None;
        }
        self.began = (self.losses > 0).then(Instant::now);
        self.engine.stats.attempt();
        tracing::trace!(attempt = self.attempts, "running the body");
        Arc::new(TxInner {
            engine: Arc::clone(self.engine),
            deadline: self.standing.deadline,
            begun: self.standing.begun,
            number: self.attempts,
            attempt: Mutex::new(Attempt {
                history: self.history,
                ..Attempt::new(self.primed.take(), self.engine.floor.get())
            }),
        })
    }

    /// Ends an attempt: commits it, waits, or prepares the next one.
    async fn settle(&mut self, tx: &TxInner, ok: bool) -> Result<Next> {
        let mut attempt = tx.end();
        // What it has read is of another history than what it would commit to.
        if self.is_outlived() {
            return Ok(self.again(attempt));
        }
        match std::mem::replace(&mut attempt.phase, Phase::Ended) {
            Phase::Doomed { key } => {
                let wrote = attempt.keys.iter().any(|(_, touched)| touched.write.is_some());
                Box::pin(self.lost(attempt, key, None, wrote)).await
            }
            Phase::Retry => Box::pin(self.wait(attempt)).await,
            Phase::Running | Phase::Ended if !ok => {
                self.abort(attempt);
                self.abort_all();
                self.release(&[]).await;
                Ok(Next::Return)
            }
            Phase::Running | Phase::Ended => self.commit(&mut attempt).await,
        }
    }

    async fn commit(&mut self, attempt: &mut Attempt) -> Result<Next> {
        let written = match self.standing.reserved.is_empty() {
            true => Vec::new(),
            false => attempt.written().cloned().collect(),
        };
        match self.engine.commit(attempt, self.options.isolation, &mut self.standing).await {
            Ok(Ended::Committed(point)) => {
                self.engine.stats.committed();
                let point = point.or(attempt.read_point).unwrap_or_default();
                tracing::debug!(%point, attempts = self.attempts, elapsed = ?self.standing.begun.elapsed(), "committed");
                for hook in attempt.on_commit.drain(..).chain(self.options.on_commit.drain(..)) {
                    hook(point);
                }
                if !self.standing.tickets.is_empty() {
                    Box::pin(hand_over(std::mem::take(&mut self.standing.tickets))).await;
                }
                self.release(&written).await;
                Ok(Next::Return)
            }
            Ok(Ended::Lost { .. }) if self.is_outlived() => Ok(self.again(std::mem::take(attempt))),
            Ok(Ended::Lost { key, primed }) => Box::pin(self.lost(std::mem::take(attempt), key, primed, true)).await,
            Err(error) => {
                if error.kind() != ErrorKind::OutcomeUnknown {
                    self.abort(std::mem::take(attempt));
                }
                Err(error.with_effort(self.attempts, self.standing.begun.elapsed()).during("dosync"))
            }
        }
    }

    /// Whether commits were lost since the attempt began.
    fn is_outlived(&self) -> bool {
        self.history != self.engine.losses.count()
    }

    /// Runs again after a loss, which is no loss to others.
    fn again(&mut self, attempt: Attempt) -> Next {
        tracing::debug!(attempt = self.attempts, "commits were lost meanwhile, running again");
        self.abort(attempt);
        Next::RunAgain
    }

    /// `wrote`: it wanted to change something, as far as it got.
    async fn lost(&mut self, attempt: Attempt, key: Key, primed: Option<Box<Primed>>, wrote: bool) -> Result<Next> {
        let keys: Vec<Key> = match self.losses + 1 >= ESCALATES {
            true => attempt.keys.iter().map(|(key, _)| key.clone()).collect(),
            false => Vec::new(),
        };
        self.standing.first = None;
        self.abort(attempt);
        self.engine.stats.conflict();
        tracing::debug!(%key, attempt = self.attempts, "lost to another transaction");
        self.primed = primed;
        self.losses += 1;
        self.longest = self.longest.max(self.began.map_or(Duration::ZERO, |began| began.elapsed()));
        if self.options.max_attempts.is_some_and(|limit| self.losses >= limit) {
            let error = Error::new(ErrorKind::Contended, "lost to other transactions as often as was allowed");
            return Err(self.gave_up(error.at(&key)));
        }
        if self.losses >= ESCALATES {
            self.lost_on = keys;
        }
        self.lost_on.retain(|other| *other != key);
        self.lost_on.push(key);
        // Nobody queues for the floor or reserves it: it is raised seldom, and every commit compares it.
        let contended: Vec<Key> = self.lost_on.iter().filter(|key| !key.is_bookkeeping()).cloned().collect();
        if contended.is_empty() {
            return match self.engine.yield_or_pause(self.losses - 1, self.standing.deadline).await {
                true => Ok(Next::RunAgain),
                false => Err(self.gave_up(self.timeout())),
            };
        }
        let (queues, reserves, races) = match self.engine.capabilities.in_process {
            true => (QUEUES_IN_MEMORY, RESERVES_IN_MEMORY, self.engine.precedence.lost()),
            false => (1, RESERVES, false),
        };
        if self.losses < queues {
            // Once with the entries that came with the conflict. If that is lost too, others race for the same.
            if self.losses > 1 && races {
                self.engine.backoff.stand_aside(wrote);
                // The entries are stale by then.
                self.primed = None;
                self.standing.first = if wrote { First::take(&self.engine.precedence) } else { None };
            }
            return Ok(Next::RunAgain);
        }
        if self.losses >= reserves && self.reserve(&contended).await? {
            return Ok(Next::RunAgain);
        }
        if self.queue(contended).await || self.engine.yield_or_pause(self.losses - 1, self.standing.deadline).await {
            return Ok(Next::RunAgain);
        }
        Err(self.gave_up(self.timeout()))
    }

    /// Asks all others to wait. `false`: they did not get to hear of it.
    async fn reserve(&mut self, keys: &[Key]) -> Result<bool> {
        let number = self.engine.sequence.fetch_add(1, Ordering::Relaxed);
        let holder = *self.standing.holder.get_or_insert(Holder { client: self.engine.client, number });
        tracing::debug!(losses = self.losses, "lost again and again, reserving");
        match self.engine.reserve(keys, holder, self.longest, self.standing.deadline).await {
            Ok(Some((reserved, primed))) => {
                reserved.join(&mut self.standing.reserved);
                self.primed = primed;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(self.gave_up(error)),
        }
    }

    /// Ends what it has reserved, but for what it has `written`: nobody is to wait for that any more.
    async fn release(&mut self, written: &[Key]) {
        if !self.standing.reserved.is_empty() {
            Box::pin(self.engine.release(&mut self.standing.reserved, written)).await;
        }
    }

    /// Waits in the queues of the keys that it lost on, and stays there. `false`: it stands at the head of them already,
    /// and others came first all the same.
    async fn queue(&mut self, keys: Vec<Key>) -> bool {
        let engine = self.engine;
        if hold_all(&self.standing.tickets, keys.iter()) {
            return false;
        }
        self.standing.tickets.clear();
        self.standing.tickets = engine.queue_for(keys, self.standing.deadline).await;
        let newest = self.primed.as_ref().map(|primed| primed.point);
        if let Some(left) = find_left(&self.standing.tickets, self.standing.begun, self.history)
            && newest.is_none_or(|point| point < left.point)
        {
            self.primed = Some(left.primed());
        }
        self.standing.deadline.is_none_or(|deadline| Instant::now() < deadline)
    }

    async fn wait(&mut self, attempt: Attempt) -> Result<Next> {
        tracing::debug!(attempt = self.attempts, "waiting for a change of what was read");
        let awaited = Awaited::of(&attempt);
        self.standing.tickets.clear();
        self.standing.first = None;
        self.abort(attempt);
        self.release(&[]).await;
        let changed = self.engine.wait_for_change(awaited, self.standing.deadline).await;
        match changed {
            Ok(primed) => {
                self.primed = primed;
                Ok(Next::RunAgain)
            }
            Err(error) => Err(self.gave_up(error)),
        }
    }

    /// The body was still running at the deadline.
    fn too_late(&self, tx: &TxInner) -> Error {
        self.abort(tx.end());
        self.gave_up(self.timeout())
    }

    /// Gives the whole transaction up.
    async fn end(&mut self, error: Error) -> Error {
        // Whatever it gave up waiting for, that was since the client is closed.
        let error = match self.engine.closing.check() {
            Err(closed) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {
                self.gave_up(closed.with_source(error))
            }
            _ => error,
        };
        if error.kind() != ErrorKind::OutcomeUnknown {
            self.abort_all();
        }
        self.release(&[]).await;
        error
    }

    /// Gives an attempt up.
    fn abort(&self, attempt: Attempt) {
        run_all(attempt.on_abort);
    }

    fn abort_all(&mut self) {
        let hooks = std::mem::take(&mut self.options.on_abort);
        run_all(hooks);
    }

    fn timeout(&self) -> Error {
        let error = Error::new(ErrorKind::Timeout, "the deadline passed before the transaction could commit");
        match self.lost_on.last() {
            Some(key) => error.at(key),
            None => error,
        }
    }

    fn gave_up(&self, error: Error) -> Error {
        error.with_effort(self.attempts, self.standing.begun.elapsed()).during("dosync")
    }
}

impl Drop for Runner<'_> {
    /// Nobody waits for what was dropped, or ended by a panic of its body.
    fn drop(&mut self) {
        let mut reserved = std::mem::take(&mut self.standing.reserved);
        if reserved.is_empty() {
            return;
        }
        let engine = Arc::clone(self.engine);
        self.engine.config.tasks.spawn(async move {
            let release = async {
                // What a close no longer waits for ends with its lease.
                if let Ok(_busy) = engine.closing.enter() {
                    engine.release(&mut reserved, &[]).await;
                }
            };
            engine.closing.last_work(release).await;
        });
    }
}

fn run_all(hooks: Vec<AbortHook>) {
    for hook in hooks {
        hook();
    }
}
