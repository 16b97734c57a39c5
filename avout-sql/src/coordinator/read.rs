//! Reading records and points.

use std::sync::{Arc, LazyLock};

use avout_core::protocol::{Entry, Key, Record, Snapshot};
use avout_core::{Error, Result};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use crate::coordinator::known::Known;
use crate::schema::clock::{self, Clock, Stamp};
use crate::watch::hub::{Change, Spot, Table};
use crate::wire::connection::run;
use crate::wire::error::classify;

/// The most keys that one statement reads.
const ONE_STATEMENT: usize = 16;

/// The most keys that are read on the thread of the caller.
pub(crate) const SMALL_READ: usize = 64;

/// A record as it was found, with what names it.
#[derive(Debug)]
pub(crate) enum Raw {
    /// As it lies in the file: it is decoded on the thread that wants it.
    Bytes(Stamp, Bytes),
    Known(Stamp, Arc<Record>),
}

/// Records that were current together.
#[derive(Debug)]
pub(crate) struct RawSnapshot {
    pub(crate) clock: Clock,
    pub(crate) entries: Vec<Option<Raw>>,
}

impl RawSnapshot {
    /// Decodes the records of `keys`, and has them kept.
    ///
    /// # Errors
    /// [`Corrupt`](avout_core::ErrorKind::Corrupt) names the first key whose record is not readable.
    pub(crate) fn decode<'a>(self, keys: impl IntoIterator<Item = &'a Key>, known: &Known) -> Result<Snapshot> {
        let decode = |(raw, key): (Option<Raw>, &Key)| match raw {
            Some(raw) => raw.decode(key, known, &self.clock).map(Some).map_err(|error| error.at(key)),
            None => Ok(None),
        };
        let entries = self.entries.into_iter().zip(keys).map(decode).collect::<Result<_>>()?;
        Ok(Snapshot { point: clock::point(self.clock.point)?, entries })
    }
}

impl Raw {
    fn decode(self, key: &Key, known: &Known, clock: &Clock) -> Result<Entry> {
        let (stamp, record) = match self {
            Self::Known(stamp, record) => (stamp, record),
            Self::Bytes(stamp, bytes) => {
                let record = Arc::new(Record::decode(&bytes)?);
                known.keep(key, stamp, bytes, &record, clock);
                (stamp, record)
            }
        };
        Ok(Entry { revision: stamp.revision(), point: clock::point(stamp.point)?, record })
    }
}

/// For each number of keys the statement that reads their records and the clock. One statement is one snapshot.
static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut sql = String::from("SELECT -1, point, record, 0 FROM refs WHERE id = 0");
    let mut statements = vec![sql.clone()];
    for i in 0..ONE_STATEMENT {
        sql.push_str(&format!(" UNION ALL SELECT {i}, point, record, writer FROM refs WHERE key = ?{}", i + 1));
        statements.push(sql.clone());
    }
    statements
});

/// The records of `keys` and the clock, as they are now: read, or known to be current. Where a batch is open on this connection,
/// the clock has to be that of the batch.
pub(crate) fn current(connection: &Connection, keys: &[Key], known: &Known) -> Result<RawSnapshot> {
    if let Some((clock, records)) = known.current(keys, || Clock::read(connection)).map_err(classify)? {
        let entries = records.into_iter().map(|(stamp, record)| Some(Raw::Known(stamp, record))).collect();
        return Ok(RawSnapshot { clock, entries });
    }
    let snapshot = read(connection, keys, known)?;
    let found = keys.iter().zip(&snapshot.entries).filter_map(|(key, raw)| match raw {
        Some(Raw::Known(stamp, _)) => Some((key, *stamp)),
        Some(Raw::Bytes(..)) | None => None,
    });
    known.confirm(found, &snapshot.clock);
    Ok(snapshot)
}

/// Reads the records of `keys` and the clock, in one snapshot.
pub(crate) fn read(connection: &Connection, keys: &[Key], known: &Known) -> Result<RawSnapshot> {
    if let Some(sql) = STATEMENTS.get(keys.len()) {
        return read_together(connection, sql, keys, known);
    }
    in_one_snapshot(connection, || {
        let clock = Clock::read(connection).map_err(classify)?;
        let entries = keys.iter().map(|key| read_one(connection, key, known)).collect::<Result<_>>()?;
        Ok(RawSnapshot { clock, entries })
    })
}

/// Runs `f` in a read transaction, or in the one that is open: only the writer's connection has one, and
/// nothing changes under that.
pub(crate) fn in_one_snapshot<T>(connection: &Connection, f: impl FnOnce() -> Result<T>) -> Result<T> {
    if !connection.is_autocommit() {
        return f();
    }
    run(connection, "BEGIN").map_err(classify)?;
    let result = f();
    run(connection, "COMMIT").map_err(classify)?;
    result
}

fn read_together(connection: &Connection, sql: &str, keys: &[Key], known: &Known) -> Result<RawSnapshot> {
    let mut clock = None;
    let mut entries: Vec<_> = std::iter::repeat_with(|| None).take(keys.len()).collect();
    let mut statement = connection.prepare_cached(sql).map_err(classify)?;
    let mut rows = statement.query(params_from_iter(keys.iter().map(Key::as_str))).map_err(classify)?;
    while let Some(row) = rows.next().map_err(classify)? {
        let index: i64 = row.get(0).map_err(classify)?;
        match usize::try_from(index) {
            Err(_) => clock = Some(Clock::of(row, 1).map_err(classify)?),
            Ok(index) => {
                let key = &keys[index];
                entries[index] = Some(raw(row, key, known).map_err(|error| classify(error).at(key))?);
            }
        }
    }
    let clock = clock.ok_or_else(|| classify(rusqlite::Error::QueryReturnedNoRows))?;
    Ok(RawSnapshot { clock, entries })
}

fn raw(row: &Row<'_>, key: &Key, known: &Known) -> rusqlite::Result<Raw> {
    let (stamp, bytes) = (Stamp { point: row.get(1)?, writer: row.get(3)? }, row.get_ref(2)?.as_blob()?);
    Ok(match known.find(key, bytes) {
        Some(record) => Raw::Known(stamp, record),
        None => Raw::Bytes(stamp, Bytes::copy_from_slice(bytes)),
    })
}

/// Reads one record. In a transaction of the caller's.
fn read_one(connection: &Connection, key: &Key, known: &Known) -> Result<Option<Raw>> {
    connection
        .prepare_cached("SELECT 0, point, record, writer FROM refs WHERE key = ?1")
        .and_then(|mut statement| statement.query_row([key.as_str()], |row| raw(row, key, known)).optional())
        .map_err(|error| classify(error).at(key))
}

/// What a key has; `None` if there is nothing under it.
pub(crate) fn stamp(connection: &Connection, table: Table, key: &Key) -> Result<Option<Stamp>> {
    let sql = match table {
        Table::Refs => "SELECT point, writer FROM refs WHERE key = ?1",
        Table::Atoms => "SELECT revision, writer FROM atoms WHERE key = ?1",
    };
    let read = |row: &Row<'_>| Ok(Stamp { point: row.get(0)?, writer: row.get(1)? });
    connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([key.as_str()], read).optional())
        .map_err(|error| classify(error).at(key))
}

/// What these keys have, in one snapshot.
pub(crate) fn stamps(connection: &Connection, spots: &[Spot]) -> Result<Vec<Change>> {
    in_one_snapshot(connection, || {
        let as_of = Clock::read(connection).map_err(classify)?.point;
        spots
            .iter()
            .map(|(table, key)| {
                let stamp = stamp(connection, *table, key)?;
                Ok(Change { table: *table, key: key.clone(), as_of, stamp })
            })
            .collect()
    })
}

/// Where [`keys`] looks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Keys {
    Refs,
    Atoms,
    Values,
}

/// The most rows of one part: a longer list is read in several, so that none keeps the log from being written back.
const ROWS: i64 = 4096;

/// A part of a list of keys, in order.
pub(crate) struct Part {
    pub(crate) keys: Vec<Key>,
    /// Where the next one begins; `None`: this is the last.
    pub(crate) next: Option<String>,
}

/// The keys of a table that are `prefix` or lie under it, sorted: those behind the text `after`, and no more than [`ROWS`].
///
/// SQLite compares texts byte by byte, as [`Key`] does. What lies under `/a` is between `/a/` and `/a0`, the next
/// text that has not `/a/` in front; so `%` and `_` mean nothing.
pub(crate) fn keys(connection: &Connection, of: Keys, prefix: &Key, after: Option<&str>) -> Result<Part> {
    let sql = match of {
        Keys::Refs => {
            "SELECT key FROM refs WHERE key = ?1
             UNION ALL SELECT * FROM (SELECT key FROM refs WHERE key > ?2 AND key < ?3 ORDER BY key LIMIT ?4)"
        }
        Keys::Atoms => {
            "SELECT key FROM atoms WHERE key = ?1
             UNION ALL SELECT * FROM (SELECT key FROM atoms WHERE key > ?2 AND key < ?3 ORDER BY key LIMIT ?4)"
        }
        Keys::Values => {
            "SELECT DISTINCT key FROM ref_values WHERE key = ?1
             UNION ALL SELECT * FROM
                (SELECT DISTINCT key FROM ref_values WHERE key > ?2 AND key < ?3 ORDER BY key LIMIT ?4)"
        }
    };
    let folder = prefix.as_str().trim_end_matches('/');
    let (first, end) = (format!("{folder}/"), format!("{folder}0"));
    let itself = after.is_none_or(|after| after < prefix.as_str()).then_some(prefix.as_str());
    let begin = after.map_or(&*first, |after| after.max(&first));
    let read = || -> rusqlite::Result<Part> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query(params![itself, begin, end, ROWS])?;
        let (mut keys, mut found, mut last) = (Vec::new(), 0, None::<String>);
        while let Some(row) = rows.next()? {
            found += 1;
            match row.get_ref(0)?.as_str().map(|text| (text, Key::from_stored(text))) {
                Ok((text, key)) => {
                    last = Some(text.to_owned());
                    keys.extend(
                        key.inspect_err(|error| tracing::warn!(%error, "a key in the file is none that avout wrote")),
                    );
                }
                // Nobody can name it, so nobody misses it; the others are not to suffer.
                Err(error) => tracing::warn!(%error, "a key in the file is no text"),
            }
        }
        Ok(Part { keys, next: last.filter(|_| found >= ROWS) })
    };
    read().map_err(classify)
}

/// An invariant of this crate that does not hold.
pub(crate) fn broken(key: &Key) -> Error {
    Error::new(avout_core::ErrorKind::Corrupt, "the file does not change as it should").at(key)
}
