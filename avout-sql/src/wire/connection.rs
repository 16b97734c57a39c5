use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use avout_core::Result;
use rusqlite::{Connection, OpenFlags};

use crate::options::{Options, Place, Synchronous};
use crate::wire::error::classify;
use crate::wire::file::File;

thread_local! {
    static PATIENCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Runs `f` with leave to wait for locks of other connections, `timeout` in all.
///
/// Outside of this a lock is an error at once: the threads of the async runtime never sleep.
pub(crate) fn patiently<T>(timeout: Duration, f: impl FnOnce() -> T) -> T {
    let deadline = Instant::now().checked_add(timeout);
    let before = PATIENCE.replace(deadline);
    let result = f();
    PATIENCE.set(before);
    result
}

/// After so many tries, which is about 80 ms, a lock is taken for one that is held for long.
const MANY_TRIES: i32 = 100;

/// Decides whether to try a lock again, after a pause.
///
/// Pauses are short and random: SQLite has no queue for its write lock, so processes that poll in step,
/// or ever more rarely, as exponential back-off would have it, starve behind one that commits without a pause. A commit takes a
/// fraction of a millisecond; who has waited for many of them waits for something longer, and may look more rarely.
fn busy(tries: i32) -> bool {
    let Some(deadline) = PATIENCE.get() else {
        return false;
    };
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    let longest = if tries < MANY_TRIES { 100 << tries.clamp(0, 4) } else { 3_200 };
    thread::sleep(Duration::from_micros(rand::random_range(50..=longest)).min(left));
    true
}

/// A connection as all of this crate are, to the file or to a new store in memory. May wait for a lock.
pub(crate) fn connect(options: &Options, file: Option<&File>) -> Result<Connection> {
    let mut connection = match (&options.place, file) {
        (Place::File(_), Some(file)) => {
            // No CREATE: the file is made with its mode set, by `File::prepare`. No URI: a path is a path.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX
                | OpenFlags::SQLITE_OPEN_NOFOLLOW
                | OpenFlags::SQLITE_OPEN_EXRESCODE;
            Connection::open_with_flags(file.path(), flags).map_err(classify)?
        }
        _ => Connection::open_in_memory().map_err(classify)?,
    };
    connection.busy_handler(Some(busy)).map_err(classify)?;
    connection.set_prepared_statement_cache_capacity(64);
    let (synchronous, fullfsync) = match options.synchronous {
        Synchronous::Full => ("FULL", "ON"),
        Synchronous::Normal => ("NORMAL", "OFF"),
    };
    let query_only = if options.readonly { "ON" } else { "OFF" };
    // Some of these read the file, which others may be making or recovering just now.
    // No memory map: a file that somebody cuts would kill the process with SIGBUS.
    // On macOS an fsync leaves the data in the disk's own memory, which the loss of power empties; only a full one does not. Where the log
    // is written back the order matters even if the last commits do not. Other systems ignore both.
    let pragmas = format!(
        "PRAGMA synchronous = {synchronous}; PRAGMA trusted_schema = OFF; PRAGMA mmap_size = 0;
         PRAGMA journal_size_limit = 67108864; PRAGMA fullfsync = {fullfsync};
         PRAGMA checkpoint_fullfsync = ON; PRAGMA query_only = {query_only};"
    );
    match patiently(options.busy_timeout, || connection.execute_batch(&pragmas)).map_err(classify) {
        Ok(()) => Ok(connection),
        Err(error) => Err(match file {
            Some(file) => file.cause(&connection, error),
            None => error,
        }),
    }
}

/// Ends a transaction that is still open, whatever state it is in.
pub(crate) fn roll_back(connection: &Connection) {
    if !connection.is_autocommit()
        && let Err(error) = connection.execute_batch("ROLLBACK")
    {
        tracing::warn!(%error, "a transaction could not be rolled back");
    }
}

/// Runs a fixed statement that gives no rows, prepared once.
pub(crate) fn run(connection: &Connection, sql: &'static str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What makes commits survive the loss of power is on, on each connection, also where only macOS heeds it.
    #[test]
    fn a_commit_survives_the_loss_of_power() {
        let folder = tempfile::tempdir().expect("a folder");
        for (synchronous, expected) in [(Synchronous::Full, [2, 1, 1]), (Synchronous::Normal, [1, 0, 1])] {
            let options = Options::new(folder.path().join("state.db")).synchronous(synchronous);
            let Place::File(path) = &options.place else { panic!("a file") };
            let file = File::prepare(path, true).expect("a file");
            let connection = connect(&options, Some(&file)).expect("a connection");
            let pragma =
                |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).expect(name);
            assert_eq!(["synchronous", "fullfsync", "checkpoint_fullfsync"].map(pragma), expected, "{synchronous:?}");
        }
    }
}
