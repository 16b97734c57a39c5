//! How slots decide what became of commits whose replies were lost.

use tokio::time::Instant;

use super::client::Engine;
use super::slots::Lease;
use super::time::with_deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{
    Check, Commit, CommitOutcome, Floor, Key, Put, Receipt, Resolution, Revision, SlotDecision, SlotState,
};

/// A decided slot: the commit's outcome, and the slot's revision now.
struct Settled {
    resolution: Resolution,
    revision: Revision,
}

impl Engine {
    /// A slot for a commit under the floor's `epoch`, with no commit open in it.
    ///
    /// A slot serves one epoch only. One of an earlier epoch may be retired, and where revisions come again a fence would then
    /// make it anew with the revision that the commit expects, which would take effect after all.
    pub(super) async fn lease(&self, epoch: u64, deadline: Option<Instant>) -> Result<Lease<'_>> {
        loop {
            let mut lease = self.slots.take();
            let slot = lease.slot_mut();
            if slot.revision.is_none() && slot.sequence == 0 {
                slot.key = SlotState::key(self.client, slot.number);
                slot.epoch = epoch;
                slot.history = self.losses.count();
            }
            // Its record may be gone, or say of its last commit what was true in a history that is over.
            if slot.history != self.losses.count() {
                lease.abandon();
                continue;
            }
            if slot.epoch != epoch {
                lease.abandon();
                continue;
            }
            let Some(epoch) = slot.open else {
                return Ok(lease);
            };
            slot.doubted = true;
            let settling = self.until(deadline, || self.settle(lease.number(), lease.slot().sequence, epoch));
            match Box::pin(settling).await {
                Ok(settled) => {
                    lease.committed(settled.revision);
                    return Ok(lease);
                }
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                // It cannot be told any more: another slot will do.
                Err(error) => {
                    tracing::debug!(%error, "a slot is given up");
                    lease.abandon();
                }
            }
        }
    }

    /// Decides the commit that was sent with this lease, until the deadline.
    pub(super) async fn decide(
        &self,
        lease: &mut Lease<'_>,
        epoch: u64,
        deadline: Option<Instant>,
    ) -> Result<Resolution> {
        let (number, sequence) = (lease.number(), lease.slot().sequence);
        lease.slot_mut().doubted = true;
        let settled = self.until(deadline, || self.settle(number, sequence, epoch)).await?;
        lease.committed(settled.revision);
        self.stats.resolved();
        Ok(settled.resolution)
    }

    /// Decides a commit by its receipt.
    pub(crate) async fn resolve(&self, receipt: &Receipt) -> Result<Resolution> {
        let deadline = self.deadline();
        let done = match receipt {
            Receipt::Native(bytes) => self.until(deadline, || self.coordinator.resolve(bytes)).await,
            Receipt::Slot { client, slot, sequence, epoch } => self
                .until(deadline, || self.settle_of(SlotState::key(*client, *slot), *sequence, *epoch))
                .await
                .map(|settled| settled.resolution),
        };
        done.map_err(|error| error.during("resolve"))
    }

    /// Removes the slots that this client needs no more. One in which a reply was lost is left to the sweeper: its first
    /// commit expected the key to be absent, and may come late.
    pub(super) async fn give_back_slots(&self) {
        let mut slots = self.slots.take_answered();
        while !slots.is_empty() {
            let some = slots.split_off(slots.len() - slots.len().min(self.capabilities.max_keys.max(1)));
            let commit = Commit { deletes: some, ..Commit::default() };
            self.stats.commit();
            // What fails is left to the sweeper too.
            match with_deadline(self.deadline(), self.coordinator.commit(&commit).as_mut()).await {
                Ok(Ok(CommitOutcome::Committed(_))) => {}
                Ok(Ok(CommitOutcome::Conflict(_))) => tracing::debug!("slots are retired already"),
                Ok(Err(error)) => return tracing::debug!(%error, "slots are left"),
                Err(_) => return tracing::debug!("no answer came by the deadline, slots are left"),
            }
        }
    }

    async fn settle(&self, slot: u32, sequence: u64, epoch: u64) -> Result<Settled> {
        self.settle_of(SlotState::key(self.client, slot), sequence, epoch).await
    }

    /// Looks at the slot, and fences it if the commit may still arrive. Of the commit's put and the
    /// fence's, which expect the same revision, one comes first and the other one fails for ever.
    ///
    /// Each round sees a later state of the slot, and only the open commit and fences of it write there: two rounds
    /// are enough, but for more lost replies.
    async fn settle_of(&self, key: Key, sequence: u64, epoch: u64) -> Result<Settled> {
        loop {
            let snapshot = self.coordinator.read(&[key.clone(), Floor::key()], None).await?;
            let [slot, floor] = &snapshot.entries[..] else {
                return Err(Error::new(ErrorKind::Corrupt, "a read of two keys gave another number of entries"));
            };
            let decision = SlotState::decide(slot.as_ref(), floor.as_ref(), sequence, epoch);
            match decision.map_err(|error| error.at(&key))? {
                SlotDecision::Known(resolution) => {
                    let revision = slot.as_ref().expect("what is known is read from the slot").revision.clone();
                    return Ok(Settled { resolution, revision });
                }
                SlotDecision::Lost => {
                    let message = "the slot that would tell the outcome was used again or retired since";
                    return Err(Error::new(ErrorKind::Unsupported, message).at(&key));
                }
                SlotDecision::Fence => {
                    let fence = SlotState { sequence, committed: false };
                    let commit = Commit {
                        // A retired slot would look like one that was never written.
                        checks: vec![Check {
                            key: Floor::key(),
                            revision: floor.as_ref().map(|entry| entry.revision.clone()),
                        }],
                        puts: vec![Put {
                            key: key.clone(),
                            revision: slot.as_ref().map(|entry| entry.revision.clone()),
                            record: fence.to_record().into(),
                        }],
                        deletes: Vec::new(),
                    };
                    match self.coordinator.commit(&commit).await {
                        Ok(CommitOutcome::Committed(mut done)) => {
                            let revision = done.revisions.pop().unwrap_or_else(|| Revision::number(0));
                            return Ok(Settled { resolution: Resolution::NotCommitted, revision });
                        }
                        Ok(CommitOutcome::Conflict(_)) => {}
                        // The slot tells of the fence's own outcome too, the next time.
                        Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                            let message = "the reply to a fence was lost";
                            return Err(Error::new(ErrorKind::Unavailable, message).with_source(error));
                        }
                        Err(error) => return Err(error),
                    }
                }
            }
        }
    }
}
