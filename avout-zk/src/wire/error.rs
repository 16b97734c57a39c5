use avout_core::{Error, ErrorKind};
use zookeeper::Error as Zk;

/// What an error of a request means to the caller that reads, or that may repeat what it wrote.
pub(crate) fn classify(error: Zk) -> Error {
    let (kind, message) = meaning(&error);
    Error::new(kind, message).with_source(error)
}

/// What a request needs of a znode's ACL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    Read,
    Write,
    /// For a znode below it.
    Create,
    /// For a znode below it.
    Delete,
}

/// As [`classify`], and where the server refuses the user it names the right and the znode.
pub(crate) fn classify_at(error: Zk, right: Right, path: &str) -> Error {
    if error != Zk::NoAuth {
        return classify(error);
    }
    let (may, letter) = match right {
        Right::Read => ("read", 'r'),
        Right::Write => ("write", 'w'),
        Right::Create => ("create znodes below", 'c'),
        Right::Delete => ("delete znodes below", 'd'),
    };
    let message =
        format!("ZooKeeper does not let this user {may} {path}: grant it \"{letter}\" there (getAcl, setAcl)");
    Error::new(ErrorKind::Denied, message).with_source(error)
}

/// The znode that one lies below.
pub(crate) fn parent(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(end) => &path[..end],
    }
}

/// What an error of a write means that was sent once: whatever is no answer of the server about this very request leaves
/// its outcome open.
///
/// The client fails all requests in flight with the error that ended the connection, so `SessionExpired` and `AuthFailed` tell
/// nothing of the one request.
pub(crate) fn classify_write(error: Zk) -> Error {
    if is_refusal(&error) {
        return classify(error);
    }
    Error::new(ErrorKind::OutcomeUnknown, "the connection was lost before the server's reply came").with_source(error)
}

/// Whether the server answered that it did not do what was asked.
fn is_refusal(error: &Zk) -> bool {
    matches!(
        error,
        Zk::NoNode
            | Zk::NoAuth
            | Zk::BadVersion
            | Zk::NoChildrenForEphemerals
            | Zk::NodeExists
            | Zk::NotEmpty
            | Zk::InvalidAcl
            | Zk::NotReadOnly
            | Zk::QuotaExceeded
            | Zk::Throttled
            | Zk::MarshallingError
            | Zk::Unimplemented
            | Zk::BadArguments(_)
    )
}

fn meaning(error: &Zk) -> (ErrorKind, &'static str) {
    match error {
        Zk::NoAuth => (ErrorKind::Denied, "ZooKeeper refuses this user: look at the ACLs of the namespace (getAcl)"),
        Zk::AuthFailed => (ErrorKind::Denied, "ZooKeeper refuses the user or the password"),
        Zk::InvalidAcl => (ErrorKind::Denied, "ZooKeeper refuses the ACL: creator-only needs an authenticated user"),
        Zk::QuotaExceeded => (ErrorKind::Full, "a quota on the namespace or above it is used up (listquota, setquota)"),
        Zk::Unimplemented => (
            ErrorKind::Unsupported,
            "the server is too old: ZooKeeper 3.6 or later is needed, for multi-reads and watches",
        ),
        Zk::BadArguments(_) => (ErrorKind::InvalidInput, "ZooKeeper takes no such path or address"),
        Zk::NoNode => (ErrorKind::StoreLost, "a znode of the namespace is gone: it was deleted by somebody"),
        Zk::NodeExists | Zk::NotEmpty | Zk::BadVersion | Zk::NoChildrenForEphemerals | Zk::RuntimeInconsistent => {
            (ErrorKind::Corrupt, "the znodes of the namespace are not as avout made them")
        }
        Zk::UnmarshalError { .. } => (ErrorKind::Unsupported, "the server's answer is not understood"),
        Zk::MarshallingError => (ErrorKind::Unsupported, "the server does not understand the request"),
        Zk::NotReadOnly => (ErrorKind::Unavailable, "the server has lost its ensemble and takes no writes"),
        Zk::Throttled => (ErrorKind::Unavailable, "the server is overloaded"),
        Zk::NoHosts | Zk::Timeout => (ErrorKind::Unavailable, "no server of the ensemble answers"),
        Zk::SessionExpired | Zk::SessionMoved => (ErrorKind::Unavailable, "the session expired"),
        Zk::ClientClosed => (ErrorKind::Unavailable, "the connection was closed"),
        _ => (ErrorKind::Unavailable, "the connection to the server was lost"),
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the client was closed: open the namespace again")
}

pub(crate) fn eras_change() -> Error {
    Error::new(ErrorKind::Unavailable, "others begin eras of the namespace all the time")
}

/// The server answered something else than was asked for.
pub(crate) fn unexpected() -> Error {
    Error::new(ErrorKind::Unsupported, "the server's answer is not understood")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the server says of a request is a definite failure; what says nothing of it leaves a write open.
    #[test]
    fn a_write_is_open_unless_the_server_refused_it() {
        for (error, read, write) in [
            (Zk::NoAuth, ErrorKind::Denied, ErrorKind::Denied),
            (Zk::InvalidAcl, ErrorKind::Denied, ErrorKind::Denied),
            (Zk::QuotaExceeded, ErrorKind::Full, ErrorKind::Full),
            (Zk::Unimplemented, ErrorKind::Unsupported, ErrorKind::Unsupported),
            (Zk::NotReadOnly, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (Zk::Throttled, ErrorKind::Unavailable, ErrorKind::Unavailable),
            (Zk::NoNode, ErrorKind::StoreLost, ErrorKind::StoreLost),
            (Zk::AuthFailed, ErrorKind::Denied, ErrorKind::OutcomeUnknown),
            (Zk::ConnectionLoss, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::SessionExpired, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::SessionMoved, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::ClientClosed, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::Timeout, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::NoHosts, ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::UnexpectedErrorCode(-2), ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
            (Zk::UnexpectedError("x".to_owned()), ErrorKind::Unavailable, ErrorKind::OutcomeUnknown),
        ] {
            assert_eq!(classify(error.clone()).kind(), read, "{error}");
            assert_eq!(classify_write(error.clone()).kind(), write, "{error}");
        }
    }

    /// An old server is named as such, with the version that is needed.
    #[test]
    fn an_old_server_is_told_by_version() {
        assert!(classify(Zk::Unimplemented).to_string().contains("3.6"));
    }

    /// A refusal names the right and the znode whose ACL lacks it.
    #[test]
    fn a_refusal_names_the_right() {
        let told = classify_at(Zk::NoAuth, Right::Create, parent("/app/state"));
        assert_eq!(told.kind(), ErrorKind::Denied);
        assert!(told.to_string().contains("create znodes below /app:"), "{told}");
        assert_eq!(classify_at(Zk::NoNode, Right::Read, "/a").kind(), ErrorKind::StoreLost);
        assert_eq!(parent("/app"), "/");
    }
}
