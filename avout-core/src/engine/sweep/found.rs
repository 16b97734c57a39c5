use crate::engine::client::Engine;
use crate::error::{ErrorKind, Result};
use crate::protocol::{Entry, Key, Revision};

/// A record, as it was found, that may be removed once the floor is raised.
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) revision: Revision,
    pub(super) slot: bool,
    /// The record of a session that ended, or a seat of it.
    pub(super) session: bool,
}

/// How many records or containers one step takes.
pub(super) const AT_ONCE: usize = 32;

impl Engine {
    /// The entries of a few keys. An entry that cannot be read hides no other.
    pub(super) async fn entries_of(&self, keys: &[Key]) -> Result<Vec<Result<Option<Entry>>>> {
        let whole = keys.len() <= self.capabilities.max_keys;
        match self.read(keys, self.deadline()).await {
            Ok(snapshot) => return Ok(snapshot.entries.into_iter().map(Ok).collect()),
            Err(error) if whole && !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::TooLarge) => {
                return Err(error);
            }
            Err(_) => {}
        }
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            entries.push(match self.entry(key, self.deadline()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
                entry => entry,
            });
        }
        Ok(entries)
    }
}
