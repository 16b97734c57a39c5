use super::found::AT_ONCE;
use super::found::Found;
use super::look::Look;
use super::report::SweepReport;
use crate::engine::client::Engine;
use crate::error::ErrorKind;
use crate::protocol::{Commit, CommitOutcome, Delete, Put, Turn};

impl Engine {
    /// Removes some of the found records for good. Records that cannot be removed now are left.
    ///
    /// Each removal expects the record as it was at the look, and the turn as the one before left it.
    ///
    /// # Cancel safety
    /// Safe: a removal in flight takes effect as if it had been waited for, or not at all.
    pub(super) async fn remove_some(&self, look: &mut Look, report: &mut SweepReport) {
        let count = AT_ONCE.min(self.capabilities.max_keys.saturating_sub(1)).max(1);
        let mut some: Vec<Found> = look.found.drain(..look.found.len().min(count)).collect();
        while !some.is_empty() {
            let commit = self.removal(look, &some);
            let commits = self.until_or(self.deadline(), ErrorKind::OutcomeUnknown, || {
                self.stats.commit();
                self.coordinator.commit(&commit)
            });
            let why = match commits.await {
                Ok(CommitOutcome::Committed(done)) => {
                    if let Some(revision) = done.revisions.into_iter().next() {
                        look.turn.turn.number += 1;
                        look.turn.revision = Some(revision);
                    }
                    let slots = some.iter().filter(|found| found.slot).count();
                    let sessions = some.iter().filter(|found| found.session).count();
                    report.slots += slots as u64;
                    report.sessions += sessions as u64;
                    report.tombstones += (some.len() - slots - sessions) as u64;
                    return;
                }
                Ok(CommitOutcome::Conflict(conflict)) if !conflict.stale.contains(&Turn::key()) => {
                    let before = some.len();
                    // In use again, or removed by another sweep.
                    some.retain(|found| !conflict.stale.contains(&found.key));
                    if some.len() < before {
                        continue;
                    }
                    "the coordinator refused it, and did not say why".to_owned()
                }
                Ok(CommitOutcome::Conflict(_)) => "another sweep removes records".to_owned(),
                // It may still take effect. A next removal that expects the same turn would then fail.
                Err(error) => error.to_string(),
            };
            report.skip(format!("{} records", some.len() + look.found.len()), why);
            look.found.clear();
            return;
        }
    }

    fn removal(&self, look: &Look, some: &[Found]) -> Commit {
        let delete = |found: &Found| Delete { key: found.key.clone(), revision: found.revision.clone() };
        let mut commit = Commit { deletes: some.iter().map(delete).collect(), ..Commit::default() };
        if self.takes_turns() {
            let next = Turn { number: look.turn.turn.number + 1 };
            let (revision, record) = (look.turn.revision.clone(), next.to_record().into());
            commit.puts.push(Put { key: Turn::key(), revision, record });
        }
        commit
    }
}
