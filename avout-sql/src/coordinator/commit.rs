use std::sync::Arc;

use avout_core::protocol::{Commit, CommitOutcome, Committed, Conflict, Key, Record};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::known::Kept;
use super::read::{self, RawSnapshot, SMALL_READ};
use crate::client::{Client, MAX_BYTES, Shared};
use crate::schema::clock::{self, Clock, Stamp};
use crate::watch::hub::Table;
use crate::wire::error::classify;
use crate::writer::work::{Batch, Conflicts, Work};

/// Has a commit made, and tells how it ended.
pub(super) async fn send(client: &Arc<Client>, commit: &Commit) -> Result<CommitOutcome> {
    let work = CommitWork::new(commit, &client.shared)?;
    let outcome = if commit.puts.is_empty() && commit.deletes.is_empty() {
        // Nothing to write: a snapshot in which all is as expected is the moment of the commit.
        client.read(work.lines.len() <= SMALL_READ, move |c, _| work.check_alone(c).map(Some)).await?
    } else {
        client.write(work).await?
    };
    match outcome {
        Outcome::Committed(stamp) => {
            let revisions = commit.puts.iter().map(|_| stamp.revision()).collect();
            Ok(CommitOutcome::Committed(Committed { point: clock::point(stamp.point)?, revisions }))
        }
        Outcome::Conflict(stale, raw) => {
            // A record that cannot be read is for the one who reads it to find.
            let fresh = raw.decode(&stale, &client.shared.known).ok();
            Ok(CommitOutcome::Conflict(Conflict { stale, fresh }))
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
            if read::stamp(connection, Table::Refs, &line.key)? != line.expected {
                stale.push(line.key.clone());
            }
        }
        if stale.is_empty() {
            return Ok(None);
        }
        let raw = read::read(connection, &stale, &self.shared.known)?;
        Ok(Some((stale, raw)))
    }

    /// A commit that only checks, on a connection that only reads.
    fn check_alone(&self, connection: &Connection) -> Result<Outcome> {
        let known = self.shared.history.known();
        read::in_one_snapshot(connection, || {
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
                return Err(read::broken(&line.key));
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
        let (stale, mut raw) = self.find_stale(batch.connection)?.ok_or_else(|| read::broken(&self.lines[0].key))?;
        // The clock's row is written at the end of the batch.
        raw.clock = batch.as_of();
        Ok(Outcome::Conflict(stale, raw))
    }
}

fn are_as_expected(connection: &Connection, lines: &[Line]) -> Result<bool> {
    for line in lines {
        if read::stamp(connection, Table::Refs, &line.key)? != line.expected {
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
                return Ok(read::stamp(connection, Table::Refs, &self.key)? == expected);
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
