use std::time::Duration;

use tokio::time::Instant;

use super::floor::KnownFloor;
use super::prepare::unknown_outcome;
use super::slots::Lease;
use super::{Engine, failpoints};
use crate::backend::time::timeout_at;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Commit, CommitOutcome, Conflict, Point, Receipt, Resolution};

/// How long after the deadline a commit in flight is still waited for, and after that its outcome is looked for.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The outcome of one commit request, with lost replies already found out.
pub(super) enum Sent {
    Outcome(CommitOutcome),
    /// It took effect, as a lost reply's slot told.
    Resolved(Point),
    /// It did not take effect, for this reason, and the same may be tried again.
    NotCommitted(Error),
    /// The answer was a conflict on its slot, and what else is in that is not known. If a copy of the request came first it took
    /// effect.
    Undecided(Conflict, Error),
}

impl Engine {
    /// The outcome of a commit that needs no slot, where the coordinator answers at once.
    pub(super) fn send_now(&self, commit: &Commit) -> Option<CommitOutcome> {
        self.closing.check().ok()?;
        let outcome = self.coordinator.commit_now(commit)?;
        self.stats.commit();
        Some(outcome)
    }

    /// Sends one commit and finds out its outcome, whatever becomes of the reply.
    pub(super) async fn send(
        &self,
        commit: &Commit,
        mut lease: Option<Lease<'_>>,
        floor: &KnownFloor,
        deadline: Option<Instant>,
    ) -> Result<Sent> {
        let _busy = self.closing.enter()?;
        let late = deadline.map(|deadline| deadline + GRACE);
        if let Some(lease) = &mut lease {
            lease.sent(floor.epoch);
        }
        self.stats.commit();
        let begun = Instant::now();
        let request = self.until_closed(failpoints::in_flight(self.coordinator.commit(commit)));
        let reply = match (&lease, late) {
            // A slot decides it if nobody answers in time.
            (Some(_), Some(late)) => timeout_at(late, request).await.unwrap_or_else(|_| Err(unknown_outcome(None))),
            // A definite reply comes in bounded time.
            _ => request.await,
        };
        match reply {
            Ok(outcome) => {
                self.backoff.measured(begun.elapsed());
                let Some(mut lease) = lease else { return Ok(Sent::Outcome(outcome)) };
                match outcome {
                    CommitOutcome::Committed(done) => {
                        lease.committed(done.revisions.last().cloned().expect("the slot's put has a revision"));
                        Ok(Sent::Outcome(CommitOutcome::Committed(done)))
                    }
                    // Somebody fenced it with a receipt, or a copy of the request came first: the slot tells.
                    CommitOutcome::Conflict(conflict) if conflict.stale.contains(lease.key()) => {
                        Box::pin(self.closing.last_work(self.decide_conflict(conflict, lease, floor, late))).await
                    }
                    CommitOutcome::Conflict(conflict) => {
                        lease.untouched();
                        Ok(Sent::Outcome(CommitOutcome::Conflict(conflict)))
                    }
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
                    ErrorKind::Unavailable => Ok(Sent::NotCommitted(error)),
                    _ => Err(error),
                }
            }
        }
    }

    /// What became of a commit that was answered with a conflict on its own slot.
    async fn decide_conflict(
        &self,
        conflict: Conflict,
        mut lease: Lease<'_>,
        floor: &KnownFloor,
        late: Option<Instant>,
    ) -> Result<Sent> {
        match self.decide(&mut lease, floor.epoch, late).await {
            Ok(resolution) => Ok(resolved(resolution, None)),
            // It cannot be read now, or others use it, or it was retired. It is never ours again.
            Err(cause) => {
                let unknown = unknown_outcome(None).with_receipt(lease.receipt(self, floor.epoch)).with_source(cause);
                lease.abandon();
                Ok(Sent::Undecided(conflict, unknown))
            }
        }
    }

    /// A request that was sent: what it did is not known if a close can wait for it no longer.
    async fn until_closed<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let reply = self.closing.last_work(self.closing.race(request)).await;
        reply.unwrap_or_else(|_| Err(unknown_outcome(None)))
    }

    async fn find_out(
        &self,
        error: Error,
        lease: Option<Lease<'_>>,
        floor: &KnownFloor,
        late: Option<Instant>,
    ) -> Result<Sent> {
        let resolution = match lease {
            Some(mut lease) => match self.decide(&mut lease, floor.epoch, late).await {
                Ok(resolution) => resolution,
                Err(cause) => {
                    let receipt = lease.receipt(self, floor.epoch);
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

fn resolved(resolution: Resolution, cause: Option<Error>) -> Sent {
    match resolution {
        Resolution::Committed(point) => Sent::Resolved(point),
        Resolution::NotCommitted => {
            let error = Error::new(ErrorKind::Unavailable, "the commit was lost on the way, and is fenced off");
            Sent::NotCommitted(cause.into_iter().fold(error, Error::with_source))
        }
    }
}
