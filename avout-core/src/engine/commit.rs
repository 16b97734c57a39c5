//! The way of a commit from an attempt to the coordinator and back. See `docs/protocol.md#committing`.

use std::sync::Arc;

use super::attempt::Attempt;
use super::client::Engine;
use super::contention::Turn;
use super::job::{Ended, Interest, Job, Step};
use super::options::Isolation;
use super::plan::CommitPlan;
use crate::error::Result;

impl Engine {
    /// Commits what an attempt wrote.
    ///
    /// # Cancel safety
    /// Dropped before the request is sent, nothing happens, and values in stores are deleted in the background. Dropped
    /// after, the commit takes effect or not as a whole; its slot is settled before it is used again.
    pub(super) async fn commit(
        self: &Arc<Self>,
        attempt: &mut Attempt,
        isolation: Isolation,
        interest: &Interest,
        turn: &mut Turn,
    ) -> Result<Ended> {
        let plan = match CommitPlan::of(attempt, isolation) {
            Ok(plan) if plan.writes.is_empty() => return Ok(Ended::Committed(None)),
            Ok(plan) => self.check_writes().map(|()| plan)?,
            Err(key) => return Ok(Ended::Lost { key, primed: None }),
        };
        let floor = attempt.floor.take().or_else(|| self.floor.get());
        let mut job = Job::new(attempt, plan, isolation, &self.capabilities, floor, turn.deadline, interest);
        if let Some(ended) = self.commit_now(&mut job, turn) {
            return Ok(ended);
        }
        self.commit_together(job, turn).await
    }

    /// Makes a commit step by step. It ends when the coordinator has committed it, another transaction came first, or there is an
    /// error.
    ///
    /// What is done seldom, or takes long anyway, waits in a box of its own.
    pub(super) async fn drive(&self, job: &mut Job<'_>, turn: &mut Turn) -> Result<Ended> {
        loop {
            match job.step() {
                Step::GiveWay(obstacle) if turn.may_pass(self, job, obstacle) => job.go_on(obstacle),
                Step::GiveWay(obstacle) => Box::pin(turn.before_commit(self, job, obstacle)).await?,
                Step::Bases { keys, at } => {
                    let read = Box::pin(self.read_with_floor(&keys, at, job.deadline)).await;
                    job.bases(&keys, at, read)?;
                }
                Step::Values => {
                    let made = Box::pin(self.final_values(&mut job.plan, job.deadline)).await;
                    job.values(made);
                }
                Step::Recheck => return Box::pin(self.recheck(job)).await,
                Step::Send => {
                    let sent = Box::pin(self.send(job)).await?;
                    job.sent(sent);
                }
                Step::Done(ended) => {
                    turn.tell_next(self, job);
                    return Ok(ended);
                }
            }
        }
    }

    /// The same where the coordinator answers at once. `None`: there is something to wait for, and [`drive`](Self::drive) goes on
    /// with the same job.
    fn commit_now(&self, job: &mut Job<'_>, turn: &Turn) -> Option<Ended> {
        if !self.capabilities.in_process {
            return None;
        }
        loop {
            match job.step() {
                Step::GiveWay(obstacle) if turn.may_pass(self, job, obstacle) => job.go_on(obstacle),
                Step::Send => job.sent(self.send_now(job, turn.is_awaited())?),
                Step::Done(ended) => {
                    turn.tell_next(self, job);
                    return Some(ended);
                }
                Step::GiveWay(_) | Step::Bases { .. } | Step::Values | Step::Recheck => return None,
            }
        }
    }
}
