//! The values that a commit makes of what is there now.

use std::sync::Arc;

use tokio::time::Instant;

use super::attempt::Action;
use super::cell::absent;
use super::client::Engine;
use super::plan::CommitPlan;
use super::read::{Loaded, lost_value};
use crate::error::Result;
use crate::protocol::{Key, Payload, Shared};

impl Engine {
    /// Makes the values to be written: applies commuted functions to what is there now. Gives the key on which the attempt is lost:
    /// others replace its value faster than it can be read.
    pub(super) async fn final_values(&self, plan: &mut CommitPlan, deadline: Option<Instant>) -> Result<Option<Key>> {
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
                    Loaded::Absent => return Err(absent(&cell.key)),
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

/// Applies commuted functions to the current value.
fn apply(action: &Action, current: &Shared) -> Result<Shared> {
    let Action::Commute { functions, .. } = action else {
        return Ok(Arc::clone(current));
    };
    functions.iter().try_fold(Arc::clone(current), |value, function| function(&value))
}
