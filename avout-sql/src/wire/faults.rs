//! Faults of the disk that tests put in: no test can make a real one everywhere.

use std::sync::{Mutex, PoisonError};

use avout_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, ffi};

/// What happens to the next COMMIT.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// It fails and its frames are lost.
    Lost,
    /// It fails, and yet it happened, as after a recovery of the log.
    Happened,
    /// The disk is full.
    Full,
    /// It succeeds, and just then somebody renames the file, putting `.away` behind its name.
    Moved,
}

#[derive(Default)]
pub(crate) struct Faults(Mutex<State>);

#[derive(Default)]
struct State {
    commit: Option<Fault>,
    looks: u32,
}

impl Faults {
    /// The next COMMIT has this fault, and so many attempts to look how it ended fail.
    pub(crate) fn set(&self, commit: Fault, looks: u32) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = State { commit: Some(commit), looks };
    }

    pub(crate) fn commit(&self, connection: &Connection) -> Option<rusqlite::Result<()>> {
        let fault = self.0.lock().unwrap_or_else(PoisonError::into_inner).commit.take()?;
        let failed = |code| Some(Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)));
        let (sql, code) = match fault {
            Fault::Lost => ("ROLLBACK", ffi::SQLITE_IOERR_FSYNC),
            Fault::Happened => ("COMMIT", ffi::SQLITE_IOERR_FSYNC),
            Fault::Full => ("ROLLBACK", ffi::SQLITE_FULL),
            Fault::Moved => {
                let done = connection.execute_batch("COMMIT");
                let path = connection.path().expect("a file");
                std::fs::rename(path, format!("{path}.away")).expect("renamed");
                return Some(done);
            }
        };
        match connection.execute_batch(sql) {
            Ok(()) => failed(code),
            Err(error) => Some(Err(error)),
        }
    }

    pub(crate) fn look(&self) -> Result<()> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looks == 0 {
            return Ok(());
        }
        state.looks -= 1;
        Err(Error::new(ErrorKind::Unavailable, "a fault of the test"))
    }
}
