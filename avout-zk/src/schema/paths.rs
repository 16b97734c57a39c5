//! Where things lie under the namespace's znode, and how names are written.
//!
//! ```text
//! <namespace>/meta              format and realm
//! <namespace>/clock             each commit sets it: its mzxid is the point of the last one
//! <namespace>/era               which history the namespace is in, and where earlier ones ended
//! <namespace>/era/<era>         is there as long as the era lasts: each commit checks that it is
//! <namespace>/era/entered       each new connection sets it, to learn which epoch it is
//! <namespace>/floor             the record of the key /.avout/floor; empty while there is none
//! <namespace>/refs/<xx>/<key>   the record of a key
//! <namespace>/values/<xx>/<key>/<version>               a value of a ref
//! <namespace>/values/<xx>/<key>/<version>.<set>.<n>     a part of a large one
//! <namespace>/atoms/<xx>/<key>                          the state of an atom; empty while there is none
//! <namespace>/atoms/<xx>/<key>/<set>.<n>                a part of a large one
//! ```
//! `xx` is a bucket, by the key's CRC-32, so that no znode has all keys as its children.

use std::fmt::Write as _;

use avout_core::backend::history::Era;
use avout_core::protocol::{Floor, Key, Version};

/// How many buckets `refs`, `values` and `atoms` have each. A part of the format.
pub(crate) const BUCKETS: u32 = 64;

const ENTERED: &str = "entered";

/// The three folders that are split into buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Folder {
    Refs,
    Values,
    Atoms,
}

impl Folder {
    pub(crate) const ALL: [Self; 3] = [Self::Refs, Self::Values, Self::Atoms];

    fn name(self) -> &'static str {
        match self {
            Self::Refs => "refs",
            Self::Values => "values",
            Self::Atoms => "atoms",
        }
    }
}

/// The paths of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// The namespace's znode, such as `/app/state`.
    pub(crate) root: String,
    pub(crate) meta: String,
    pub(crate) clock: String,
    pub(crate) floor: String,
    pub(crate) era: String,
    /// Set by each new connection.
    pub(crate) entered: String,
}

impl Paths {
    pub(crate) fn new(root: String) -> Self {
        let under = |name: &str| format!("{root}/{name}");
        let [meta, clock, floor, era] = ["meta", "clock", "floor", "era"].map(under);
        Self { meta, clock, floor, entered: format!("{era}/{ENTERED}"), era, root }
    }

    /// The znode that is there as long as an era lasts.
    pub(crate) fn lasts(&self, era: Era) -> String {
        format!("{}/{}", self.era, super::eras::name(era))
    }

    /// The paths of all eras among the children of the znode `era`. There is one, unless somebody has deleted or made some by hand.
    pub(crate) fn eras<'a>(&'a self, children: &'a [String]) -> impl Iterator<Item = String> + 'a {
        children.iter().filter(|name| *name != ENTERED).map(|name| format!("{}/{name}", self.era))
    }

    pub(crate) fn folder(&self, folder: Folder) -> String {
        format!("{}/{}", self.root, folder.name())
    }

    pub(crate) fn bucket(&self, folder: Folder, bucket: u32) -> String {
        format!("{}/{}/{bucket:02x}", self.root, folder.name())
    }

    /// All buckets of a folder.
    pub(crate) fn buckets(&self, folder: Folder) -> impl Iterator<Item = String> + '_ {
        (0..BUCKETS).map(move |bucket| self.bucket(folder, bucket))
    }

    /// Where a key lies in a folder.
    pub(crate) fn key(&self, folder: Folder, key: &Key) -> String {
        let bucket = crc32fast::hash(key.as_str().as_bytes()) % BUCKETS;
        let mut path = self.bucket(folder, bucket);
        path.push('/');
        encode(key, &mut path);
        path
    }

    /// Where a value of a ref lies.
    pub(crate) fn value(&self, key: &Key, version: &Version) -> String {
        format!("{}/{version}", self.key(Folder::Values, key))
    }

    /// Where a key's record lies.
    pub(crate) fn record(&self, key: &Key) -> String {
        if *key == Floor::key() { self.floor.clone() } else { self.key(Folder::Refs, key) }
    }
}

/// Writes a key as the name of one znode: `/` as `:`, and as `%` and the hexadecimal digits of its UTF-8 bytes what
/// ZooKeeper takes in no name, and `:` and `%` themselves.
fn encode(key: &Key, out: &mut String) {
    let rest = key.as_str().strip_prefix('/').unwrap_or(key.as_str());
    for c in rest.chars() {
        match c {
            '/' => out.push(':'),
            // The server looks at UTF-16 units, so all beyond the first 65,536 characters are surrogates to it.
            '%' | ':' | '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}' | '\u{fff0}'.. => {
                let mut bytes = [0; 4];
                for byte in c.encode_utf8(&mut bytes).bytes() {
                    write!(out, "%{byte:02X}").expect("a String takes all that is written");
                }
            }
            c => out.push(c),
        }
    }
}

/// The key whose znode has this name; `None` if avout gives no such name.
pub(crate) fn decode(name: &str) -> Option<Key> {
    let path = format!("/{}", name.replace(':', "/"));
    let key = percent_encoding::percent_decode_str(&path).decode_utf8().ok()?;
    let key = Key::from_stored(key).ok()?;
    let mut again = String::with_capacity(name.len());
    encode(&key, &mut again);
    (again == name).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(key: &str) -> String {
        let mut name = String::new();
        encode(&Key::from_stored(key).expect("a key"), &mut name);
        name
    }

    /// A key comes back from its name, different keys have different names, and no name has what ZooKeeper refuses.
    #[test]
    fn names_are_injective() {
        let keys = [
            "/a",
            "/a/b",
            "/a:b",
            "/a%2Fb",
            "/a%3Ab",
            "/a%253Ab",
            "/%",
            "/...",
            "/a/...",
            "/ä",
            "/日本",
            "/😀",
            "/\u{e000}",
            "/\u{fffd}",
            "/.avout/slots/00/1",
            "/a b",
            "/$where",
            "/'; --",
        ];
        let mut names = Vec::new();
        for key in keys {
            let name = encoded(key);
            assert_eq!(decode(&name).expect("its own name").as_str(), key, "{name}");
            assert!(!name.contains('/') && name != "." && name != "..", "{name}");
            assert!(name.encode_utf16().all(|c| !(0xd800..=0xf8ff).contains(&c) && c < 0xfff0), "{name}");
            names.push(name);
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), keys.len());
        assert_eq!(encoded("/accounts/7"), "accounts:7");
    }

    /// A name that avout does not give is no key, even if it looks like one written otherwise.
    #[test]
    fn foreign_names_are_no_keys() {
        for name in ["a%2fb", "%41", "a::b", ".", "", "%", "%FF"] {
            assert_eq!(decode(name), None, "{name}");
        }
    }

    /// The floor has a place of its own; all others lie in their bucket.
    #[test]
    fn keys_have_their_places() {
        let paths = Paths::new("/app/x".to_owned());
        assert_eq!(paths.record(&Floor::key()), "/app/x/floor");
        let path = paths.record(&Key::from_stored("/count").expect("a key"));
        assert!(path.starts_with("/app/x/refs/") && path.ends_with("/count"), "{path}");
        assert_eq!(paths.buckets(Folder::Atoms).last().as_deref(), Some("/app/x/atoms/3f"));
    }
}
