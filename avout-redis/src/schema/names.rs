//! The names of what lies in Redis.

use avout_core::backend::Kind;
use avout_core::protocol::{Key, SessionId};

/// The keys of one namespace. All have the same hash tag, so that they lie in one slot of a cluster and one script
/// can use them all.
///
/// | key | type | holds |
/// | --- | --- | --- |
/// | `{ns}:meta` | hash | format, realm, the server's identity, eras |
/// | `{ns}:cells` | hash | the clock under the empty field, records under `/key`, states of atoms under `@/key` |
/// | `{ns}:names` | sorted set, by name | the fields of `cells` but the clock, and `v/key` for each ref with values |
/// | `{ns}:v/key` | hash | the values of a ref that are not in its record, by version |
/// | `{ns}:s/id` | hash, with a time to live | a session of a client |
#[derive(Debug)]
pub(crate) struct Names {
    pub(crate) meta: String,
    pub(crate) cells: String,
    pub(crate) names: String,
    values: String,
    sessions: String,
}

impl Names {
    /// The namespace is percent-encoded but for letters, digits and `-_./`, so that no brace ends the tag early and that
    /// two namespaces never share a key.
    pub(crate) fn new(namespace: &str) -> Self {
        let mut tag = String::with_capacity(namespace.len());
        for byte in namespace.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'/' => tag.push(byte.into()),
                _ => tag.push_str(&format!("%{byte:02X}")),
            }
        }
        let name = |rest| format!("{{{tag}}}:{rest}");
        Self { meta: name("meta"), cells: name("cells"), names: name("names"), values: name("v"), sessions: name("s") }
    }

    /// The hash with a ref's values.
    pub(crate) fn values(&self, key: &Key) -> String {
        format!("{}{key}", self.values)
    }

    /// The key of a session.
    pub(crate) fn session(&self, id: SessionId) -> String {
        format!("{}/{id}", self.sessions)
    }

    /// The channel that tells of changes of a field.
    pub(crate) fn channel(&self, field: &str) -> String {
        format!("{}{field}", self.cells)
    }
}

/// The field of an atom's state.
pub(crate) fn atom_field(key: &Key) -> String {
    format!("@{key}")
}

/// The member of `names` that says that a ref has values.
pub(crate) fn values_member(key: &Key) -> String {
    format!("v{key}")
}

/// What comes before the key in the members of `names`.
pub(crate) fn mark(kind: Option<Kind>) -> &'static str {
    match kind {
        None => "",
        Some(Kind::Atom) => "@",
        Some(Kind::Ref) => "v",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two namespaces never share a key, and each has one hash tag.
    #[test]
    fn namespaces_are_apart() {
        let all = ["a", "a}b", "a}:cells", "{a", "a%7Db", "", "ä", "a b"].map(|namespace| Names::new(namespace).cells);
        for (n, name) in all.iter().enumerate() {
            assert!(name.ends_with("}:cells") && name.matches(['{', '}']).count() == 2, "{name}");
            assert!(!all[n + 1..].contains(name), "{name}");
        }
        assert_eq!(all[1], "{a%7Db}:cells");
        assert_eq!(all[4], "{a%257Db}:cells");
    }
}
