use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;

use tokio::sync::{Notify, watch};

use crate::error::{Error, ErrorKind, Result};

tokio::task_local! {
    /// Set while work is polled that a client may still do while it is being closed.
    static LAST_WORK: ();
}

/// How far a client is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// Nothing begins any more. What was sent is waited for, and what is held is given back.
    Closing,
    /// Nothing is waited for any more.
    Ended,
    /// The close is over.
    Over,
}

/// Whether a client is closed. Every request passes here, and so does every wait.
pub(crate) struct Closing {
    /// The process that opened the client, if it holds what does not survive a fork.
    process: Option<u32>,
    phase: watch::Sender<Phase>,
    /// Whether the phase is not `Open`: all that an operation looks at until then.
    begun: AtomicBool,
    /// How much is under way that a close waits for.
    busy: AtomicUsize,
    /// Told when that may be nothing.
    idle: Notify,
}

/// Something is under way that a close waits for.
pub(crate) struct Busy<'a>(&'a Closing);

/// Ends the close when it is dropped, wherever that was left.
pub(crate) struct Last<'a>(pub(crate) &'a Closing);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        // It is counted down before the look, and a close begins before it looks: one of the two sees the other.
        if self.0.busy.fetch_sub(1, Ordering::SeqCst) == 1 && self.0.has_begun() {
            self.0.idle.notify_waiters();
        }
    }
}

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.phase.send_replace(Phase::Over);
    }
}

impl Closing {
    pub(crate) fn new(process: Option<u32>) -> Self {
        Self {
            process,
            phase: watch::Sender::new(Phase::Open),
            begun: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// Whether this is the child of a fork, and the client is its parent's.
    pub(crate) fn is_forked(&self) -> bool {
        self.process.is_some_and(|process| std::process::id() != process)
    }

    /// Refuses what begins after the client was closed, or in the child of a fork.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::new(ErrorKind::Misuse, "it was opened before a fork; open it again in the child"));
        }
        if !self.begun.load(Ordering::SeqCst) || *self.phase.borrow() < self.limit() { Ok(()) } else { Err(closed()) }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::SeqCst)
    }

    /// Waits for something that may be dropped at any time, until the client is closed.
    pub(crate) async fn race<T>(&self, wait: impl Future<Output = T>) -> Result<T> {
        self.check()?;
        let mut wait = pin!(wait);
        // Where there is nothing to wait for the rest would cost more than the request.
        let first = poll_fn(|context| match wait.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(output) = first.await {
            return Ok(output);
        }
        tokio::select! {
            biased;
            output = wait => Ok(output),
            () = self.begins() => Err(closed()),
        }
    }

    /// Waits until whoever asks has to end.
    pub(crate) async fn begins(&self) {
        let limit = self.limit();
        // The sender is in `self`, so it is not gone.
        let _ = self.phase.subscribe().wait_for(|phase| *phase >= limit).await;
    }

    /// Does work that belongs to closing, or that must not be left half-way: it goes on while the client is being closed.
    pub(crate) async fn last_work<T>(&self, work: impl Future<Output = T>) -> T {
        LAST_WORK.scope((), work).await
    }

    /// Has a close wait until the answer is dropped. Refused after a close, as [`check`](Self::check) does.
    pub(crate) fn enter(&self) -> Result<Busy<'_>> {
        self.busy.fetch_add(1, Ordering::SeqCst);
        let busy = Busy(self);
        // After it was counted: a close either sees it or is seen.
        self.check().map(|()| busy)
    }

    /// Begins to close. `false`: that was done before.
    pub(crate) fn begin(&self) -> bool {
        let first = !self.begun.swap(true, Ordering::SeqCst);
        if first {
            self.phase.send_modify(|phase| *phase = Phase::Closing.max(*phase));
        }
        first
    }

    /// Waits until nothing is under way any more.
    pub(crate) async fn idle(&self) {
        loop {
            let mut told = pin!(self.idle.notified());
            // From now on it hears of what it does not see below.
            told.as_mut().enable();
            if self.busy.load(Ordering::SeqCst) == 0 {
                return;
            }
            told.await;
        }
    }

    /// Ends what is still under way.
    pub(crate) fn end(&self) {
        self.phase.send_modify(|phase| *phase = Phase::Ended.max(*phase));
    }

    /// Waits until the close is over.
    pub(crate) async fn over(&self) {
        // The sender is in `self`, so it is not gone.
        let _ = self.phase.subscribe().wait_for(|phase| *phase == Phase::Over).await;
    }

    /// The first phase in which whoever asks has to end.
    fn limit(&self) -> Phase {
        if LAST_WORK.try_with(|()| ()).is_ok() { Phase::Ended } else { Phase::Closing }
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In another process than the one that opened the client nothing begins.
    #[tokio::test]
    async fn nothing_begins_after_a_fork() {
        let own = Closing::new(Some(std::process::id()));
        assert!(own.check().is_ok() && own.enter().is_ok() && !own.is_forked());
        let forked = Closing::new(Some(std::process::id() + 1));
        let refused = [forked.check(), forked.enter().map(drop), forked.race(async {}).await];
        assert!(
            forked.is_forked()
                && refused.iter().all(|told| told.as_ref().is_err_and(|e| e.kind() == ErrorKind::Misuse))
        );
        forked.idle().await;
    }

    /// Once a close has begun nothing else begins, waits end, and its own work goes on until it has ended.
    #[tokio::test]
    async fn only_its_own_work_goes_on() {
        let closing = Closing::new(None);
        let busy = closing.enter().expect("it is open");
        assert!(closing.race(async { 1 }).await.is_ok());
        assert!(closing.begin() && !closing.begin());
        assert!(closing.check().is_err() && closing.enter().is_err());
        assert!(closing.race(std::future::pending::<()>()).await.is_err());
        closing.last_work(async { assert!(closing.check().is_ok() && closing.race(async {}).await.is_ok()) }).await;
        drop(busy);
        closing.idle().await;
        closing.end();
        closing.last_work(async { assert!(closing.race(std::future::pending::<()>()).await.is_err()) }).await;
        drop(Last(&closing));
        closing.over().await;
    }
}
