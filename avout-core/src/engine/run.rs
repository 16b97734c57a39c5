//! The loop over the attempts of a transaction: what follows each, and which hooks are called.

use std::pin::pin;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;

use super::attempt::{AbortHook, Attempt, Phase, Primed};
use super::client::Engine;
use super::contention::{Loss, Turn};
use super::job::{Ended, Interest};
use super::nested::{in_body, refuse_nested};
use super::options::Options;
use super::time::{deadline, with_deadline};
use super::tx::TxInner;
use super::wait::Awaited;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Key;

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
            with_deadline(runner.turn.deadline, body).await
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

/// What follows an attempt.
enum Next {
    Return,
    RunAgain,
}

/// The part of a run that does not depend on types.
struct Runner<'a> {
    engine: &'a Arc<Engine>,
    options: Options,
    interest: Interest,
    turn: Turn,
    attempts: u32,
    primed: Option<Box<Primed>>,
    /// How many losses its stores had had when the last attempt began.
    history: u64,
}

impl<'a> Runner<'a> {
    fn new(engine: &'a Arc<Engine>, mut options: Options) -> Self {
        let begun = Instant::now();
        let turn = Turn::new(begun, deadline(begun, options.deadline));
        let interest = Interest { wanted: options.wanted.take(), merged: None };
        Self { engine, options, interest, turn, attempts: 0, primed: None, history: engine.losses.count() }
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
        self.turn.attempt();
        self.engine.stats.attempt();
        tracing::trace!(attempt = self.attempts, "running the body");
        Arc::new(TxInner {
            engine: Arc::clone(self.engine),
            deadline: self.turn.deadline,
            begun: self.turn.begun,
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
                abort(attempt);
                self.give_up();
                self.turn.release(self.engine, &[]).await;
                Ok(Next::Return)
            }
            Phase::Running | Phase::Ended => self.commit(&mut attempt).await,
        }
    }

    async fn commit(&mut self, attempt: &mut Attempt) -> Result<Next> {
        let written = match self.turn.reserves() {
            true => attempt.written().cloned().collect(),
            false => Vec::new(),
        };
        match self.engine.commit(attempt, self.options.isolation, &self.interest, &mut self.turn).await {
            Ok(Ended::Committed(point)) => {
                self.engine.stats.committed();
                let point = point.or(attempt.read_point).unwrap_or_default();
                tracing::debug!(%point, attempts = self.attempts, elapsed = ?self.turn.begun.elapsed(), "committed");
                for hook in attempt.on_commit.drain(..).chain(self.options.on_commit.drain(..)) {
                    hook(point);
                }
                self.turn.after_commit(self.engine, &written).await;
                Ok(Next::Return)
            }
            Ok(Ended::Lost { .. }) if self.is_outlived() => Ok(self.again(std::mem::take(attempt))),
            Ok(Ended::Lost { key, primed }) => Box::pin(self.lost(std::mem::take(attempt), key, primed, true)).await,
            Err(error) => {
                if error.kind() != ErrorKind::OutcomeUnknown {
                    abort(std::mem::take(attempt));
                }
                Err(self.gave_up(error))
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
        abort(attempt);
        Next::RunAgain
    }

    /// `wrote`: it wanted to change something, as far as it got.
    async fn lost(&mut self, attempt: Attempt, key: Key, primed: Option<Box<Primed>>, wrote: bool) -> Result<Next> {
        let touched = match self.turn.escalates() {
            true => attempt.keys.iter().map(|(key, _)| key.clone()).collect(),
            false => Vec::new(),
        };
        abort(attempt);
        self.engine.stats.conflict();
        tracing::debug!(%key, attempt = self.attempts, "lost to another transaction");
        if self.options.max_attempts.is_some_and(|limit| self.turn.losses() + 1 >= limit) {
            let error = Error::new(ErrorKind::Contended, "lost to other transactions as often as was allowed");
            return Err(self.gave_up(error.at(&key)));
        }
        let loss = Loss { key, primed, touched, wrote };
        match self.turn.after_loss(self.engine, loss, self.history).await {
            Ok(primed) => {
                self.primed = primed;
                Ok(Next::RunAgain)
            }
            Err(error) => Err(self.gave_up(error)),
        }
    }

    async fn wait(&mut self, attempt: Attempt) -> Result<Next> {
        tracing::debug!(attempt = self.attempts, "waiting for a change of what was read");
        let awaited = Awaited::of(&attempt);
        abort(attempt);
        self.turn.stand_back(self.engine).await;
        match self.engine.wait_for_change(awaited, self.turn.deadline).await {
            Ok(primed) => {
                self.primed = primed;
                Ok(Next::RunAgain)
            }
            Err(error) => Err(self.gave_up(error)),
        }
    }

    /// The body was still running at the deadline.
    fn too_late(&self, tx: &TxInner) -> Error {
        abort(tx.end());
        self.gave_up(self.turn.timeout())
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
            self.give_up();
        }
        self.turn.release(self.engine, &[]).await;
        error
    }

    /// Calls the hooks of a transaction that is given up.
    fn give_up(&mut self) {
        run_all(std::mem::take(&mut self.options.on_abort));
    }

    fn gave_up(&self, error: Error) -> Error {
        error.with_effort(self.attempts, self.turn.begun.elapsed()).during("dosync")
    }
}

impl Drop for Runner<'_> {
    /// Nobody waits for what was dropped, or ended by a panic of its body.
    fn drop(&mut self) {
        let mut reserved = self.turn.take_reserved();
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

/// Ends an attempt that is given up, with all that its body has left in it: what comes next may take long.
fn abort(attempt: Attempt) {
    run_all(attempt.on_abort);
}

fn run_all(hooks: Vec<AbortHook>) {
    for hook in hooks {
        hook();
    }
}
