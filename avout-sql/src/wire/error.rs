use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use avout_core::{Error, ErrorKind};
use rusqlite::ErrorCode;
use rusqlite::ffi;

/// What an error of the driver means to the caller.
///
/// It is for everything but a COMMIT that failed: whether that one took effect is for
/// [`outcome`](crate::coordinator::outcome) to find out.
pub(crate) fn classify(error: rusqlite::Error) -> Error {
    let (kind, message) = meaning(&error);
    Error::new(kind, message).with_source(error)
}

fn meaning(error: &rusqlite::Error) -> (ErrorKind, &'static str) {
    use rusqlite::Error as E;
    let (code, extended) = match error {
        E::SqliteFailure(failure, _) => (failure.code, failure.extended_code),
        E::SqlInputError { error, .. } => (error.code, error.extended_code),
        E::InvalidColumnType(..)
        | E::IntegralValueOutOfRange(..)
        | E::FromSqlConversionFailure(..)
        | E::Utf8Error(..)
        | E::QueryReturnedNoRows => return (ErrorKind::Corrupt, "the file holds something that avout did not write"),
        E::InvalidPath(_) | E::NulError(_) => return (ErrorKind::InvalidInput, "the path is no file name"),
        _ => return (ErrorKind::Unsupported, "the SQLite driver refused the request"),
    };
    match (code, extended) {
        (_, ffi::SQLITE_READONLY_DBMOVED) => (ErrorKind::StoreLost, "the file was moved or deleted"),
        // Growing the shared-memory file fails with this, nearly always for want of room.
        (_, ffi::SQLITE_IOERR_SHMSIZE) | (ErrorCode::DiskFull, _) => (ErrorKind::Full, "there is no room on the disk"),
        (ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _) => {
            (ErrorKind::Unavailable, "another process kept the file locked for longer than the busy timeout")
        }
        (ErrorCode::FileLockingProtocolFailed, _) => {
            (ErrorKind::Unavailable, "the lock on the file was contended for too long")
        }
        (ErrorCode::ReadOnly, _) => (ErrorKind::Denied, "the file is read-only"),
        (ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied, _) => {
            (ErrorKind::Denied, "the file may not be used by this user")
        }
        (ErrorCode::DatabaseCorrupt, _) => (ErrorKind::Corrupt, "the file is damaged"),
        (ErrorCode::NotADatabase, _) => (ErrorKind::Corrupt, "the file is no SQLite database"),
        (ErrorCode::Unknown | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch, _) => {
            (ErrorKind::Corrupt, "the tables in the file are not as avout made them")
        }
        (ErrorCode::TooBig, _) => (ErrorKind::TooLarge, "SQLite takes values of less than 1,000,000,000 bytes"),
        (ErrorCode::CannotOpen, _) => (ErrorKind::Unavailable, "the file cannot be opened"),
        (ErrorCode::SystemIoFailure, _) => (ErrorKind::Unavailable, "reading or writing the file failed"),
        (ErrorCode::OutOfMemory, _) => (ErrorKind::Unavailable, "there is no memory left"),
        (ErrorCode::OperationInterrupted | ErrorCode::OperationAborted | ErrorCode::SchemaChanged, _) => {
            (ErrorKind::Unavailable, "the request was interrupted")
        }
        _ => (ErrorKind::Unsupported, "SQLite cannot do this here"),
    }
}

/// The same error with the path in its message, for what happens while a file is opened.
pub(crate) fn with_path(error: Error, path: &Path) -> Error {
    let renewed = Error::new(error.kind(), format!("{error}: {}", path.display()));
    match Cause::of(&Arc::new(error)) {
        Some(cause) => renewed.with_source(cause),
        None => renewed,
    }
}

/// The source of an error whose text another one has.
#[derive(Debug)]
struct Cause(Arc<Error>);

impl Cause {
    fn of(error: &Arc<Error>) -> Option<Self> {
        error.source().is_some().then(|| Self(Arc::clone(error)))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("told by SQLite")
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each code of SQLite has one kind.
    #[test]
    fn each_code_has_its_kind() {
        use ErrorKind::{Corrupt, Denied, Full, InvalidInput, StoreLost, TooLarge, Unavailable, Unsupported};
        let table = [
            (ffi::SQLITE_BUSY, Unavailable),
            (ffi::SQLITE_BUSY_RECOVERY, Unavailable),
            (ffi::SQLITE_BUSY_SNAPSHOT, Unavailable),
            (ffi::SQLITE_LOCKED, Unavailable),
            (ffi::SQLITE_PROTOCOL, Unavailable),
            (ffi::SQLITE_IOERR, Unavailable),
            (ffi::SQLITE_IOERR_FSYNC, Unavailable),
            (ffi::SQLITE_IOERR_WRITE, Unavailable),
            (ffi::SQLITE_IOERR_SHMSIZE, Full),
            (ffi::SQLITE_FULL, Full),
            (ffi::SQLITE_READONLY, Denied),
            (ffi::SQLITE_READONLY_DIRECTORY, Denied),
            (ffi::SQLITE_READONLY_DBMOVED, StoreLost),
            (ffi::SQLITE_PERM, Denied),
            (ffi::SQLITE_AUTH, Denied),
            (ffi::SQLITE_CORRUPT, Corrupt),
            (ffi::SQLITE_CORRUPT_INDEX, Corrupt),
            (ffi::SQLITE_NOTADB, Corrupt),
            (ffi::SQLITE_ERROR, Corrupt),
            (ffi::SQLITE_CONSTRAINT, Corrupt),
            (ffi::SQLITE_MISMATCH, Corrupt),
            (ffi::SQLITE_TOOBIG, TooLarge),
            (ffi::SQLITE_CANTOPEN, Unavailable),
            (ffi::SQLITE_NOMEM, Unavailable),
            (ffi::SQLITE_INTERRUPT, Unavailable),
            (ffi::SQLITE_SCHEMA, Unavailable),
            (ffi::SQLITE_NOLFS, Unsupported),
        ];
        for (code, kind) in table {
            let error = classify(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            assert_eq!(error.kind(), kind, "code {code}");
            assert!(error.downcast_ref::<rusqlite::Error>().is_some());
        }
        assert_eq!(classify(rusqlite::Error::QueryReturnedNoRows).kind(), Corrupt);
        assert_eq!(classify(rusqlite::Error::InvalidPath("x".into())).kind(), InvalidInput);
    }

    /// An error names the file, and keeps the driver's error.
    #[test]
    fn the_file_is_named() {
        let full = classify(rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), None));
        let error = with_path(full, Path::new("/data/x.db"));
        assert!(error.downcast_ref::<rusqlite::Error>().is_some());
        assert!(error.to_string().ends_with("no room on the disk: /data/x.db"), "{error}");
    }
}
