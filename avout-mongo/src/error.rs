use avout_core::{Error, ErrorKind};
use mongodb::error::{ErrorKind as Driver, WriteFailure};

/// What an error of the driver means to the caller, for reads and for writes that were surely not applied.
///
/// A write whose reply was lost is [`lost_write`]'s.
pub(crate) fn classify(error: mongodb::error::Error) -> Error {
    let (kind, message) = meaning(&error);
    Error::new(kind, message).with_source(error)
}

/// The same for a write that takes effect by itself: where the request may have been sent and no reply tells of it, the
/// outcome is open.
pub(crate) fn lost_write(error: mongodb::error::Error) -> Error {
    if may_have_happened(&error) {
        return Error::new(ErrorKind::OutcomeUnknown, "the reply to a write was lost").with_source(error);
    }
    classify(error)
}

fn meaning(error: &mongodb::error::Error) -> (ErrorKind, &'static str) {
    match &*error.kind {
        Driver::Authentication { .. } => (ErrorKind::Denied, "the server refuses these credentials"),
        Driver::InvalidTlsConfig { .. } => (ErrorKind::InvalidInput, "the TLS options cannot be used"),
        Driver::InvalidArgument { .. } => (ErrorKind::InvalidInput, "the driver refuses the options"),
        Driver::ServerSelection { message, .. }
            if message.contains("SCRAM failure") || message.contains("Authentication") =>
        {
            (ErrorKind::Denied, "the server refuses these credentials")
        }
        Driver::ServerSelection { .. } => (ErrorKind::Unavailable, "no primary was found in time"),
        Driver::DnsResolve { .. } => (ErrorKind::Unavailable, "the server's name cannot be resolved"),
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } => {
            (ErrorKind::Unavailable, "the connection to the server was lost")
        }
        Driver::Shutdown => (ErrorKind::Closed, "the client was closed"),
        Driver::SessionsNotSupported | Driver::IncompatibleServer { .. } => {
            (ErrorKind::Unsupported, "the server is too old: MongoDB 5.0 or later is needed")
        }
        Driver::Command(command) => meaning_of_code(command.code),
        Driver::Write(WriteFailure::WriteError(error)) => meaning_of_code(error.code),
        Driver::Write(WriteFailure::WriteConcernError(_)) => {
            (ErrorKind::Unavailable, "a majority of the servers did not confirm the write in time")
        }
        Driver::Bson(_) | Driver::BsonDeserialization(_) | Driver::InvalidResponse { .. } => {
            (ErrorKind::Corrupt, "the reply is not what a MongoDB server answers")
        }
        _ => (ErrorKind::Unsupported, "the MongoDB driver refused the request"),
    }
}

/// What a server's error code means. Their names are in MongoDB's `error_codes.yml`.
pub(crate) fn meaning_of_code(code: i32) -> (ErrorKind, &'static str) {
    match code {
        13 => (ErrorKind::Denied, "this user may not: grant it readWrite on the database"),
        8000 | 18 => (ErrorKind::Denied, "the server refuses these credentials"),
        20 | 263 | 123 => (ErrorKind::Unsupported, "the server has no transactions: it is no member of a replica set"),
        72 | 9 | 2 | 59 => {
            (ErrorKind::Unsupported, "the server does not know the request: MongoDB 5.0 or later is needed")
        }
        239 | 246 => (ErrorKind::TooOld, "the server no longer holds that point: take a new one"),
        14031 | 9002 => (ErrorKind::Full, "the server has no room on its disk"),
        10334 | 17280 | 257 => (ErrorKind::TooLarge, "more than a MongoDB document or transaction takes"),
        // Interrupted, stepped down, shutting down, no primary, locks and conflicts: all pass.
        _ => (ErrorKind::Unavailable, "the server could not do it now"),
    }
}

/// Whether the request may have been sent, and what it asked may have been done or may still be.
fn may_have_happened(error: &mongodb::error::Error) -> bool {
    match &*error.kind {
        // Nothing is sent before a server was selected and a connection was there.
        Driver::ServerSelection { .. }
        | Driver::DnsResolve { .. }
        | Driver::Authentication { .. }
        | Driver::InvalidArgument { .. }
        | Driver::InvalidTlsConfig { .. }
        | Driver::IncompatibleServer { .. }
        | Driver::SessionsNotSupported
        | Driver::Shutdown => false,
        Driver::Command(command) => interrupted(command.code),
        Driver::Write(WriteFailure::WriteError(_)) => false,
        _ => true,
    }
}

/// Codes of a server that was interrupted, perhaps after the write: it stepped down, shuts down, or ran out of time.
pub(crate) fn interrupted(code: i32) -> bool {
    matches!(
        code,
        6 | 7 | 50 | 64 | 89 | 91 | 189 | 262 | 9001 | 11600 | 11601 | 11602 | 10107 | 13435 | 13436 | 10058 | 290
    )
}

/// The server's code of an error, if it is a server's.
pub(crate) fn code(error: &mongodb::error::Error) -> Option<i32> {
    match &*error.kind {
        Driver::Command(command) => Some(command.code),
        Driver::Write(WriteFailure::WriteError(error)) => Some(error.code),
        _ => None,
    }
}
