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

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use bytes::{BufMut, Bytes, BytesMut};
use rusqlite::{Connection, ErrorCode};

use crate::schema::clock::{Batch, Clock, Name};
use crate::wire::connection::{patiently, run};
use crate::wire::error::classify;

const FORMAT: u8 = 1;

/// Names a batch, and the point of one commit in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    pub(crate) realm: Realm,
    pub(crate) writer: Name,
    pub(crate) batch: i64,
    pub(crate) point: i64,
}

impl Receipt {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(49);
        out.put_u8(FORMAT);
        out.put_u128(self.realm.number());
        out.put_slice(&self.writer.bytes());
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
                writer: Name::from_bytes(*writer),
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
pub(crate) fn decide(connection: &Connection, timeout: Duration, writer: Name, batch: i64) -> Result<bool> {
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
            now.seal(connection, now.point, Batch { writer, number: batch + 1 }).map_err(classify)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A receipt comes back from its bytes; others are refused.
    #[test]
    fn a_receipt_has_bytes() {
        let receipt = Receipt { realm: Realm::new(7), writer: Name::from_bytes([9; 16]), batch: 3, point: 77 };
        let bytes = receipt.encode();
        assert_eq!(Receipt::decode(&bytes).expect("its bytes"), receipt);
        for wrong in [&bytes[1..], &bytes[..48], &[]] {
            assert_eq!(Receipt::decode(wrong).expect_err("wrong").kind(), ErrorKind::Unsupported);
        }
    }
}
