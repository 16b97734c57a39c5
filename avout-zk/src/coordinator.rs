use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{self, CoordinatorCapabilities, Watcher};
use avout_core::protocol::{
    Commit, CommitOutcome, Committed, Conflict, Entry, Floor, Key, Point, Record, Revision, Snapshot,
};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use zookeeper::{
    Client as Zk, CreateMode, Error as ZkError, MultiReadResult, MultiReader, MultiWriteError, MultiWriteResult,
    MultiWriter, Stat,
};

use crate::client::Client;
use crate::error::{classify, classify_write, unexpected};
use crate::paths::{Folder, decode};
use crate::schema::{Opened, made_by};
use crate::watch::{Hub, RefWatcher, Registration};

/// The most keys that a commit or a read may name.
const MAX_KEYS: usize = 1000;

/// What an operation of a request has beside the key, the record and the namespace's path, in bytes, at most.
const OPERATION_BYTES: usize = 160;

/// How often a read is made again that met a znode newer than the clock.
const TORN_READS: u32 = 3;

/// Orders commits by ZooKeeper's own order.
///
/// A commit is one `multi`. It sets the clock's znode, so that the clock tells the point of the last commit; a read is a `sync`
/// and one multi-read of the clock and the records, which the server answers between two commits.
pub struct Coordinator {
    client: Arc<Client>,
    hub: Arc<Hub>,
    opened: Opened,
    capabilities: CoordinatorCapabilities,
}

impl Coordinator {
    pub(crate) fn new(client: Arc<Client>, hub: Arc<Hub>, opened: Opened) -> Self {
        let overhead = OPERATION_BYTES + 2 * client.paths.root.len();
        // At most a half of a request is anything but keys and records.
        let max_keys = MAX_KEYS.min(client.options.max_request / 2 / overhead);
        let mut capabilities = CoordinatorCapabilities::new(opened.realm);
        capabilities.durable = true;
        capabilities.shared_between_processes = true;
        capabilities.max_keys = max_keys;
        capabilities.max_commit = client.options.max_request - max_keys * overhead;
        capabilities.max_record = capabilities.max_commit;
        Self { client, hub, opened, capabilities }
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.capabilities
    }

    async fn read(&self, keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        self.snapshot(keys).await.map_err(|error| error.during("read"))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        let outcome = if commit.puts.is_empty() && commit.deletes.is_empty() {
            self.check_alone(commit).await
        } else {
            self.send(commit).await
        };
        outcome.map_err(|error| error.during("commit"))
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        let paths = keys.iter().map(|key| self.client.paths.record(key)).collect();
        let registration = Registration::new(&self.client, &self.hub, paths);
        registration.arm().await.map_err(|error| error.during("watch"))?;
        Ok(Box::new(RefWatcher(registration)))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Key>> {
        self.keys_under(prefix).await.map_err(|error| error.during("list"))
    }
}

impl Coordinator {
    async fn snapshot(&self, keys: &[Key]) -> Result<Snapshot> {
        let paths: Vec<String> = keys.iter().map(|key| self.client.paths.record(key)).collect();
        self.check_size(paths.iter().map(|path| path.len() + OPERATION_BYTES).sum())?;
        for _ in 0..TORN_READS {
            let results = self.multi_read(|reader| paths.iter().try_for_each(|path| reader.add_get_data(path))).await?;
            if let Some(snapshot) = self.entries(keys, results)? {
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
    ) -> Result<std::vec::IntoIter<MultiReadResult>> {
        let client = &self.client;
        let answer = client.ask(async |zk: Arc<Zk>| {
            let mut reader = zk.new_multi_reader();
            reader.add_get_data(&client.paths.clock)?;
            add(&mut reader)?;
            let current = client.catch_up(&zk);
            let read = reader.commit();
            current.await?;
            read.await
        });
        Ok(answer.await?.map_err(classify)?.into_iter())
    }

    /// The entries in the answer to a multi-read of the clock and of `keys`; `None`: one is newer than the clock.
    fn entries(&self, keys: &[Key], mut results: std::vec::IntoIter<MultiReadResult>) -> Result<Option<Snapshot>> {
        let clock = self.clock(results.next())?;
        let mut entries = Vec::with_capacity(keys.len());
        for key in keys {
            let entry = match results.next() {
                Some(MultiReadResult::Data { data, stat }) => entry(data, &stat).map_err(|error| error.at(key))?,
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
    async fn check_alone(&self, commit: &Commit) -> Result<CommitOutcome> {
        let keys: Vec<Key> = commit.checks.iter().map(|check| check.key.clone()).collect();
        let snapshot = self.snapshot(&keys).await?;
        let mut stale = Vec::new();
        let mut fresh = Vec::new();
        for (check, entry) in commit.checks.iter().zip(snapshot.entries) {
            if entry.as_ref().map(|entry| &entry.revision) != check.revision.as_ref() {
                stale.push(check.key.clone());
                fresh.push(entry);
            }
        }
        if stale.is_empty() {
            return Ok(CommitOutcome::Committed(Committed { point: snapshot.point, revisions: Vec::new() }));
        }
        let fresh = Some(Snapshot { point: snapshot.point, entries: fresh });
        Ok(CommitOutcome::Conflict(Conflict { stale, fresh }))
    }

    async fn send(&self, commit: &Commit) -> Result<CommitOutcome> {
        let plan = Plan::of(commit, &self.client)?;
        self.check_size(plan.bytes)?;
        let answer = self.client.send(async |zk| {
            let mut writer = zk.new_multi_writer();
            plan.write(&mut writer, &self.client)?;
            writer.commit().await
        });
        match answer.await? {
            Ok(results) => plan.committed(&results),
            Err(MultiWriteError::RequestFailed { source }) => Err(classify_write(source)),
            Err(MultiWriteError::OperationFailed { index, source }) => {
                let key = plan.operations.get(index).and_then(|operation| operation.key.cloned());
                match (key, source) {
                    // The floor's znode is always there.
                    (Some(key), ZkError::BadVersion | ZkError::NodeExists | ZkError::NoNode) if key != Floor::key() => {
                        Ok(CommitOutcome::Conflict(Conflict { stale: vec![key], fresh: None }))
                    }
                    (Some(key), ZkError::BadVersion) => {
                        Ok(CommitOutcome::Conflict(Conflict { stale: vec![key], fresh: None }))
                    }
                    (Some(key), source) => Err(classify(source).at(&key)),
                    (None, source) => Err(classify(source)),
                }
            }
        }
    }

    fn check_size(&self, bytes: usize) -> Result<()> {
        let limit = self.client.options.max_request;
        if bytes <= limit {
            return Ok(());
        }
        let message = format!(
            "the request has {bytes} bytes and the servers take {limit} (jute.maxbuffer): write less in one transaction"
        );
        Err(Error::new(ErrorKind::TooLarge, message))
    }

    async fn keys_under(&self, prefix: &Key) -> Result<Vec<Key>> {
        let paths = &self.client.paths;
        let buckets: Vec<String> = paths.buckets(Folder::Refs).collect();
        let add = |reader: &mut MultiReader<'_>| {
            reader.add_get_data(&paths.floor)?;
            buckets.iter().try_for_each(|bucket| reader.add_get_children(bucket))
        };
        let mut results = self.multi_read(add).await?;
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

/// ZooKeeper numbers its changes from 1 on, by epoch and count.
fn point(zxid: i64) -> Result<Point> {
    u64::try_from(zxid).map(Point::new).map_err(|_| unexpected())
}

/// The version is what a commit compares. Where the znode was made tells it from another one of the same name.
fn revision(version: i32, made: i64) -> Revision {
    let made = u128::from(made.cast_unsigned());
    Revision::number(made << 32 | u128::from(version.cast_unsigned()))
}

fn version(revision: &Revision) -> Result<i32> {
    let number =
        revision.as_number().ok_or_else(|| Error::new(ErrorKind::InvalidInput, "no revision of this coordinator"))?;
    Ok((number as u32).cast_signed())
}

/// The entry of a znode; `None`: it stands for the absence of one.
fn entry(data: Vec<u8>, stat: &Stat) -> Result<Option<Entry>> {
    if data.is_empty() {
        return Ok(None);
    }
    let record = Record::decode(&Bytes::from(data))?;
    Ok(Some(Entry {
        revision: revision(stat.version, stat.czxid),
        point: point(stat.mzxid)?,
        record: Arc::new(record),
    }))
}

/// The operations of one `multi`, in its order. The last one sets the clock.
struct Plan<'a> {
    operations: Vec<Operation<'a>>,
    bytes: usize,
}

struct Operation<'a> {
    /// `None`: the clock.
    key: Option<&'a Key>,
    path: String,
    step: Step,
    /// Whether it gives the revision of a put.
    puts: bool,
}

enum Step {
    Check(i32),
    Create(Vec<u8>),
    Set(Vec<u8>, i32),
    Delete(i32),
}

impl<'a> Plan<'a> {
    fn of(commit: &'a Commit, client: &Client) -> Result<Self> {
        let mut plan = Self { operations: Vec::with_capacity(commit.len() + 1), bytes: 0 };
        for check in &commit.checks {
            plan.check(&check.key, check.revision.as_ref(), client).map_err(|error| error.at(&check.key))?;
        }
        for put in &commit.puts {
            plan.put(&put.key, put.revision.as_ref(), &put.record, client).map_err(|error| error.at(&put.key))?;
        }
        for delete in &commit.deletes {
            let key = &delete.key;
            let version = version(&delete.revision).map_err(|error| error.at(key))?;
            plan.push(Some(key), client.paths.record(key), Step::Delete(version), false);
            if *key == Floor::key() {
                // Its znode stays, and stands for its absence.
                plan.push(Some(key), client.paths.record(key), Step::Create(Vec::new()), false);
            }
        }
        plan.push(None, client.paths.clock.clone(), Step::Set(Vec::new(), ANY_VERSION), false);
        Ok(plan)
    }

    fn check(&mut self, key: &'a Key, revision: Option<&Revision>, client: &Client) -> Result<()> {
        let path = client.paths.record(key);
        match revision {
            Some(revision) => {
                let step = Step::Check(version(revision)?);
                self.push(Some(key), path, step, false);
            }
            // Its znode has the first version until its first record.
            None if *key == Floor::key() => self.push(Some(key), path, Step::Check(0), false),
            // ZooKeeper has no check for absence: what can be made was not there.
            None => {
                self.push(Some(key), path.clone(), Step::Create(Vec::new()), false);
                self.push(Some(key), path, Step::Delete(ANY_VERSION), false);
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &'a Key, revision: Option<&Revision>, record: &Record, client: &Client) -> Result<()> {
        let path = client.paths.record(key);
        let data = record.encode()?;
        let version = match revision {
            Some(revision) => version(revision)?,
            None if *key == Floor::key() => 0,
            None => {
                self.push(Some(key), path, Step::Create(data), true);
                return Ok(());
            }
        };
        if version == client.options.hop_at {
            // The next version would be -1, which means "any" in a request. Servers before 3.9.3 give it, later ones leave it out. So
            // it is set twice at once: the second time with that "any", and nobody ever sees the version between.
            self.push(Some(key), path.clone(), Step::Set(data.clone(), version), false);
            self.push(Some(key), path, Step::Set(data, ANY_VERSION), true);
        } else {
            self.push(Some(key), path, Step::Set(data, version), true);
        }
        Ok(())
    }

    fn push(&mut self, key: Option<&'a Key>, path: String, step: Step, puts: bool) {
        let data = match &step {
            Step::Create(data) | Step::Set(data, _) => data.len(),
            Step::Check(_) | Step::Delete(_) => 0,
        };
        // 9 bytes of header, lengths, a version, and an ACL of one line.
        self.bytes += path.len() + data + 70;
        self.operations.push(Operation { key, path, step, puts });
    }

    fn write(&self, writer: &mut MultiWriter<'_>, client: &Client) -> Result<(), ZkError> {
        let options = &made_by(&client.options, CreateMode::Persistent);
        for Operation { path, step, .. } in &self.operations {
            match step {
                Step::Check(version) => writer.add_check_version(path, *version)?,
                Step::Create(data) => writer.add_create(path, data, options)?,
                Step::Set(data, version) => writer.add_set_data(path, data, Some(*version))?,
                Step::Delete(version) => writer.add_delete(path, Some(*version))?,
            }
        }
        Ok(())
    }

    fn committed(&self, results: &[MultiWriteResult]) -> Result<CommitOutcome> {
        // The commit took effect; only an answer that cannot be read leaves open how.
        let unclear = || Error::new(ErrorKind::OutcomeUnknown, "the server's answer is not understood");
        let Some(MultiWriteResult::SetData { stat: clock }) = results.last() else {
            return Err(unclear());
        };
        if results.len() != self.operations.len() {
            return Err(unclear());
        }
        let mut revisions = Vec::new();
        for (operation, result) in self.operations.iter().zip(results).filter(|(operation, _)| operation.puts) {
            revisions.push(match (&operation.step, result) {
                // What the server tells of a znode that a multi made is wrong before 3.8.2 (ZOOKEEPER-4026).
                (Step::Create(_), _) => revision(0, clock.mzxid),
                (_, MultiWriteResult::SetData { stat }) => revision(stat.version, stat.czxid),
                _ => return Err(unclear()),
            });
        }
        let point = point(clock.mzxid).map_err(|_| unclear())?;
        Ok(CommitOutcome::Committed(Committed { point, revisions }))
    }
}

/// Any version, in a request.
pub(crate) const ANY_VERSION: i32 = -1;

#[cfg(test)]
mod tests {
    use super::*;

    /// Versions come back from revisions, negative ones too; znodes made at different points have different revisions.
    #[test]
    fn revisions_hold_versions() {
        for number in [0, 1, i32::MAX, i32::MIN, -2] {
            let token = revision(number, 0x7_0000_0009);
            assert_eq!(version(&token).expect("its own"), number);
            assert_ne!(token, revision(number, 0x7_0000_000a));
        }
        assert!(version(&Revision::text("x")).is_err());
    }
}
