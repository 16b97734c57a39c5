//! A commit, as one `multi`.

use avout_core::backend::history::Era;
use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Floor, Key, Payload, Record, Revision};
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{CreateMode, Error as ZkError, MultiWriteResult};

use super::entry::{Token, point};
use super::{Coordinator, OPERATION_BYTES};
use crate::schema::{ANY_VERSION, acl_bytes, made_by, stamp, steps};
use crate::wire::{Change, Changes, Client, ERAS, Ground, Refused, classify_write, eras_change};

impl Coordinator {
    pub(super) async fn send(&self, commit: &Commit) -> Result<CommitOutcome> {
        for _ in 0..ERAS {
            let sent =
                self.client.request(ErrorKind::OutcomeUnknown, async |ground| self.send_in(commit, ground).await);
            if let Some(outcome) = sent.await?? {
                return Ok(outcome);
            }
        }
        Err(eras_change())
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
        let plan = Plan::of(commit, client, ground.generation)?;
        self.check_size(plan.bytes)?;
        match client.change_in(&ground, |changes| plan.write(changes, client)).await {
            Ok(Change::Done(results)) => {
                let committed = plan.committed(&results)?;
                client.history.observe(ground.era, committed.point.number());
                Ok(Some(CommitOutcome::Committed(committed)))
            }
            Ok(Change::Refused(refused)) => plan.conflict(refused).map(Some),
            Ok(Change::Over) => Ok(None),
            Err(error) => Err(classify_write(error)),
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

/// The operations of one `multi`, in its order, behind the check of the era. The last one sets the clock.
struct Plan<'a> {
    operations: Vec<Operation<'a>>,
    bytes: usize,
    /// What an ACL takes.
    acl_bytes: usize,
    generation: u32,
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
    fn of(commit: &'a Commit, client: &Client, generation: u32) -> Result<Self> {
        let bytes = client.paths.lasts(Era::default()).len() + OPERATION_BYTES;
        let mut plan = Self {
            operations: Vec::with_capacity(commit.len() + 2),
            bytes,
            acl_bytes: acl_bytes(&client.options),
            generation,
        };
        for check in &commit.checks {
            plan.check(&check.key, check.revision.as_ref(), client).map_err(|error| error.at(&check.key))?;
        }
        for put in &commit.puts {
            plan.put(&put.key, put.revision.as_ref(), &put.record, client).map_err(|error| error.at(&put.key))?;
        }
        for delete in &commit.deletes {
            let key = &delete.key;
            let version = version(&delete.revision).map_err(|error| error.at(key))?;
            plan.push(Some(key), client.paths.record(key), Step::Delete(version));
            if *key == Floor::key() {
                // Its znode stays, and stands for its absence.
                plan.push(Some(key), client.paths.record(key), Step::Create(Vec::new()));
            }
        }
        plan.push(None, client.paths.clock.clone(), Step::Set(Vec::new(), ANY_VERSION));
        Ok(plan)
    }

    fn check(&mut self, key: &'a Key, revision: Option<&Revision>, client: &Client) -> Result<()> {
        let path = client.paths.record(key);
        match revision {
            Some(revision) => {
                let step = Step::Check(version(revision)?);
                self.push(Some(key), path, step);
            }
            // Its znode has the first version until its first record.
            None if *key == Floor::key() => self.push(Some(key), path, Step::Check(0)),
            // ZooKeeper has no check for absence: what can be made was not there.
            None => {
                self.push(Some(key), path.clone(), Step::Create(Vec::new()));
                self.push(Some(key), path, Step::Delete(ANY_VERSION));
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &'a Key, revision: Option<&Revision>, record: &Record, client: &Client) -> Result<()> {
        let path = client.paths.record(key);
        let version = match revision {
            Some(revision) => version(revision)?,
            None if *key == Floor::key() => 0,
            None => {
                // Version 0 is only seen of a znode that somebody else has made.
                self.push(Some(key), path.clone(), Step::Create(Vec::new()));
                0
            }
        };
        let hop_at = client.options.hop_at;
        let data = stamp(version, hop_at, &record.encode()?);
        for step in steps(version, hop_at) {
            self.push(Some(key), path.clone(), Step::Set(data.clone(), step));
        }
        if let Some(last) = self.operations.last_mut() {
            last.puts = true;
        }
        // Its value was written before, perhaps into a history that is gone since.
        if let Payload::Stored { realm, version } = &record.payload
            && client.opened().is_some_and(|opened| opened.realm == *realm)
        {
            let value = client.paths.value(key, version);
            self.push(Some(key), value, Step::Check(ANY_VERSION));
        }
        Ok(())
    }

    fn push(&mut self, key: Option<&'a Key>, path: String, step: Step) {
        // 9 bytes of header, two lengths, and a version or flags.
        self.bytes += path.len() + 21;
        self.bytes += match &step {
            Step::Create(data) => data.len() + self.acl_bytes,
            Step::Set(data, _) => data.len(),
            Step::Check(_) | Step::Delete(_) => 0,
        };
        self.operations.push(Operation { key, path, step, puts: false });
    }

    fn write(&self, changes: &mut Changes<'_>, client: &Client) -> Result<(), ZkError> {
        let options = &made_by(&client.options, CreateMode::Persistent);
        for Operation { path, step, .. } in &self.operations {
            match step {
                Step::Check(version) => changes.check(path, *version)?,
                Step::Create(data) => changes.create(path, data, options)?,
                Step::Set(data, version) => changes.set(path, data, *version)?,
                Step::Delete(version) => changes.delete(path, *version)?,
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
        for (_, result) in self.operations.iter().zip(results).filter(|(operation, _)| operation.puts) {
            let MultiWriteResult::SetData { stat } = result else { return Err(unclear()) };
            let token = Token { generation: self.generation, mark: stat.czxid, version: stat.version };
            revisions.push(token.revision());
        }
        let point = point(clock.mzxid).map_err(|_| unclear())?;
        Ok(Committed { point, revisions })
    }

    /// What it means that an operation was refused.
    fn conflict(&self, refused: Refused) -> Result<CommitOutcome> {
        let Some(key) = self.operations.get(refused.index).and_then(|operation| operation.key) else {
            return Err(refused.told());
        };
        match refused.source {
            ZkError::BadVersion => {}
            // The floor's znode is always there.
            ZkError::NodeExists | ZkError::NoNode if *key != Floor::key() => {}
            _ => return Err(refused.told().at(key)),
        }
        Ok(CommitOutcome::Conflict(Conflict { stale: vec![key.clone()], fresh: None }))
    }
}

fn version(revision: &Revision) -> Result<i32> {
    Ok(Token::of(revision)?.version)
}
