use super::look::Look;
use crate::backend::time::sleep;
use crate::engine::client::Engine;
use crate::engine::floor::KnownFloor;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Check, Commit, CommitOutcome, Floor, Put, Turn};

/// How raising the floor ended.
pub(super) enum Raised {
    /// It is raised, perhaps by this sweep.
    Own(KnownFloor),
    /// It was raised since the look, by another sweep.
    Others(KnownFloor),
    /// Another sweep has removed records since the look.
    Not,
}

/// How often to send a raise whose reply is lost.
const TRIES: u32 = 16;

impl Engine {
    /// Raises the floor by one epoch, if it and the turn are as they were at the look.
    ///
    /// # Cancel safety
    /// Safe: raising the floor without need makes some attempts run again.
    pub(super) async fn raise(&self, look: &Look) -> Result<Raised> {
        let floor = Floor { epoch: look.floor.epoch + 1 };
        let mut commit = Commit::default();
        commit.puts.push(Put {
            key: Floor::key(),
            revision: look.floor.revision.clone(),
            record: floor.to_record().into(),
        });
        if self.takes_turns() {
            commit.checks.push(Check { key: Turn::key(), revision: look.turn.revision.clone() });
        }
        for tries in 0..TRIES {
            let deadline = self.deadline();
            let commits = self.until_or(deadline, ErrorKind::OutcomeUnknown, || {
                self.stats.commit();
                self.coordinator.commit(&commit)
            });
            let conflict = match commits.await {
                Ok(CommitOutcome::Committed(_)) => false,
                Ok(CommitOutcome::Conflict(_)) => true,
                // It expects a revision of the floor, so it takes effect once, however often it is sent.
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                    tracing::debug!(%error, "the reply to a raise of the floor was lost, looking");
                    false
                }
                Err(error) => return Err(error),
            };
            let now = self.refresh_floor(self.deadline()).await?;
            match now.epoch > look.floor.epoch {
                true if conflict => return Ok(Raised::Others(now)),
                true => return Ok(Raised::Own(now)),
                false if conflict => return Ok(Raised::Not),
                false => sleep(self.backoff.outage(tries)).await,
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the floor could not be raised: replies are lost again and again"))
    }

    /// Whether the revision of a removed record may come again. If so removals take turns.
    pub(super) fn takes_turns(&self) -> bool {
        !self.capabilities.unique_revisions
    }
}
