//! The records that a commit replaces, and the values that it makes of what is in them.

use tokio::time::Instant;

use super::Engine;
use super::attempt::Action;
use super::floor::KnownFloor;
use super::options::Isolation;
use super::plan::Plan;
use super::prepare::apply;
use super::read::{Loaded, lost_value};
use crate::error::{ErrorKind, Result};
use crate::protocol::{Key, Payload, Point};

impl Engine {
    /// Takes away bases that were assumed and not read: an error may not rest on them. Whether there were any.
    pub(super) fn doubts_bases(&self, plan: &mut Plan) -> bool {
        plan.doubt_bases()
    }

    /// Reads the records that are written without having been read, and the floor along with them if it is not known. Gives the
    /// key on which the attempt is lost.
    pub(super) async fn fill_bases(
        &self,
        plan: &mut Plan,
        floor: &mut Option<KnownFloor>,
        read_point: Option<Point>,
        isolation: Isolation,
        deadline: Option<Instant>,
    ) -> Result<Option<Key>> {
        let keys = plan.keys_without_base();
        if !keys.is_empty() {
            // A base as of the read point is stale at the commit if the key was written since.
            let native = self.capabilities.native_snapshots && isolation == Isolation::Snapshot;
            let bound = plan.writes.iter().any(|planned| planned.base.is_none() && !planned.soft);
            let at = read_point.filter(|_| native && bound);
            let snapshot = match self.read_with_floor(&keys, at, deadline).await {
                Ok((snapshot, known)) => {
                    floor.get_or_insert(known);
                    snapshot
                }
                Err(error) if at.is_some() && error.kind() == ErrorKind::TooOld => return Ok(keys.into_iter().next()),
                Err(error) => return Err(error),
            };
            for (key, entry) in keys.iter().zip(snapshot.entries) {
                let planned = plan.write_of(key).expect("the plan's own keys were read");
                if isolation == Isolation::Snapshot
                    && !planned.soft
                    && entry
                        .as_ref()
                        .zip(read_point)
                        .is_some_and(|(entry, read_point)| entry.record.since(entry.point) > read_point)
                {
                    return Ok(Some(key.clone()));
                }
                planned.rebase(entry);
                // As of the read point, or not changed since. What is not there may have been removed since.
                planned.seen =
                    isolation == Isolation::Snapshot && !planned.soft && (at.is_some() || planned.base().is_some());
            }
        }
        Ok(None)
    }

    /// Makes the values to be written: applies commuted functions to what is there now. Gives the key on which the attempt is lost:
    /// others replace its value faster than it can be read.
    pub(super) async fn final_values(&self, plan: &mut Plan, deadline: Option<Instant>) -> Result<Option<Key>> {
        for planned in &mut plan.writes {
            if matches!(planned.write.action, Action::Destroy) {
                continue;
            }
            for tries in 0.. {
                if planned.computed.is_some() {
                    break;
                }
                let cell = &planned.write.cell;
                let payload = planned.base().map(|entry| &entry.record.payload);
                match self.load(cell, payload, deadline).await? {
                    Loaded::Value(current) => planned.computed = Some(apply(&planned.write.action, &current)?),
                    Loaded::Absent => return Err(super::read::absent(&cell.key)),
                    Loaded::Gone(..) if tries > 0 => return Ok(Some(cell.key.clone())),
                    Loaded::Gone(realm, version) => {
                        let entry = self.entry(&cell.key, deadline).await?;
                        let still = entry.as_ref().is_some_and(|entry| {
                            matches!(&entry.record.payload, Payload::Stored { version: now, .. } if *now == version)
                        });
                        if still {
                            return Err(lost_value(&cell.key, realm, &version));
                        }
                        planned.rebase(entry);
                        planned.check_base()?;
                    }
                }
            }
        }
        Ok(None)
    }
}
