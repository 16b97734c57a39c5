//! A commit, as one `multi`.

use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Floor, Key, Record, Revision};
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{CreateMode, Error as ZkError, MultiWriteError, MultiWriteResult, MultiWriter};

use super::Coordinator;
use super::entry::{Token, point};
use crate::schema::made_by;
use crate::wire::{Client, Ground, classify, classify_write};

/// Any version, in a request.
pub(crate) const ANY_VERSION: i32 = -1;

/// How often a commit is made in another era, when its own is over.
const ERAS: u32 = 10;

impl Coordinator {
    pub(super) async fn send(&self, commit: &Commit) -> Result<CommitOutcome> {
        for _ in 0..ERAS {
            let sent =
                self.client.request(ErrorKind::OutcomeUnknown, async |ground| self.send_in(commit, ground).await);
            if let Some(outcome) = sent.await?? {
                return Ok(outcome);
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others begin eras of the namespace all the time"))
    }

    /// Sends it in the era of a connection; `None`: that is over, and nothing was done.
    async fn send_in(&self, commit: &Commit, ground: Ground) -> Result<Option<CommitOutcome>> {
        let client = &self.client;
        client.check_writes(&ground)?;
        // Versions repeat after a loss: what was read before it may be of another history.
        let stale = outdated(commit, ground.generation)?;
        if !stale.is_empty() {
            return Ok(Some(CommitOutcome::Conflict(Conflict { stale, fresh: None })));
        }
        let plan = Plan::of(commit, client, &ground)?;
        self.check_size(plan.bytes)?;
        let mut writer = ground.zk.new_multi_writer();
        plan.write(&mut writer, client).map_err(classify_write)?;
        match writer.commit().await {
            Ok(results) => {
                let committed = plan.committed(&results)?;
                client.history.observe(ground.era, committed.point.number());
                Ok(Some(CommitOutcome::Committed(committed)))
            }
            Err(MultiWriteError::OperationFailed { index: 0, source: ZkError::NoNode }) => {
                client.leave(&ground);
                Ok(None)
            }
            Err(MultiWriteError::OperationFailed { index, source }) => plan.conflict(index, source).map(Some),
            Err(MultiWriteError::RequestFailed { source }) => Err(classify_write(source)),
        }
    }

    pub(super) fn check_size(&self, bytes: usize) -> Result<()> {
        let limit = self.client.options.max_request;
        if bytes <= limit {
            return Ok(());
        }
        let message = format!(
            "the request has {bytes} bytes and the servers take {limit} (jute.maxbuffer): write less in one transaction"
        );
        Err(Error::new(ErrorKind::TooLarge, message))
    }
}

/// The keys of a commit whose entries were read in another generation.
fn outdated(commit: &Commit, generation: u32) -> Result<Vec<Key>> {
    let checks = commit.checks.iter().map(|check| (&check.key, check.revision.as_ref()));
    let puts = commit.puts.iter().map(|put| (&put.key, put.revision.as_ref()));
    let deletes = commit.deletes.iter().map(|delete| (&delete.key, Some(&delete.revision)));
    let mut outdated = Vec::new();
    for (key, revision) in checks.chain(puts).chain(deletes) {
        if let Some(revision) = revision
            && Token::of(revision).map_err(|error| error.at(key))?.generation != generation
        {
            outdated.push(key.clone());
        }
    }
    Ok(outdated)
}

/// The operations of one `multi`, in its order. The first one checks the era, the last one sets the clock.
struct Plan<'a> {
    operations: Vec<Operation<'a>>,
    bytes: usize,
    generation: u32,
}

struct Operation<'a> {
    /// `None`: the era or the clock.
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
    fn of(commit: &'a Commit, client: &Client, ground: &Ground) -> Result<Self> {
        let generation = ground.generation;
        let mut plan = Self { operations: Vec::with_capacity(commit.len() + 2), bytes: 0, generation };
        plan.push(None, client.paths.lasts(ground.era), Step::Check(ANY_VERSION), false);
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

    fn committed(&self, results: &[MultiWriteResult]) -> Result<Committed> {
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
            let (version, mark) = match (&operation.step, result) {
                // What the server tells of a znode that a multi made is wrong before 3.8.2 (ZOOKEEPER-4026).
                (Step::Create(_), _) => (0, clock.mzxid),
                (_, MultiWriteResult::SetData { stat }) => (stat.version, stat.czxid),
                _ => return Err(unclear()),
            };
            revisions.push(Token { generation: self.generation, mark, version }.revision());
        }
        let point = point(clock.mzxid).map_err(|_| unclear())?;
        Ok(Committed { point, revisions })
    }

    /// What it means that an operation was refused.
    fn conflict(&self, index: usize, source: ZkError) -> Result<CommitOutcome> {
        let Some(key) = self.operations.get(index).and_then(|operation| operation.key) else {
            return Err(classify(source));
        };
        match source {
            ZkError::BadVersion => {}
            // The floor's znode is always there.
            ZkError::NodeExists | ZkError::NoNode if *key != Floor::key() => {}
            source => return Err(classify(source).at(key)),
        }
        Ok(CommitOutcome::Conflict(Conflict { stale: vec![key.clone()], fresh: None }))
    }
}

fn version(revision: &Revision) -> Result<i32> {
    Ok(Token::of(revision)?.version)
}
