//! One request to the coordinator, and what became of it when no reply comes.

use tokio::time::Instant;

use super::client::Engine;
use super::floor::KnownFloor;
use super::plan::CommitPlan;
use super::slots::Lease;
use super::time::GRACE;
use crate::backend::time::timeout_at;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Commit, CommitOutcome, Conflict, Point, Receipt, Resolution};

/// The outcome of one commit request, with lost replies already found out.
pub(super) enum Reply {
    Outcome(CommitOutcome),
    /// It took effect, as a lost reply's slot told.
    Resolved(Point),
    /// It did not take effect, for this reason, and the same may be tried again.
    NotCommitted(Error),
}

impl Engine {
    /// Sends one commit and finds out its outcome, whatever becomes of the reply.
    pub(super) async fn request(
        &self,
        plan: &CommitPlan,
        commit: &Commit,
        mut lease: Option<Lease<'_>>,
        floor: &KnownFloor,
        deadline: Option<Instant>,
    ) -> Result<Reply> {
        let _busy = self.closing.enter()?;
        let late = deadline.map(|deadline| deadline + GRACE);
        if let Some(lease) = &mut lease {
            lease.sent(floor.epoch);
        }
        self.stats.commit();
        let begun = Instant::now();
        let request = self.until_closed(self.coordinator.commit(commit));
        let reply = match (&lease, late) {
            // A slot decides it if nobody answers in time.
            (Some(_), Some(late)) => timeout_at(late, request).await.unwrap_or_else(|_| Err(unknown_outcome())),
            // A definite reply comes in bounded time.
            _ => request.await,
        };
        match reply {
            Ok(outcome) => {
                self.backoff.measured(begun.elapsed());
                match lease {
                    Some(lease) => self.answered(plan, commit, outcome, lease, (floor, deadline)).await,
                    None => Ok(Reply::Outcome(outcome)),
                }
            }
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                tracing::warn!(%error, "the reply to a commit was lost, finding out");
                // As long again, if the reply itself was waited for till now.
                let late = late.map(|late| late.max(Instant::now() + GRACE));
                Box::pin(self.closing.last_work(self.find_out(error, lease, floor, late))).await
            }
            Err(error) => {
                if let Some(lease) = &mut lease {
                    lease.untouched();
                }
                match error.kind() {
                    ErrorKind::Unavailable => Ok(Reply::NotCommitted(error)),
                    _ => Err(error),
                }
            }
        }
    }

    /// What an answer says of a commit with a slot.
    async fn answered(
        &self,
        plan: &CommitPlan,
        commit: &Commit,
        outcome: CommitOutcome,
        mut lease: Lease<'_>,
        at: (&KnownFloor, Option<Instant>),
    ) -> Result<Reply> {
        match outcome {
            CommitOutcome::Committed(done) => {
                lease.committed(done.revisions.last().cloned().expect("the slot's put has a revision"));
                Ok(Reply::Outcome(CommitOutcome::Committed(done)))
            }
            // Somebody fenced it with a receipt, or a copy of the request came first: the slot tells.
            CommitOutcome::Conflict(conflict) if conflict.stale.contains(lease.key()) => {
                let decision = self.decide_conflict(plan, commit, conflict, lease, at);
                Box::pin(self.closing.last_work(decision)).await
            }
            CommitOutcome::Conflict(conflict) => {
                lease.untouched();
                Ok(Reply::Outcome(CommitOutcome::Conflict(conflict)))
            }
        }
    }

    /// What became of a commit that was answered with a conflict on its own slot: what else is in that is not known. If a copy of the
    /// request came first it took effect.
    async fn decide_conflict(
        &self,
        plan: &CommitPlan,
        commit: &Commit,
        conflict: Conflict,
        mut lease: Lease<'_>,
        (floor, deadline): (&KnownFloor, Option<Instant>),
    ) -> Result<Reply> {
        match self.decide(&mut lease, floor.epoch, deadline.map(|deadline| deadline + GRACE)).await {
            Ok(resolution) => Ok(resolved(resolution, None)),
            // It cannot be read now, or others use it, or it was retired. It is never ours again.
            Err(cause) => {
                let unknown =
                    unknown_outcome().with_receipt(lease.receipt(self.client, floor.epoch)).with_source(cause);
                lease.abandon();
                match self.is_refuted(plan, commit, deadline).await {
                    true => Ok(Reply::Outcome(CommitOutcome::Conflict(conflict))),
                    false => Err(unknown),
                }
            }
        }
    }

    /// A request that was sent: what it did is not known if a close can wait for it no longer.
    async fn until_closed<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let reply = self.closing.last_work(self.closing.race(request)).await;
        reply.unwrap_or_else(|_| Err(unknown_outcome()))
    }

    async fn find_out(
        &self,
        error: Error,
        lease: Option<Lease<'_>>,
        floor: &KnownFloor,
        late: Option<Instant>,
    ) -> Result<Reply> {
        let resolution = match lease {
            Some(mut lease) => match self.decide(&mut lease, floor.epoch, late).await {
                Ok(resolution) => resolution,
                Err(cause) => {
                    let receipt = lease.receipt(self.client, floor.epoch);
                    lease.abandon();
                    return Err(error.with_receipt(receipt).with_source(cause));
                }
            },
            None => {
                let Some(Receipt::Native(receipt)) = error.receipt() else {
                    return Err(error);
                };
                match self.until(late, || self.coordinator.resolve(receipt)).await {
                    Ok(resolution) => resolution,
                    Err(_) => return Err(error),
                }
            }
        };
        Ok(resolved(resolution, Some(error)))
    }
}

fn resolved(resolution: Resolution, cause: Option<Error>) -> Reply {
    match resolution {
        Resolution::Committed(point) => Reply::Resolved(point),
        Resolution::NotCommitted => {
            let error = Error::new(ErrorKind::Unavailable, "the commit was lost on the way, and is fenced off");
            Reply::NotCommitted(cause.into_iter().fold(error, Error::with_source))
        }
    }
}

fn unknown_outcome() -> Error {
    Error::new(
        ErrorKind::OutcomeUnknown,
        "the commit was sent and its reply lost, and the store stayed out of reach: it may have taken effect, ask with the receipt",
    )
}
