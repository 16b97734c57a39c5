use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, CoordinatorCapabilities, Watcher};
use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Key, Point, Record, Resolution, Snapshot};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, params};

use crate::client::{Client, MAX_BYTES, Shared};
use crate::clock::{self, Clock, Stamp};
use crate::error::classify;
use crate::known::Kept;
use crate::outcome::Receipt;
use crate::poller;
use crate::records::{self, Keys, RawSnapshot, SMALL_READ};
use crate::watch::{RefWatcher, Registration, Table};
use crate::work::{Batch, Conflicts, Work};

/// Orders commits with SQLite's write lock.
///
/// A commit is one part of a SQLite transaction that it shares with those that wait at the same time; a read is one
/// SQLite snapshot, and never waits for a writer. A record's revision is the point where it took effect.
///
/// Changes by this client are seen by its watchers at once, those by others within about 10 ms.
#[derive(Clone)]
pub struct Coordinator {
    client: Arc<Client>,
}

impl Coordinator {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }

    /// SQLite transactions that were committed so far, and commits in them.
    #[doc(hidden)]
    pub fn stats(&self) -> (u64, u64) {
        self.client.shared.stats.read()
    }

    /// Requests to write that wait or are being done.
    #[doc(hidden)]
    pub fn under_way(&self) -> usize {
        self.client.shared.open.count()
    }

    #[cfg(test)]
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

#[async_trait]
impl backend::Coordinator for Coordinator {
    fn capabilities(&self) -> &CoordinatorCapabilities {
        &self.client.coordinates
    }

    async fn read(&self, keys: &[Key], _at: Option<Point>) -> Result<Snapshot> {
        let (owned, shared) = (keys.to_vec(), Arc::clone(&self.client.shared));
        // The next batch would tell if what is known of the file has been changed by another program.
        let find = if shared.open.count() > 0 { records::current } else { records::read };
        let read = move |c: &Connection, _| {
            let known = shared.history.known();
            let raw = find(c, &owned, &shared.known)?;
            shared.follow(c, known, &raw.clock)?;
            Ok(Some(raw))
        };
        let read = self.client.read(keys.len() <= SMALL_READ, read);
        read.await.and_then(|raw| raw.decode(keys, &self.client.shared.known)).map_err(|error| error.during("read"))
    }

    async fn commit(&self, commit: &Commit) -> Result<CommitOutcome> {
        self.send(commit).await.map_err(|error| error.during("commit"))
    }

    async fn resolve(&self, receipt: &Bytes) -> Result<Resolution> {
        let resolve = async { self.client.resolve(Receipt::decode(receipt)?).await };
        resolve.await.map_err(|error| error.during("resolve"))
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.client.losses()
    }

    async fn watch(&self, keys: &[Key]) -> Result<Box<dyn Watcher>> {
        self.client.usable()?;
        let spots: Vec<_> = keys.iter().map(|key| (Table::Refs, key.clone())).collect();
        let registration = Registration::new(&self.client, spots.clone());
        if self.client.shared.file.is_some() {
            // What the keys have now is what changes by others are compared with.
            let read = self.client.read(keys.len() <= SMALL_READ, move |c, _| records::stamps(c, &spots).map(Some));
            self.client.shared.hub.observe(read.await.map_err(|error| error.during("watch"))?);
            poller::start(&self.client.shared)?;
        }
        Ok(Box::new(RefWatcher(registration)))
    }

    async fn list(&self, prefix: &Key) -> Result<Vec<Key>> {
        self.client.keys(Keys::Refs, prefix).await.map_err(|error| error.during("list"))
    }
}

impl Coordinator {
    async fn send(&self, commit: &Commit) -> Result<CommitOutcome> {
        let work = CommitWork::new(commit, &self.client.shared)?;
        let outcome = if commit.puts.is_empty() && commit.deletes.is_empty() {
            // Nothing to write: a snapshot in which all is as expected is the moment of the commit.
            self.client.read(work.lines.len() <= SMALL_READ, move |c, _| work.check_alone(c).map(Some)).await?
        } else {
            self.client.write(work).await?
        };
        match outcome {
            Outcome::Committed(stamp) => {
                let revisions = commit.puts.iter().map(|_| stamp.revision()).collect();
                Ok(CommitOutcome::Committed(Committed { point: clock::point(stamp.point)?, revisions }))
            }
            Outcome::Conflict(stale, raw) => {
                // A record that cannot be read is for the one who reads it to find.
                let fresh = raw.decode(&stale, &self.client.shared.known).ok();
                Ok(CommitOutcome::Conflict(Conflict { stale, fresh }))
            }
        }
    }
}

/// A commit as the writer takes it: owned, and encoded already.
struct CommitWork {
    shared: Arc<Shared>,
    lines: Vec<Line>,
    bytes: usize,
}

struct Line {
    key: Key,
    expected: Option<Stamp>,
    write: Write,
}

enum Write {
    Nothing,
    Put(Bytes, Arc<Record>),
    Delete,
}

enum Outcome {
    Committed(Stamp),
    /// The keys that were not as expected, with their records.
    Conflict(Vec<Key>, RawSnapshot),
}

impl CommitWork {
    fn new(commit: &Commit, shared: &Arc<Shared>) -> Result<Self> {
        let mut bytes = 0;
        let mut lines = Vec::with_capacity(commit.len());
        let puts = commit.puts.iter().map(|put| Some(&put.record));
        let writes = commit.checks.iter().map(|_| None).chain(puts).chain(commit.deletes.iter().map(|_| None));
        for (index, ((key, revision), record)) in commit.expectations().zip(writes).enumerate() {
            let write = match record {
                Some(record) => Write::Put(record.encode().map_err(|error| error.at(key))?.into(), Arc::clone(record)),
                None if index < commit.checks.len() => Write::Nothing,
                None => Write::Delete,
            };
            bytes += key.as_str().len() + if let Write::Put(record, _) = &write { record.len() } else { 0 };
            lines.push(Line { key: key.clone(), expected: revision.map(Stamp::expected), write });
        }
        if bytes > MAX_BYTES {
            return Err(Error::new(ErrorKind::TooLarge, "a commit has at most 512 MiB"));
        }
        Ok(Self { shared: Arc::clone(shared), lines, bytes })
    }

    /// The lines whose key is not as expected, with their records. `None` if all are.
    fn find_stale(&self, connection: &Connection) -> Result<Option<(Vec<Key>, RawSnapshot)>> {
        let mut stale = Vec::new();
        for line in &self.lines {
            if records::stamp(connection, Table::Refs, &line.key)? != line.expected {
                stale.push(line.key.clone());
            }
        }
        if stale.is_empty() {
            return Ok(None);
        }
        let raw = records::read(connection, &stale, &self.shared.known)?;
        Ok(Some((stale, raw)))
    }

    /// A commit that only checks, on a connection that only reads.
    fn check_alone(&self, connection: &Connection) -> Result<Outcome> {
        let known = self.shared.history.known();
        records::in_one_snapshot(connection, || {
            let clock = Clock::read(connection).map_err(classify)?;
            self.shared.follow(connection, known, &clock)?;
            Ok(match self.find_stale(connection)? {
                Some((stale, raw)) => Outcome::Conflict(stale, raw),
                None => Outcome::Committed(Stamp { point: clock.point, ..Stamp::NONE }),
            })
        })
    }
}

impl Work for CommitWork {
    type Answer = Outcome;

    fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes the last line, which is as expected or writes nothing, when all others are known to be as expected. Nobody else
    /// can write meanwhile, so a conflict leaves nothing behind, and no savepoint is needed. To look at the others first costs
    /// as much as to write them; so where conflicts are unexpected they are written at once, each on its condition.
    fn apply(&self, batch: &mut Batch<'_>) -> Result<Outcome> {
        let connection = batch.connection;
        let (last, others) = self.lines.split_last().expect("a commit that writes nothing is not sent here");
        let stamp = batch.coming()?;
        let looks = batch.conflicts() != Conflicts::Unexpected;
        if looks && (!are_as_expected(connection, others)? || !last.write(connection, stamp)?) {
            batch.conflict();
            return self.conflict(batch);
        }
        let left = if looks { others } else { &self.lines };
        for line in left.iter().filter(|line| !looks || !matches!(line.write, Write::Nothing)) {
            if !line.write(connection, stamp)? {
                batch.conflict();
                return Err(records::broken(&line.key));
            }
        }
        batch.next()?;
        for Line { key, write, .. } in &self.lines {
            match write {
                Write::Nothing => {}
                Write::Put(..) => batch.changed(Table::Refs, key, Some(stamp)),
                Write::Delete => batch.changed(Table::Refs, key, None),
            }
        }
        Ok(Outcome::Committed(stamp))
    }

    fn note(&mut self, stamp: Stamp, known: &mut Kept) {
        for Line { key, write, .. } in &mut self.lines {
            match write {
                Write::Nothing => {}
                Write::Put(bytes, record) => known.put(key, stamp, bytes, record),
                Write::Delete => known.delete(key),
            }
        }
    }
}

impl CommitWork {
    fn conflict(&self, batch: &Batch<'_>) -> Result<Outcome> {
        let (stale, mut raw) = self.find_stale(batch.connection)?.ok_or_else(|| records::broken(&self.lines[0].key))?;
        // The clock's row is written at the end of the batch.
        raw.clock = batch.as_of();
        Ok(Outcome::Conflict(stale, raw))
    }
}

fn are_as_expected(connection: &Connection, lines: &[Line]) -> Result<bool> {
    for line in lines {
        if records::stamp(connection, Table::Refs, &line.key)? != line.expected {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Line {
    /// Writes it if the key is as expected; says whether it was.
    fn write(&self, connection: &Connection, stamp: Stamp) -> Result<bool> {
        let (name, Stamp { point, writer }) = (self.key.as_str(), stamp);
        let rows = match (&self.write, self.expected) {
            (Write::Nothing, expected) => {
                return Ok(records::stamp(connection, Table::Refs, &self.key)? == expected);
            }
            (Write::Put(record, _), Some(expected)) => connection
                .prepare_cached(
                    "UPDATE refs SET point = ?1, writer = ?2, record = ?3 WHERE key = ?4 AND point = ?5 AND writer = ?6",
                )
                .and_then(|mut statement| {
                    statement.execute(params![point, writer, &**record, name, expected.point, expected.writer])
                }),
            (Write::Put(record, _), None) => connection
                .prepare_cached(
                    "INSERT INTO refs (key, point, writer, record) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key) DO NOTHING",
                )
                .and_then(|mut statement| statement.execute(params![name, point, writer, &**record])),
            (Write::Delete, expected) => {
                let expected = expected.unwrap_or(Stamp::NONE);
                connection
                    .prepare_cached("DELETE FROM refs WHERE key = ?1 AND point = ?2 AND writer = ?3")
                    .and_then(|mut statement| statement.execute(params![name, expected.point, expected.writer]))
            }
        };
        Ok(rows.map_err(|error| classify(error).at(&self.key))? == 1)
    }
}
