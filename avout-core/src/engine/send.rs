//! A commit on its way: its slot, the values that go before it, its one request, and what is left to be done after that.

use tokio::time::Instant;

use super::client::Engine;
use super::draft::Draft;
use super::floor::KnownFloor;
use super::handover::Landed;
use super::janitor::Garbage;
use super::job::{Job, Sent};
use super::request::Reply;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Commit, CommitOutcome, Committed, Conflict, Floor};

impl Engine {
    /// Sends a commit, and finds out what became of it.
    pub(super) async fn send(&self, job: &mut Job<'_>) -> Result<Sent> {
        let deadline = job.deadline;
        let mut lease = match self.capabilities.definite_replies {
            true => None,
            false => Some(Box::pin(self.lease(job.floor().epoch, deadline)).await?),
        };
        let Draft { commit, values, trimmed } = match self.draft(&job.plan, job.floor(), &mut lease) {
            Ok(draft) => draft,
            Err(error) => return Ok(Sent::Refused(error)),
        };
        let mut values = match self.write_values(values, deadline).await {
            // The next sequence number gives another version.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                tracing::warn!(%error, "a version is taken: two clients have one id");
                return Ok(Sent::NotCommitted(error));
            }
            written => written?,
        };
        // From here to the request there is no wait: whoever leaves before it is sent is not in it.
        if !job.interest.begin(|| lease.as_ref().map(|lease| lease.receipt(self.client, job.floor().epoch))) {
            return Ok(Sent::Deserted);
        }
        if !job.interest.is_wanted() {
            return Err(Error::new(ErrorKind::Unavailable, "nobody wants it any more, so it was not sent"));
        }
        values.keep();
        let slot = lease.as_ref().map(|lease| lease.key().clone());
        let sent = Some(Instant::now());
        let reply = self.request(&job.plan, &commit, lease, job.floor(), deadline).await;
        match &reply {
            Ok(Reply::Outcome(CommitOutcome::Committed(_)) | Reply::Resolved(_)) => {
                values.committed();
                self.clean_up(trimmed);
            }
            // A record may point at the values.
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
            _ => {
                values.discard();
                job.interest.undo();
            }
        }
        Ok(match reply? {
            Reply::Outcome(CommitOutcome::Committed(done)) => {
                self.remember(job, &commit, &done);
                Sent::Committed(Landed { sent, commit, done })
            }
            Reply::Outcome(CommitOutcome::Conflict(conflict)) => {
                self.learn_from(&conflict, deadline).await?;
                Sent::Conflict { conflict, slot }
            }
            Reply::Resolved(point) => Sent::Resolved(point),
            Reply::NotCommitted(reason) => Sent::NotCommitted(reason),
        })
    }

    /// The same where the coordinator answers at once, and there is nothing else to be done. `None`: it does not, or there is.
    /// `timed`: it is to be known when it was sent.
    pub(super) fn send_now(&self, job: &Job<'_>, timed: bool) -> Option<Sent> {
        let capabilities = &self.capabilities;
        let is_direct = capabilities.definite_replies
            && capabilities.unique_revisions
            && job.plan.writes.iter().all(|planned| planned.write.cell.inline);
        if !is_direct || self.closing.check().is_err() {
            return None;
        }
        let Draft { commit, values, trimmed } = match self.draft(&job.plan, job.floor(), &mut None) {
            Ok(draft) => draft,
            Err(error) => return Some(Sent::Refused(error)),
        };
        debug_assert!(values.is_empty(), "values in memory lie in their records");
        let sent = timed.then(Instant::now);
        let outcome = self.coordinator.commit_now(&commit)?;
        self.stats.commit();
        Some(match outcome {
            CommitOutcome::Committed(done) => {
                self.clean_up(trimmed);
                Sent::Committed(Landed { sent, commit, done })
            }
            CommitOutcome::Conflict(conflict) => Sent::Conflict { conflict, slot: None },
        })
    }

    /// Deletes values that nothing points at since a commit.
    fn clean_up(&self, trimmed: Vec<Garbage>) {
        for garbage in &trimmed {
            self.cache.forget(&garbage.key, &garbage.version);
        }
        self.janitor.delete(&self.config.tasks, trimmed);
    }

    /// Keeps what blind writes have left for the next ones. Where others write too it would only be in the way.
    fn remember(&self, job: &Job<'_>, commit: &Commit, done: &Committed) {
        if job.repeated == 0 && !self.capabilities.in_process {
            job.plan.remember((job.floor(), job.attempt.history), commit, done, &*self.coordinator);
        }
    }

    /// If the floor was raised, values of the attempt may be swept, and revisions that it saw come again.
    async fn learn_from(&self, conflict: &Conflict, deadline: Option<Instant>) -> Result<()> {
        let floor = Floor::key();
        let Some(at) = conflict.stale.iter().position(|key| *key == floor) else { return Ok(()) };
        match &conflict.fresh {
            Some(fresh) => self.floor.correct(&KnownFloor::from_entry(fresh.entries[at].as_ref())?),
            None => drop(Box::pin(self.refresh_floor(deadline)).await?),
        }
        Ok(())
    }
}
