//! What an answer means for the connection that it came with.

use std::sync::Arc;

use redis::{RedisError, ServerError};

use crate::options::Address;

/// What becomes of a connection after an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The error is about the request.
    Keep,
    /// The server may not be the master any more, and may be: whoever knows is asked, and reading goes on.
    Doubt,
    /// Nothing more is asked of this server.
    Leave,
    /// Nothing was done: the server does not know the connection's user any more.
    Anew,
    /// Nothing was done: the namespace has gone to this node, if that was told.
    Moved(Option<Address>),
    /// Nothing was done: the namespace is on its way to this node, and what was asked for is there already.
    Asked(Address),
    /// Nothing was done: the namespace is on its way to another node, and what was asked for is on both.
    Moving,
}

/// Looks at each answer of a request, which may have had several commands.
pub(crate) fn verdict(error: &RedisError) -> Verdict {
    match error.kind() {
        redis::ErrorKind::Server(_) | redis::ErrorKind::Extension => {}
        _ => return Verdict::Leave,
    }
    let answers = error.clone().into_server_errors();
    let verdicts = answers.iter().flat_map(|answers| answers.iter()).map(|(_, answer)| of(answer));
    verdicts.max_by_key(weight).unwrap_or(Verdict::Keep)
}

/// The commands of a request, by their place, that were answered with an error.
pub(crate) fn answered(error: &RedisError) -> Arc<[usize]> {
    let answers = error.clone().into_server_errors();
    answers.iter().flat_map(|answers| answers.iter()).map(|(place, _)| *place).collect()
}

fn weight(verdict: &Verdict) -> u8 {
    match verdict {
        Verdict::Keep => 0,
        Verdict::Doubt => 1,
        Verdict::Asked(_) => 2,
        Verdict::Moving => 3,
        Verdict::Anew => 4,
        Verdict::Moved(_) => 5,
        Verdict::Leave => 6,
    }
}

fn of(answer: &ServerError) -> Verdict {
    match answer.code() {
        "MOVED" => Verdict::Moved(answer.details().and_then(place)),
        "ASK" => answer.details().and_then(place).map_or(Verdict::Moving, Verdict::Asked),
        "TRYAGAIN" => Verdict::Moving,
        "NOREPLICAS" => Verdict::Doubt,
        "NOAUTH" => Verdict::Anew,
        // `UNBLOCKED`: it was made a replica while it waited for its own.
        "READONLY" | "CLUSTERDOWN" | "MASTERDOWN" | "LOADING" | "UNBLOCKED" => Verdict::Leave,
        _ => Verdict::Keep,
    }
}

/// `3999 127.0.0.1:6381`; without a host it is the one that was asked.
fn place(details: &str) -> Option<Address> {
    let (host, port) = details.split_ascii_whitespace().nth(1)?.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some(Address { host, port: port.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn answer(text: &str) -> RedisError {
        let value = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).expect("a reply");
        value.extract_error().expect_err("an error")
    }

    fn at(host: &str, port: u16) -> Verdict {
        Verdict::Moved(Some(Address { host: host.to_owned(), port }))
    }

    /// Each answer decides in one way what becomes of its connection.
    #[test]
    fn each_answer_has_one_verdict() {
        let table = [
            ("READONLY You can't write against a read only replica.", Verdict::Leave),
            ("CLUSTERDOWN The cluster is down", Verdict::Leave),
            ("MASTERDOWN Link with MASTER is down", Verdict::Leave),
            ("LOADING Redis is loading the dataset in memory", Verdict::Leave),
            ("UNBLOCKED force unblock from blocking operation, instance state changed", Verdict::Leave),
            ("NOREPLICAS Not enough good replicas to write.", Verdict::Doubt),
            ("ASK 1 127.0.0.1:6381", Verdict::Asked(Address { host: "127.0.0.1".to_owned(), port: 6381 })),
            ("ASK", Verdict::Moving),
            ("TRYAGAIN Multiple keys request during rehashing of slot", Verdict::Moving),
            ("MOVED 1 127.0.0.1:6381", at("127.0.0.1", 6381)),
            ("MOVED 1 [::1]:6381", at("::1", 6381)),
            ("MOVED 1 :6381", at("", 6381)),
            ("MOVED", Verdict::Moved(None)),
            ("OOM command not allowed when used memory > 'maxmemory'.", Verdict::Keep),
            ("NOSCRIPT No matching script.", Verdict::Keep),
            ("NOAUTH Authentication required.", Verdict::Anew),
            ("NOPERM this user has no permissions to run the 'hset' command", Verdict::Keep),
            ("BUSY Redis is busy running a script.", Verdict::Keep),
            ("ERR something else", Verdict::Keep),
        ];
        for (text, expected) in table {
            assert_eq!(verdict(&answer(text)), expected, "{text}");
        }
    }

    /// No answer ends the connection.
    #[test]
    fn no_answer_ends_it() {
        for kind in [io::ErrorKind::TimedOut, io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset] {
            assert_eq!(verdict(&RedisError::from(io::Error::from(kind))), Verdict::Leave);
        }
    }
}
