//! Mistakes that tests have a client make, to see that they are found. Without the feature `planted-bugs` none can be chosen.

use super::Config;
use super::attempt::Action;
use super::plan::Plan;

/// A mistake of the engine.
#[doc(hidden)]
#[cfg_attr(not(feature = "planted-bugs"), allow(unreachable_pub, reason = "it is public with the feature"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// An entry is used that is newer than the read point, with no look at what was read before.
    SnapshotNotExtended,
    /// A key that was commuted and read is not checked.
    CommuteUnchecked,
}

/// Whether this client makes this mistake.
#[cfg(feature = "planted-bugs")]
pub(super) fn is(config: &Config, bug: Bug) -> bool {
    config.planted == Some(bug)
}

#[cfg(not(feature = "planted-bugs"))]
pub(super) const fn is(_: &Config, _: Bug) -> bool {
    false
}

impl Plan {
    /// Takes the check off all keys that were commuted.
    pub(super) fn uncheck_commutes(&mut self) {
        for planned in &mut self.writes {
            planned.soft |= matches!(planned.write.action, Action::Commute { .. });
        }
    }
}
