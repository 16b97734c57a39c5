//! Reads, and commits that only check.

use std::vec;

use avout_core::protocol::{Commit, CommitOutcome, Committed, Floor, Key, Point, Snapshot};
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{Error as ZkError, MultiReadResult, MultiReader};

use super::entry::{entry, point};
use super::{Coordinator, OPERATION_BYTES};
use crate::schema::{Folder, decode};
use crate::wire::{Right, classify_at, unexpected};

/// How often a read is made again that met a znode newer than the clock.
const TORN_READS: u32 = 3;

impl Coordinator {
    pub(super) async fn snapshot(&self, keys: &[Key]) -> Result<Snapshot> {
        let paths: Vec<String> = keys.iter().map(|key| self.client.paths.record(key)).collect();
        self.check_size(paths.iter().map(|path| path.len() + OPERATION_BYTES).sum())?;
        for _ in 0..TORN_READS {
            let add = |reader: &mut MultiReader<'_>| paths.iter().try_for_each(|path| reader.add_get_data(path));
            let seen = self.client.read(add).await?;
            let (era, generation) = (seen.ground.era, seen.ground.generation);
            let snapshot = entries(keys, &paths, point(seen.clock.mzxid)?, seen.results, generation)?;
            if let Some(snapshot) = snapshot
                && self.client.history.observe(era, snapshot.point.number()).is_current()
            {
                return Ok(snapshot);
            }
        }
        let message =
            "znodes of the namespace are newer than its clock: they were written by something else than avout";
        Err(Error::new(ErrorKind::Corrupt, message))
    }

    /// A commit that writes nothing took effect where all was as it expects.
    pub(super) async fn check_alone(&self, commit: &Commit) -> Result<CommitOutcome> {
        let keys: Vec<Key> = commit.checks.iter().map(|check| check.key.clone()).collect();
        let now = self.snapshot(&keys).await?;
        let point = now.point;
        Ok(match commit.conflict_with(now) {
            Some(conflict) => CommitOutcome::Conflict(conflict),
            None => CommitOutcome::Committed(Committed { point, revisions: Vec::new() }),
        })
    }

    pub(super) async fn keys_under(&self, prefix: &Key) -> Result<Vec<Key>> {
        let paths = &self.client.paths;
        let buckets: Vec<String> = paths.buckets(Folder::Refs).collect();
        let add = |reader: &mut MultiReader<'_>| {
            reader.add_get_data(&paths.floor)?;
            buckets.iter().try_for_each(|bucket| reader.add_get_children(bucket))
        };
        let mut keys = Vec::new();
        for result in self.client.read(add).await?.results {
            match result {
                MultiReadResult::Data { data, .. } => keys.extend((!data.is_empty()).then(Floor::key)),
                MultiReadResult::Children { children } => keys.extend(children.iter().filter_map(|name| decode(name))),
                MultiReadResult::Error { err } => {
                    return Err(classify_at(err, Right::Read, &paths.folder(Folder::Refs)));
                }
                _ => return Err(unexpected()),
            }
        }
        keys.retain(|key| key.is_under(prefix));
        keys.sort_unstable();
        Ok(keys)
    }
}

/// The entries in the answer to a multi-read of `keys`; `None`: one is newer than the clock.
fn entries(
    keys: &[Key],
    paths: &[String],
    clock: Point,
    mut results: vec::IntoIter<MultiReadResult>,
    generation: u32,
) -> Result<Option<Snapshot>> {
    let mut entries = Vec::with_capacity(keys.len());
    for (key, path) in keys.iter().zip(paths) {
        let entry = match results.next() {
            Some(MultiReadResult::Data { data, stat }) => {
                entry(data, &stat, generation).map_err(|error| error.at(key))?
            }
            // The floor's znode is always there.
            Some(MultiReadResult::Error { err: ZkError::NoNode }) if *key != Floor::key() => None,
            Some(MultiReadResult::Error { err }) => return Err(classify_at(err, Right::Read, path).at(key)),
            _ => return Err(unexpected()),
        };
        if entry.as_ref().is_some_and(|entry| entry.point > clock) {
            return Ok(None);
        }
        entries.push(entry);
    }
    Ok(Some(Snapshot { point: clock, entries }))
}
