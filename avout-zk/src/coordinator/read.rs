//! Reads, and commits that only check.

use avout_core::protocol::{Commit, CommitOutcome, Committed, Floor, Key, Point, Snapshot};
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{Error as ZkError, MultiReadResult, MultiReader};

use super::entry::{entry, point};
use super::{Coordinator, OPERATION_BYTES};
use crate::schema::{Folder, decode};
use crate::wire::{Ground, classify, unexpected};

/// How often a read is made again that met a znode newer than the clock.
const TORN_READS: u32 = 3;

impl Coordinator {
    pub(super) async fn snapshot(&self, keys: &[Key]) -> Result<Snapshot> {
        let paths: Vec<String> = keys.iter().map(|key| self.client.paths.record(key)).collect();
        self.check_size(paths.iter().map(|path| path.len() + OPERATION_BYTES).sum())?;
        for _ in 0..TORN_READS {
            let add = |reader: &mut MultiReader<'_>| paths.iter().try_for_each(|path| reader.add_get_data(path));
            let (ground, results) = self.multi_read(add).await?;
            let snapshot = self.entries(keys, results, ground.generation)?;
            if let Some(snapshot) = snapshot
                && self.client.history.observe(ground.era, snapshot.point.number()).is_current()
            {
                return Ok(snapshot);
            }
        }
        let message =
            "znodes of the namespace are newer than its clock: they were written by something else than avout";
        Err(Error::new(ErrorKind::Corrupt, message))
    }

    /// Reads the clock and then what `add` adds, as of one moment that is not before any commit acknowledged before the call.
    ///
    /// Both requests leave before the first answer comes. The server answers a session's requests in their order, so the
    /// multi-read is not before the sync. It is one step of the server's, which makes no change meanwhile (`CommitProcessor`).
    async fn multi_read(
        &self,
        add: impl Fn(&mut MultiReader<'_>) -> Result<(), ZkError> + Send,
    ) -> Result<(Ground, std::vec::IntoIter<MultiReadResult>)> {
        let client = &self.client;
        let answer = client.request(ErrorKind::Unavailable, async |ground: Ground| {
            let results = async {
                let mut reader = ground.zk.new_multi_reader();
                reader.add_get_data(&client.paths.clock)?;
                add(&mut reader)?;
                let current = client.catch_up(&ground.zk);
                let read = reader.commit();
                current.await?;
                read.await
            };
            let results: Result<_, ZkError> = results.await;
            results.map(|results| (ground, results.into_iter()))
        });
        answer.await?.map_err(classify)
    }

    /// The entries in the answer to a multi-read of the clock and of `keys`; `None`: one is newer than the clock.
    fn entries(
        &self,
        keys: &[Key],
        mut results: std::vec::IntoIter<MultiReadResult>,
        generation: u32,
    ) -> Result<Option<Snapshot>> {
        let clock = self.clock(results.next())?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let entry = match results.next() {
                Some(MultiReadResult::Data { data, stat }) => {
                    entry(data, &stat, generation).map_err(|error| error.at(key))?
                }
                // The floor's znode is always there.
                Some(MultiReadResult::Error { err: ZkError::NoNode }) if *key != Floor::key() => None,
                Some(MultiReadResult::Error { err }) => return Err(classify(err).at(key)),
                _ => return Err(unexpected()),
            };
            if entry.as_ref().is_some_and(|entry| entry.point > clock) {
                return Ok(None);
            }
            entries.push(entry);
        }
        Ok(Some(Snapshot { point: clock, entries }))
    }

    /// The point that the clock tells.
    fn clock(&self, result: Option<MultiReadResult>) -> Result<Point> {
        match result {
            Some(MultiReadResult::Data { stat, .. }) if stat.czxid == self.opened.clock_made => point(stat.mzxid),
            Some(MultiReadResult::Data { .. }) => {
                let message = "the namespace was deleted and made anew: open it again";
                Err(Error::new(ErrorKind::StoreLost, message))
            }
            Some(MultiReadResult::Error { err }) => Err(classify(err)),
            _ => Err(unexpected()),
        }
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
        let (_, mut results) = self.multi_read(add).await?;
        self.clock(results.next())?;
        let mut keys = Vec::new();
        for result in results {
            match result {
                MultiReadResult::Data { data, .. } => keys.extend((!data.is_empty()).then(Floor::key)),
                MultiReadResult::Children { children } => keys.extend(children.iter().filter_map(|name| decode(name))),
                MultiReadResult::Error { err } => return Err(classify(err)),
                _ => return Err(unexpected()),
            }
        }
        keys.retain(|key| key.is_under(prefix));
        keys.sort_unstable();
        Ok(keys)
    }
}
