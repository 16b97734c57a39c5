use crate::protocol::{Key, Revision};

/// A record that may be removed once the floor is raised, as it was.
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) revision: Revision,
    pub(super) slot: bool,
    /// The record of a session that ended, or a seat of it.
    pub(super) session: bool,
}
