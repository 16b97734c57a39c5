use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use zookeeper::{CreateMode, CreateOptions};

use crate::options::Options;

/// The layout that this library knows.
const FORMAT: u32 = 1;

/// What is known of a namespace that is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Opened {
    pub(crate) realm: Realm,
    /// Where the clock was made: another clock is another namespace.
    pub(crate) clock_made: i64,
}

/// The options of all znodes that the client makes.
pub(crate) fn made_by(options: &Options, mode: CreateMode) -> CreateOptions<'_> {
    mode.with_acls(options.acls())
}

/// What their ACL takes of a request.
pub(crate) fn acl_bytes(options: &Options) -> usize {
    options.acls().iter().map(|grant| 12 + grant.scheme().len() + grant.id().len()).sum::<usize>() + 4
}

/// What the znode `meta` holds.
pub(crate) fn text(realm: Realm) -> String {
    format!("avout {FORMAT} {realm}")
}

/// Reads what it holds.
pub(crate) fn parse(meta: &[u8]) -> Result<Realm> {
    let text = str::from_utf8(meta).unwrap_or_default();
    let mut words = text.split(' ');
    let (name, format, realm) = (words.next(), words.next(), words.next());
    match (name, format.and_then(|format| format.parse::<u32>().ok())) {
        (Some("avout"), Some(FORMAT)) => match realm.map(str::parse) {
            Some(Ok(realm)) if words.next().is_none() => Ok(realm),
            _ => Err(Error::new(ErrorKind::Corrupt, "the znode meta of the namespace is not as avout made it")),
        },
        (Some("avout"), Some(found)) => {
            let message =
                format!("the namespace has layout {found}, and this library knows {FORMAT}: use another version");
            Err(Error::new(ErrorKind::Unsupported, message))
        }
        _ => Err(Error::new(ErrorKind::Mismatch, "the namespace belongs to another application: take another one")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A namespace's realm comes back; other formats and other applications are told apart.
    #[test]
    fn tells_what_a_namespace_is() {
        let realm = Realm::random();
        assert_eq!(parse(text(realm).as_bytes()).expect("its own"), realm);
        for (meta, kind) in [
            (format!("avout 2 {realm}"), ErrorKind::Unsupported),
            ("avout 1 7".to_owned(), ErrorKind::Corrupt),
            (format!("avout 1 {realm} x"), ErrorKind::Corrupt),
            ("kafka 1".to_owned(), ErrorKind::Mismatch),
            (String::new(), ErrorKind::Mismatch),
        ] {
            assert_eq!(parse(meta.as_bytes()).expect_err(&meta).kind(), kind, "{meta}");
        }
    }
}
