//! The tables, and how they are made and upgraded.

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use crate::options::{Options, Place};
use crate::schema::clock::{Clock, Name};
use crate::wire::connection::patiently;
use crate::wire::error::classify;

/// Marks a file as one of avout's, for `file(1)` and for ourselves: "avou".
pub(crate) const APPLICATION_ID: i32 = i32::from_be_bytes(*b"avou");

/// The version of the tables below. A change that an older library cannot live with raises it.
pub(crate) const SCHEMA_VERSION: i32 = 3;

/// A record's revision is the point where it took effect, and a mark of the writer. No writer gives a point twice, so revisions are
/// unique for ever, also if an older copy of the file is put back: see `history.rs`.
///
/// The row of `refs` with the id 0 is no ref: it is the clock. Its point is that of the last commit, and its record names the
/// writer and the number of the last batch. It lies beside the refs that were made first, so that a commit to a small file
/// writes one page. `writers` says the same of all other clients: see `outcome.rs`.
const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL) WITHOUT ROWID;
    CREATE TABLE refs (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, point INTEGER NOT NULL,
        writer INTEGER NOT NULL DEFAULT 0, record BLOB NOT NULL);
    CREATE TABLE atoms (key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL,
        writer INTEGER NOT NULL DEFAULT 0, state BLOB NOT NULL);
    CREATE TABLE ref_values (key TEXT NOT NULL, version BLOB NOT NULL, state BLOB NOT NULL, PRIMARY KEY (key, version));
    CREATE TABLE writers (id BLOB PRIMARY KEY NOT NULL, batch INTEGER NOT NULL);
    INSERT INTO refs (id, key, point, record) VALUES (0, '', 0, x'');
";

/// Makes the tables of version 2 those of version 3. It takes no longer for a large file, and a client of the version before that has
/// the file open goes on.
const FROM_2: &str = "
    ALTER TABLE refs ADD COLUMN writer INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE atoms ADD COLUMN writer INTEGER NOT NULL DEFAULT 0;
";

/// Rows of clients that have ended are kept for this many later ones: they tell how a commit of unknown outcome ended, and whether what
/// others have seen of them is still there.
const KEPT_WRITERS: i64 = 4096;

/// What a file is before anything is done to it.
enum Found {
    Ours,
    /// Of the version before.
    Older,
    Empty,
}

/// Sees to it that the tables are there, adds a row for `writer`, and gives the realm and the clock.
///
/// Any number of processes may do this at once: the tables are made in one transaction by the first.
/// A file that is not ours is left as it is.
pub(crate) fn prepare(connection: &mut Connection, options: &Options, writer: Name) -> Result<(Realm, Clock)> {
    // A foreign file with a log is not to be checkpointed by our closing it.
    let checkpoint_on_close = |connection: &Connection, on: bool| {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !on).map(|_| ()).map_err(classify)
    };
    checkpoint_on_close(connection, false)?;
    if options.readonly {
        return patiently(options.busy_timeout, || look(connection));
    }
    patiently(options.busy_timeout, || {
        find(connection)?;
        if connection.is_readonly("main").map_err(classify)? {
            return Err(Error::new(ErrorKind::Denied, "the file is read-only"));
        }
        checkpoint_on_close(connection, true)?;
        if matches!(options.place, Place::File(_)) {
            use_log(connection, options)?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(classify)?;
        match find(&transaction)? {
            Found::Ours => Ok(()),
            Found::Older => upgrade(&transaction),
            Found::Empty => make(&transaction),
        }
        .map_err(classify)?;
        add_writer(&transaction, writer).map_err(classify)?;
        let found = (realm(&transaction)?, Clock::read(&transaction).map_err(classify)?);
        transaction.commit().map_err(classify)?;
        Ok(found)
    })
}

/// The realm and the clock of a file that is there, for a client that only reads.
fn look(connection: &mut Connection) -> Result<(Realm, Clock)> {
    let transaction = connection.transaction().map_err(classify)?;
    match find(&transaction)? {
        Found::Ours => Ok((realm(&transaction)?, Clock::read(&transaction).map_err(classify)?)),
        Found::Older => {
            let message =
                "the file has the tables of the version before, and readonly=true upgrades none: open it once to write";
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        Found::Empty => {
            Err(Error::new(ErrorKind::NotFound, "the file has no tables of avout, and readonly=true makes none"))
        }
    }
}

/// Looks at a file without changing it.
fn find(connection: &Connection) -> Result<Found> {
    let (application, version, tables): (i32, i32, i64) = connection
        .query_row(
            "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
                    (SELECT count(*) FROM sqlite_schema)",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(classify)?;
    match (application, version) {
        (APPLICATION_ID, SCHEMA_VERSION) => Ok(Found::Ours),
        (APPLICATION_ID, 2) => Ok(Found::Older),
        (APPLICATION_ID, _) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the file has schema version {version} and this library knows version {SCHEMA_VERSION}; \
                 {} the library",
                if version > SCHEMA_VERSION { "upgrade" } else { "downgrade" }
            ),
        )),
        (0, _) if tables == 0 => Ok(Found::Empty),
        _ => Err(Error::new(ErrorKind::Mismatch, "the file is the database of another application")),
    }
}

/// Turns the write-ahead log on, which the file then remembers.
///
/// SQLite does not call the busy handler here when another connection does the same, so it is tried again.
fn use_log(connection: &Connection, options: &Options) -> Result<()> {
    let deadline = std::time::Instant::now() + options.busy_timeout;
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode.map_err(classify) {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "SQLite's write-ahead log does not work on this file system",
                ));
            }
            // After any other error the connection may be in neither mode.
            Err(error) if is_locked(&error) && std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_micros(rand::random_range(200..2_000)));
            }
            Err(error) => return Err(error),
        }
    }
}

fn is_locked(error: &Error) -> bool {
    let code = error.downcast_ref().and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked))
}

fn make(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)?;
    let realm = Realm::random().number().to_be_bytes();
    connection.execute("INSERT INTO meta VALUES ('realm', ?1)", [realm])?;
    connection.pragma_update(None, "application_id", APPLICATION_ID)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

fn upgrade(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(FROM_2)?;
    connection.pragma_update(None, "user_version", SCHEMA_VERSION)
}

/// The realm in the file.
pub(crate) fn realm(connection: &Connection) -> Result<Realm> {
    let bytes = connection
        .query_row("SELECT value FROM meta WHERE name = 'realm'", [], |row| row.get::<_, [u8; 16]>(0))
        .optional()
        .map_err(classify)?
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, "the file has no realm"))?;
    Ok(Realm::new(u128::from_be_bytes(bytes)))
}

/// Adds the row of a new writer, and removes those of long ago.
pub(crate) fn add_writer(connection: &Connection, writer: Name) -> rusqlite::Result<()> {
    connection.execute("INSERT INTO writers (id, batch) VALUES (?1, 0)", [writer.bytes()])?;
    let row = connection.last_insert_rowid();
    connection.execute("DELETE FROM writers WHERE rowid <= ?1", [row - KEPT_WRITERS])?;
    Ok(())
}

/// Whether there were so many writers that rows of earlier ones were removed.
pub(crate) fn has_removed_writers(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) >= ?1 FROM writers", [KEPT_WRITERS], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of clients that died are kept for so many later ones, and no longer.
    #[test]
    fn old_writers_are_removed() {
        let connection = Connection::open_in_memory().expect("memory");
        make(&connection).expect("tables");
        let count =
            || -> i64 { connection.query_row("SELECT count(*) FROM writers", [], |row| row.get(0)).expect("a count") };
        for writer in 0..KEPT_WRITERS as u128 + 10 {
            add_writer(&connection, Name::from_bytes(writer.to_be_bytes())).expect("a row");
        }
        assert_eq!(count(), KEPT_WRITERS);
        let newest: i64 = connection
            .query_row("SELECT count(*) FROM writers WHERE id >= ?1", [10_u128.to_be_bytes()], |row| row.get(0))
            .expect("a count");
        assert_eq!(newest, KEPT_WRITERS);
    }
}
