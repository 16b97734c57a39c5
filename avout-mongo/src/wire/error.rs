use std::borrow::Cow;

use avout_core::{Error, ErrorKind};
use avout_tls::Refused;
use mongodb::error::{ErrorKind as Driver, WriteFailure};

/// What an error of the driver means to the caller, for reads and for writes that were surely not applied.
///
/// A write whose reply was lost is [`lost_write`]'s.
pub(crate) fn classify(error: mongodb::error::Error) -> Error {
    let told = refused(&error).map(|refused| told(&refused)).or_else(|| missing_feature(&error)).unwrap_or_else(|| {
        let (kind, message) = meaning(&error);
        Error::new(kind, message)
    });
    told.with_source(error)
}

/// The same for a write that takes effect by itself: where the request may have been sent and no reply tells of it, the
/// outcome is open.
pub(crate) fn lost_write(error: mongodb::error::Error) -> Error {
    if may_have_happened(&error) {
        return Error::new(ErrorKind::OutcomeUnknown, "the reply to a write was lost").with_source(error);
    }
    classify(error)
}

fn meaning(error: &mongodb::error::Error) -> (ErrorKind, Cow<'static, str>) {
    let fixed = |kind, message: &'static str| (kind, Cow::Borrowed(message));
    match &*error.kind {
        Driver::Authentication { .. } => fixed(ErrorKind::Denied, CREDENTIALS),
        Driver::InvalidTlsConfig { .. } => fixed(ErrorKind::InvalidInput, "the TLS options cannot be used"),
        Driver::InvalidArgument { .. } => fixed(ErrorKind::InvalidInput, "the driver refuses the options"),
        Driver::ServerSelection { message, .. }
            if message.contains("SCRAM failure") || message.contains("Authentication") =>
        {
            fixed(ErrorKind::Denied, CREDENTIALS)
        }
        Driver::ServerSelection { .. } => fixed(ErrorKind::Unavailable, "no primary was found in time"),
        Driver::DnsResolve { .. } => fixed(ErrorKind::Unavailable, "the server's name cannot be resolved"),
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } => {
            fixed(ErrorKind::Unavailable, "the connection to the server was lost")
        }
        Driver::Shutdown => fixed(ErrorKind::Closed, "the client was closed"),
        Driver::SessionsNotSupported | Driver::IncompatibleServer { .. } => {
            fixed(ErrorKind::Unsupported, "the server is too old: MongoDB 5.0 or later is needed")
        }
        Driver::Command(command) => meaning_of(command.code, &command.message),
        Driver::Write(WriteFailure::WriteError(error)) => meaning_of(error.code, &error.message),
        Driver::Write(WriteFailure::WriteConcernError(_)) => {
            fixed(ErrorKind::Unavailable, "a majority of the servers did not confirm the write in time")
        }
        Driver::Bson(_) | Driver::BsonDeserialization(_) | Driver::InvalidResponse { .. } => {
            fixed(ErrorKind::Corrupt, "the reply is not what a MongoDB server answers")
        }
        _ => fixed(ErrorKind::Unsupported, "the MongoDB driver refused the request"),
    }
}

const CREDENTIALS: &str = "the server refuses these credentials";
const RIGHTS: &str = "this user may not: grant it readWrite on the database";

/// Why a TLS connection is not made, however often it is tried.
fn refused(error: &mongodb::error::Error) -> Option<Refused> {
    match &*error.kind {
        Driver::ServerSelection { message, .. } => Refused::of_text(message),
        Driver::Io(_) | Driver::ConnectionPoolCleared { .. } => Refused::of_text(&error.to_string()),
        _ => None,
    }
}

/// The same in the words of the driver's options.
pub(crate) fn told(refused: &Refused) -> Error {
    refused.told_as("tlsCAFile", "tlsCertificateKeyFile")
}

/// Features of the driver that avout does not switch on, and what needs them.
const FEATURES: [(&str, &str); 5] = [
    ("aws-auth", "authMechanism=MONGODB-AWS"),
    ("azure-oidc", "ENVIRONMENT:azure"),
    ("cert-key-password", "tlsCertificateKeyFilePassword"),
    ("gcp-oidc", "ENVIRONMENT:gcp"),
    ("gssapi-auth", "authMechanism=GSSAPI"),
];

/// What the driver was built without.
pub(crate) fn missing_feature(error: &mongodb::error::Error) -> Option<Error> {
    let (Driver::Authentication { message, .. } | Driver::InvalidArgument { message, .. }) = &*error.kind else {
        return None;
    };
    let message = message.replace('`', "");
    let missing = |(feature, _): &&(&str, &str)| message.contains(&format!("{feature} feature"));
    let (feature, needs) = FEATURES.iter().find(missing)?;
    let help = format!(
        "{needs} needs the driver's feature {feature}: add mongodb to the dependencies of your program, with \
         default-features = false and features = [\"{feature}\"]"
    );
    Some(Error::new(ErrorKind::InvalidInput, help))
}

/// What a server's error means, by its code and, where one code is used for many errors, by its message.
fn meaning_of(code: i32, message: &str) -> (ErrorKind, Cow<'static, str>) {
    match code {
        13 => (ErrorKind::Denied, missing_right(message)),
        // Atlas' own, for all kinds.
        8000 => atlas(message),
        _ => {
            let (kind, message) = meaning_of_code(code);
            (kind, message.into())
        }
    }
}

fn atlas(message: &str) -> (ErrorKind, Cow<'static, str>) {
    let message = message.to_lowercase();
    let has = |signs: &[&str]| signs.iter().any(|sign| message.contains(sign));
    if has(&["bad auth", "authentication failed"]) {
        (ErrorKind::Denied, CREDENTIALS.into())
    } else if has(&["not allowed to do action", "not authorized", "user is not allowed"]) {
        (ErrorKind::Denied, RIGHTS.into())
    } else if has(&["quota"]) {
        (ErrorKind::Full, "the cluster has no room left of its quota".into())
    } else {
        (ErrorKind::Unavailable, "Atlas could not do it now".into())
    }
}

/// The right that is missing, by a message as `not authorized on shop to execute command { find: "avout.refs", .. }`. The rest of the
/// command may hold values.
fn missing_right(message: &str) -> Cow<'static, str> {
    let plain = |text: &&str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || "_-.$".contains(c));
    let right = message.split_once("not authorized on ").and_then(|(_, rest)| {
        let (database, rest) = rest.split_once(" to execute command { ")?;
        let (command, rest) = rest.split_once(": ")?;
        let collection = rest.strip_prefix('"').and_then(|rest| rest.split_once('"')).map(|(name, _)| name);
        Some((Some(database).filter(plain)?, Some(command).filter(plain)?, collection.filter(plain)))
    });
    match right {
        Some((database, command, Some(collection))) => {
            let or = if ["find", "aggregate"].contains(&command) { ", or read if it only reads" } else { "" };
            format!("this user may not {command} {database}.{collection}: grant it readWrite on {database}{or}").into()
        }
        Some((database, command, None)) => {
            format!("this user may not {command} on {database}: grant it readWrite on the namespace's database").into()
        }
        None => RIGHTS.into(),
    }
}

/// What a server's error code means. Their names are in MongoDB's `error_codes.yml`.
pub(crate) fn meaning_of_code(code: i32) -> (ErrorKind, &'static str) {
    match code {
        13 => (ErrorKind::Denied, RIGHTS),
        18 => (ErrorKind::Denied, CREDENTIALS),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Atlas has one code for all errors: each is of the kind that its message tells.
    #[test]
    fn errors_of_atlas_are_told_apart() {
        for (message, kind) in [
            ("bad auth : Authentication failed.", ErrorKind::Denied),
            ("user is not allowed to do action [find] on [shop.avout.refs]", ErrorKind::Denied),
            ("you are over your space quota, using 513 MB of 512 MB", ErrorKind::Full),
            ("connection limit reached", ErrorKind::Unavailable),
        ] {
            assert_eq!(meaning_of(8000, message).0, kind, "{message}");
        }
    }

    /// A missing right is named, and no value of the command is shown.
    #[test]
    fn missing_rights_are_named() {
        let message = "not authorized on shop to execute command { find: \"avout.refs\", filter: { _id: \"secret\" } }";
        let (kind, told) = meaning_of(13, message);
        let help = "this user may not find shop.avout.refs: grant it readWrite on shop, or read if it only reads";
        assert_eq!((kind, &*told), (ErrorKind::Denied, help));
        let (_, told) = meaning_of(13, "not authorized on admin to execute command { killSessions: [ { id: 1 } ] }");
        assert_eq!(told, "this user may not killSessions on admin: grant it readWrite on the namespace's database");
        assert_eq!(meaning_of(13, "whatever").1, RIGHTS);
    }
}
