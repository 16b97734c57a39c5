use std::collections::VecDeque;

use crate::error::Result;
use crate::protocol::Key;

/// A part of a sorted list of keys: [`Coordinator::list`](super::Coordinator::list) and [`Store::keys`](super::Store::keys) give one at
/// a time, so that no list has to fit into memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The keys, sorted, without duplicates. Only the last page may be empty.
    pub keys: Vec<Key>,
    /// There may be more keys behind the last one of these.
    pub more: bool,
}

impl Page {
    /// How many keys a page has where the store can read a part of the list.
    pub const SIZE: usize = 4096;

    /// The only page of a store that has all keys at hand, or reads all of them for any part: the keys of `sorted`
    /// after `after`.
    pub fn rest(mut sorted: Vec<Key>, after: Option<&Key>) -> Self {
        if let Some(after) = after {
            sorted.drain(..sorted.partition_point(|key| key <= after));
        }
        Self { keys: sorted, more: false }
    }
}

/// Reads all pages of a list, each from the last key of the one before.
pub(crate) async fn all<F>(page: impl Fn(Option<Key>) -> F) -> Result<Vec<Key>>
where
    F: Future<Output = Result<Page>>,
{
    let mut keys = Vec::new();
    loop {
        let next = page(keys.last().cloned()).await?;
        let more = next.more && !next.keys.is_empty();
        keys.extend(next.keys);
        if !more {
            return Ok(keys);
        }
    }
}

/// Goes through a list of keys, a few at a time.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    read: VecDeque<Key>,
    last: Option<Key>,
    ended: bool,
}

impl Walk {
    /// The next keys, `count` at most, with `page` to read more of them; none at the end.
    pub(crate) async fn next(
        &mut self,
        count: usize,
        page: impl AsyncFnOnce(Option<Key>) -> Result<Page>,
    ) -> Result<Vec<Key>> {
        if self.read.is_empty() && !self.ended {
            let page = page(self.last.take()).await?;
            self.ended = !page.more || page.keys.is_empty();
            self.last = page.keys.last().cloned();
            self.read = page.keys.into();
        }
        Ok(self.read.drain(..self.read.len().min(count)).collect())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn keys(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| Key::new(name).expect("a key")).collect()
    }

    fn page(after: Option<&Key>, size: usize) -> Page {
        let Page { mut keys, .. } = Page::rest(keys(&["/a", "/b", "/c", "/d", "/e"]), after);
        let more = keys.len() > size;
        keys.truncate(size);
        Page { keys, more }
    }

    /// Whatever size the pages have, each key comes once and in its order.
    #[test]
    fn pages_join_to_the_list() {
        let whole = keys(&["/a", "/b", "/c", "/d", "/e"]);
        for size in 1..7 {
            let joined = all(|after| async move { Ok(page(after.as_ref(), size)) }).now_or_never();
            assert_eq!(joined.expect("nothing waits").expect("pages"), whole, "pages of {size}");
            for count in 1..7 {
                let (mut walk, mut walked) = (Walk::default(), Vec::new());
                loop {
                    let some = walk.next(count, async |after| Ok(page(after.as_ref(), size))).now_or_never();
                    let some = some.expect("nothing waits").expect("pages");
                    if some.is_empty() {
                        break;
                    }
                    assert!(some.len() <= count);
                    walked.extend(some);
                }
                assert_eq!(walked, whole, "pages of {size}, {count} at a time");
            }
        }
    }

    /// A page after a key that is not in the list begins with the next key.
    #[test]
    fn the_rest_lies_behind_the_key() {
        let behind = Key::new("/b/x").expect("a key");
        assert_eq!(Page::rest(keys(&["/a", "/b", "/c"]), Some(&behind)), Page { keys: keys(&["/c"]), more: false });
        assert_eq!(Page::rest(keys(&["/a"]), None).keys, keys(&["/a"]));
    }
}
