use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher, RandomState};
use std::sync::{Arc, LazyLock};

/// The most bytes that a key may have.
pub const MAX_KEY_BYTES: usize = 512;

/// The first part of the keys that the engine keeps for itself.
const RESERVED: &str = ".avout";

/// Where the records of other things than refs lie under the reserved part: `/.avout/<where>/<part>`, and then the thing's own key.
const OWNERS: &[(&str, &str)] = &[
    ("locks", "lock"),
    ("rw_locks", "read-write lock"),
    ("semaphores", "semaphore"),
    ("elections", "election"),
    ("conditions", "condition of the lock"),
    ("queues", "queue"),
    ("barriers", "barrier"),
    ("latches", "latch"),
    ("once", "once"),
];

/// The checked name of a ref, an atom or anything else that a coordinator or store keeps.
///
/// A key looks like a path: it starts with `/`; no part is empty, `.` or `..`; there are no
/// control characters; and it has at most 512 bytes ([`MAX_KEY_BYTES`]). Keys are compared as they are
/// written, with no normalisation. Those under `/.avout` are the engine's.
///
/// # Examples
/// ```
/// use avout_core::Key;
///
/// assert!(Key::new("/accounts/7").is_ok());
/// assert!(Key::new("accounts/7").is_err());
/// assert!(Key::new("/accounts//7").is_err());
/// ```
#[derive(Clone)]
pub struct Key {
    /// Of the text, with a random seed for each process. A key is looked up and compared far more often than made.
    hash: u64,
    text: Arc<str>,
}

/// What keys are hashed with.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

impl Key {
    /// The key with this text, which is known to break no rule.
    pub(super) fn of(text: Arc<str>) -> Self {
        Self { hash: HASHER.hash_one(&*text), text }
    }

    /// `/`, which holds all keys and is none itself.
    pub fn root() -> Self {
        Self::of("/".into())
    }

    /// A key of the engine's own.
    pub(crate) fn reserved(rest: &str) -> Self {
        Self::of(format!("/{RESERVED}/{rest}").into())
    }

    /// Whether the engine keeps this key for itself.
    pub fn is_reserved(&self) -> bool {
        self.text.strip_prefix('/').and_then(|rest| rest.split('/').next()) == Some(RESERVED)
    }

    /// Of a reserved key: what a user would call the thing whose record it is, and the key that the user has given it.
    pub(crate) fn owner(&self) -> Option<(&'static str, Self)> {
        let rest = self.text.strip_prefix('/')?.strip_prefix(RESERVED)?.strip_prefix('/')?;
        let (place, rest) = rest.split_once('/')?;
        let (_, what) = OWNERS.iter().find(|(known, _)| *known == place)?;
        let (_, own) = rest.split_once('/')?;
        Some((what, Self::of(format!("/{own}").into())))
    }

    /// Whether it is the floor or a slot, which commits touch besides what they are for.
    pub(crate) fn is_bookkeeping(&self) -> bool {
        let rest = self.text.strip_prefix('/').and_then(|rest| rest.strip_prefix(RESERVED));
        rest.is_some_and(|rest| rest == "/floor" || rest.starts_with("/slots/"))
    }

    /// Whether this key is `prefix` or lies under it, part by part: `/a/b` lies under `/a`, `/ab`
    /// does not.
    pub fn is_under(&self, prefix: &Key) -> bool {
        &*prefix.text == "/"
            || self.text.strip_prefix(&*prefix.text).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The key as it is written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::Key;

    /// A key lies under a prefix by whole parts.
    #[test]
    fn lies_under_by_parts() {
        let key = |name| Key::new(name).expect("a key");
        assert!(key("/a/b").is_under(&key("/a")));
        assert!(key("/a").is_under(&key("/a")));
        assert!(!key("/ab").is_under(&key("/a")));
        assert!(key("/ab").is_under(&Key::root()));
    }
}
