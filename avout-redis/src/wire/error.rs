use avout_core::{Error, ErrorKind};
use avout_tls::Refused;
use redis::RedisError;

/// What an error of the driver means to the caller. `lost` is what it means that no reply came: [`ErrorKind::OutcomeUnknown`] for
/// what writes, since it was or may have been sent, and [`ErrorKind::Unavailable`] for what may be repeated.
///
/// A reply that is an error says that nothing was done: scripts compare first, and the server refuses them before
/// their first write.
pub(crate) fn classify(error: RedisError, lost: ErrorKind) -> Error {
    // What is refused in the handshake is refused each time.
    let told = match Refused::of(&error) {
        Some(refused) => refused.told(),
        None => {
            let (kind, message) = meaning(&error, lost);
            Error::new(kind, message)
        }
    };
    // A server that does not know AUTH or HELLO repeats what followed it: the user and the password.
    if error.to_string().contains("args beginning with") { told } else { told.with_source(error) }
}

/// Whether the server answered. If it did not, the connection is of no use any more.
pub(crate) fn is_answer(error: &RedisError) -> bool {
    matches!(error.kind(), redis::ErrorKind::Server(_) | redis::ErrorKind::Extension)
}

fn meaning(error: &RedisError, lost: ErrorKind) -> (ErrorKind, &'static str) {
    use redis::ErrorKind as K;
    match error.kind() {
        K::Server(_) | K::Extension => {}
        K::AuthenticationFailed => return (ErrorKind::Denied, "the server refuses this user or password"),
        K::InvalidClientConfig => {
            return (ErrorKind::InvalidInput, "the server's address or certificates cannot be used");
        }
        K::RESP3NotSupported => return (ErrorKind::Unsupported, OLD),
        _ if lost == ErrorKind::OutcomeUnknown => return (lost, "the request was sent, and its reply is lost"),
        _ => return (lost, "the server does not answer"),
    }
    // Of several commands the first that was refused.
    let answers = error.clone().into_server_errors();
    let answer = answers.as_deref().and_then(|answers| answers.first()).map(|(_, answer)| answer);
    let text = answer.and_then(|answer| answer.details()).unwrap_or_default();
    match answer.map(|answer| answer.code()).unwrap_or_default() {
        "LOADING" => (ErrorKind::Unavailable, "the server is reading its data"),
        "UNBLOCKED" => (ErrorKind::Unavailable, "the server was made a replica while it waited for its own"),
        "READONLY" => (ErrorKind::Unavailable, "the server is a replica, and not the master"),
        "MASTERDOWN" => (ErrorKind::Unavailable, "the server has no link to its master"),
        "MOVED" | "ASK" | "TRYAGAIN" => (ErrorKind::Unavailable, "the namespace's slot is being moved to another node"),
        "CLUSTERDOWN" => (ErrorKind::Unavailable, "the cluster is down"),
        "BUSY" => (ErrorKind::Unavailable, "the server is busy with another program's script"),
        "NOREPLICAS" => (ErrorKind::Unavailable, "fewer replicas are there than the server's min-replicas-to-write"),
        "MISCONF" => (ErrorKind::Unavailable, "the server takes no writes since it cannot write to its disk"),
        "OOM" => (ErrorKind::Full, "the server's memory is full up to maxmemory"),
        "NOPERM" => (ErrorKind::Denied, "this user may not run a command or use a key that avout needs"),
        "NOAUTH" | "WRONGPASS" => (ErrorKind::Denied, "the server refuses this user or password"),
        "DENIED" => (ErrorKind::Denied, "the server is in protected mode and takes no connections from other machines"),
        "WRONGTYPE" => (ErrorKind::Mismatch, "a key of the namespace holds something that avout did not write"),
        "CROSSSLOT" => (ErrorKind::Unsupported, "the server is of a cluster: use redis+cluster://"),
        _ if text.contains("max number of clients") => (ErrorKind::Unavailable, "the server has too many connections"),
        _ if text.contains("invalid DB index") || text.contains("DB index is out of range") => {
            (ErrorKind::InvalidInput, "the server has no database of this number")
        }
        _ if text.contains("unknown command") => (ErrorKind::Unsupported, OLD),
        _ => (ErrorKind::Unsupported, "the server refused the request"),
    }
}

/// What a server must be.
pub(crate) const OLD: &str = "avout needs Redis 7.0 or later, or Valkey, with scripts and sharded pub/sub";

pub(crate) const NO_POINTS: &str = "the namespace has had as many commits, or restarts, as it can have";

/// The namespace is not the one that was opened.
pub(crate) fn lost_namespace() -> Error {
    let message = "the namespace is gone from the server, or another one is in its place: restore it, or open it anew";
    Error::new(ErrorKind::StoreLost, message)
}

pub(crate) fn foreign() -> Error {
    Error::new(ErrorKind::Mismatch, "a key of the namespace holds something that avout did not write")
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn answer(text: &str) -> RedisError {
        let line = format!("-{text}\r\n");
        let value = redis::parse_redis_value(line.as_bytes()).expect("a reply");
        value.extract_error().expect_err("an error")
    }

    /// Each answer of the server has one kind, whatever was asked.
    #[test]
    fn each_answer_has_its_kind() {
        use ErrorKind::{Denied, Full, InvalidInput, Mismatch, Unavailable, Unsupported};
        let table = [
            ("LOADING Redis is loading the dataset in memory", Unavailable),
            ("READONLY You can't write against a read only replica.", Unavailable),
            ("UNBLOCKED force unblock from blocking operation", Unavailable),
            ("MASTERDOWN Link with MASTER is down", Unavailable),
            ("MOVED 3999 127.0.0.1:6381", Unavailable),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable),
            ("CLUSTERDOWN The cluster is down", Unavailable),
            ("BUSY Redis is busy running a script.", Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.", Unavailable),
            ("OOM command not allowed when used memory > 'maxmemory'.", Full),
            ("NOPERM this user has no permissions to run the 'hset' command", Denied),
            ("NOAUTH Authentication required.", Denied),
            ("WRONGPASS invalid username-password pair or user is disabled.", Denied),
            ("DENIED Redis is running in protected mode", Denied),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Mismatch),
            ("ERR max number of clients reached", Unavailable),
            ("ERR DB index is out of range", InvalidInput),
            ("ERR unknown command 'EVALSHA'", Unsupported),
            ("ERR something else", Unsupported),
        ];
        for (text, kind) in table {
            for lost in [Unavailable, ErrorKind::OutcomeUnknown] {
                let error = answer(text);
                assert!(is_answer(&error), "{text}");
                let error = classify(error, lost);
                assert_eq!(error.kind(), kind, "{text}");
                assert!(error.downcast_ref::<RedisError>().is_some());
            }
        }
    }

    /// A server that repeats the arguments of a command that it does not know is not quoted: they may be a password.
    #[test]
    fn repeats_no_arguments() {
        let text = "ERR unknown command `HELLO`, with args beginning with: `3` `AUTH` `app` `canary`";
        let error = classify(answer(text), ErrorKind::Unavailable);
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }

    /// No reply to what writes is an unknown outcome, whatever the transport says.
    #[test]
    fn no_reply_is_an_unknown_outcome() {
        for kind in
            [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset, io::ErrorKind::Other]
        {
            for lost in [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown] {
                let error = RedisError::from(io::Error::from(kind));
                assert!(!is_answer(&error));
                assert_eq!(classify(error, lost).kind(), lost);
            }
        }
    }

    /// A certificate that cannot be accepted now cannot be later; a connection that broke may come about.
    #[test]
    fn certificates_are_no_outage() {
        use avout_tls::rustls;
        use avout_tls::rustls::CertificateError as C;
        let broken = |error: rustls::Error| RedisError::from(io::Error::new(io::ErrorKind::InvalidData, error));
        for error in [C::UnknownIssuer, C::Expired, C::NotValidForName, C::BadSignature] {
            let error = classify(broken(rustls::Error::InvalidCertificate(error)), ErrorKind::Unavailable);
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        }
        let closed = classify(RedisError::from(io::Error::from(io::ErrorKind::UnexpectedEof)), ErrorKind::Unavailable);
        assert_eq!(closed.kind(), ErrorKind::Unavailable);
    }
}
