//! How a COMMIT ended that failed.
//!
//! A COMMIT in WAL mode writes frames to the log, waits for the disk, and then tells the other connections through
//! shared memory. If the wait fails, SQLite reports an error and the transaction is not visible. But its frames are
//! in the log, whole, the last one with a commit mark. They lie behind the end that shared memory knows; so the next
//! commit, of any connection, writes over them. But if before that every process dies or closes the file, the next one to open it
//! recovers the log, finds the frames, and the transaction has happened after all:
//!
//! ```text
//! COMMIT fails      next commit writes over it             it never happened
//! COMMIT fails      all die, the log is recovered          it happened
//! ```
//!
//! So each batch that gives out points writes its number and its writer's name into the clock's row, which it writes anyway.
//! If another writer's name is there, that one's number goes to its row in `writers` first. So the last batch of each writer
//! that took effect can always be told, and a client that is alone writes one row.
//!
//! Whoever wants to know takes the write lock and looks: the batch's number means that it happened. A smaller number means
//! that it has not, and then a commit of one's own (the *fence*, which raises the number beyond the batch's) writes over the
//! frames: it never will.
//!
//! A client that cannot find out at once goes on under another id. So a row whose number is beyond that of a
//! batch with a receipt says that the batch was fenced off.

use std::time::Duration;

use avout_core::protocol::{Point, Realm};
use avout_core::{Error, ErrorKind, Result};
use bytes::{BufMut, Bytes, BytesMut};
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

use crate::connection::{patiently, run};
use crate::error::classify;

const FORMAT: u8 = 1;

/// Names a batch, and the point of one commit in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) realm: Realm,
    pub(crate) writer: [u8; 16],
    pub(crate) batch: i64,
    pub(crate) point: i64,
}

impl Receipt {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(49);
        out.put_u8(FORMAT);
        out.put_u128(self.realm.number());
        out.put_slice(&self.writer);
        out.put_i64(self.batch);
        out.put_i64(self.point);
        out.freeze()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let (&format, rest) = bytes.split_first()?;
            let (realm, rest) = rest.split_first_chunk()?;
            let (writer, rest) = rest.split_first_chunk()?;
            let (batch, rest) = rest.split_first_chunk()?;
            let (point, rest) = rest.split_first_chunk()?;
            (format == FORMAT && rest.is_empty()).then(|| Self {
                realm: Realm::new(u128::from_be_bytes(*realm)),
                writer: *writer,
                batch: i64::from_be_bytes(*batch),
                point: i64::from_be_bytes(*point),
            })
        };
        parse().ok_or_else(|| Error::new(ErrorKind::Unsupported, "no receipt of a SQLite coordinator"))
    }
}

/// Whether a COMMIT that failed has surely left nothing behind that could come back.
pub(crate) fn is_definite(connection: &Connection, error: &rusqlite::Error) -> bool {
    // Still in the transaction: nothing was written. A full disk: the frame with the commit mark is written last, and a write
    // failed, so there is no whole one. (A full disk that is found only by the sync is an I/O error.)
    !connection.is_autocommit() || error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

/// Whether this batch of this writer happened; if it did not, it never will.
///
/// # Errors
/// [`ErrorKind::Unsupported`] if the writer's row is gone; any other error: ask again.
pub(crate) fn decide(connection: &Connection, timeout: Duration, writer: &[u8; 16], batch: i64) -> Result<bool> {
    patiently(timeout, || {
        run(connection, "BEGIN IMMEDIATE").map_err(classify)?;
        let now = Clock::read(connection).map_err(classify)?;
        let Some(found) = now.last_batch_of(connection, writer).map_err(classify)? else {
            return Err(Error::new(ErrorKind::Unsupported, "the receipt is too old: nothing tells of it any more"));
        };
        if found == batch {
            run(connection, "ROLLBACK").map_err(classify)?;
            return make_durable(connection).map(|()| true);
        }
        if found < batch {
            now.seal(connection, now.point, Batch { writer: *writer, number: batch + 1 }).map_err(classify)?;
            run(connection, "COMMIT").map_err(classify)?;
        } else {
            run(connection, "ROLLBACK").map_err(classify)?;
        }
        Ok(false)
    })
}

/// Makes a recovered commit lasting.
///
/// The wait for the disk has failed once, so the frames in the log may be in memory only, and no later wait would
/// say so. Their pages are written to the database file itself, which is waited for, and then a commit begins the log anew.
fn make_durable(connection: &Connection) -> Result<()> {
    let busy: bool = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)).map_err(classify)?;
    if busy {
        return Err(Error::new(ErrorKind::Unavailable, "the log could not be written back: others are reading"));
    }
    // A point that no commit has is allowed; setting the clock to what it was would write nothing.
    run(connection, "UPDATE refs SET point = point + 1 WHERE id = 0").map_err(classify)
}

/// A batch, among all that were ever written to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) writer: [u8; 16],
    pub(crate) number: i64,
}

impl Batch {
    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.writer);
        bytes[16..].copy_from_slice(&self.number.to_be_bytes());
        bytes
    }

    /// `None`: no batch, as in a new file.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (writer, rest) = bytes.split_first_chunk()?;
        Some(Self { writer: *writer, number: i64::from_be_bytes(rest.try_into().ok()?) })
    }
}

/// What the clock's row says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// The point of the last commit.
    pub(crate) point: i64,
    /// The last batch that gave out points.
    last: Option<Batch>,
}

impl Clock {
    /// In a transaction that has the write lock.
    pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Self> {
        connection
            .prepare_cached("SELECT point, record FROM refs WHERE id = 0")?
            .query_row([], |row| Ok(Self { point: row.get(0)?, last: Batch::decode(row.get_ref(1)?.as_bytes()?) }))
    }

    /// Writes the clock at the end of a batch.
    pub(crate) fn seal(&self, connection: &Connection, point: i64, batch: Batch) -> rusqlite::Result<()> {
        if let Some(last) = &self.last
            && last.writer != batch.writer
        {
            keep(connection, last)?;
        }
        connection
            .prepare_cached("UPDATE refs SET point = ?1, record = ?2 WHERE id = 0")?
            .execute(params![point, batch.encode()])
            .map(|_| ())
    }

    /// The number of the last batch of `writer` that took effect. `None`: nothing is known of this writer.
    fn last_batch_of(&self, connection: &Connection, writer: &[u8; 16]) -> rusqlite::Result<Option<i64>> {
        match &self.last {
            Some(last) if last.writer == *writer => Ok(Some(last.number)),
            _ => connection.query_row("SELECT batch FROM writers WHERE id = ?1", [writer], |row| row.get(0)).optional(),
        }
    }

    /// Forgets a writer that has no batch whose outcome is open.
    pub(crate) fn forget(&self, connection: &Connection, writer: &[u8; 16]) -> rusqlite::Result<()> {
        connection.execute("DELETE FROM writers WHERE id = ?1", [writer])?;
        if self.last.is_some_and(|last| last.writer == *writer) {
            connection.execute("UPDATE refs SET record = x'' WHERE id = 0", [])?;
        }
        Ok(())
    }
}

/// Writes a writer's batch to its own row.
fn keep(connection: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    let rows = connection
        .prepare_cached("UPDATE writers SET batch = ?2 WHERE id = ?1")?
        .execute(params![batch.writer, batch.number])?;
    if rows == 0 {
        // Thousands of clients came since, and this row was taken for one of a client that died.
        let row = params![batch.writer, batch.number];
        connection.execute("INSERT INTO writers (id, batch) VALUES (?1, ?2)", row)?;
    }
    Ok(())
}

/// The point of the last commit.
pub(crate) fn clock(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("SELECT point FROM refs WHERE id = 0")?.query_row([], |row| row.get(0))
}

/// A number that changes when another connection has committed anything, avout's or not. It means nothing to other connections.
pub(crate) fn others(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))
}

/// Writes the clock in the middle of a batch, for one who reads it there.
pub(crate) fn set_clock(connection: &Connection, point: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("UPDATE refs SET point = ?1 WHERE id = 0")?.execute([point]).map(|_| ())
}

/// A point as SQLite keeps it.
pub(crate) fn point(number: i64) -> Result<Point> {
    match u64::try_from(number) {
        Ok(number) => Ok(Point::new(number)),
        Err(_) => Err(Error::new(ErrorKind::Corrupt, "a point below zero")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A receipt comes back from its bytes; others are refused.
    #[test]
    fn a_receipt_has_bytes() {
        let receipt = Receipt { realm: Realm::new(7), writer: [9; 16], batch: 3, point: 77 };
        let bytes = receipt.encode();
        assert_eq!(Receipt::decode(&bytes).expect("its bytes"), receipt);
        for wrong in [&bytes[1..], &bytes[..48], &[]] {
            assert_eq!(Receipt::decode(wrong).expect_err("wrong").kind(), ErrorKind::Unsupported);
        }
    }
}
