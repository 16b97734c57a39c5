use std::sync::Arc;

use bytes::Bytes;

use super::packed::Packed;
use super::{Meta, Payload, Point, Realm, Version};
use crate::error::Result;

/// The earlier payloads of a record, newest first, each with the point where it took effect.
///
/// Records in memory share them: to put one more in front costs the same however many there are. What falls out of the
/// history at its end may be held for a while longer: the shared part is copied, and so cut, when it holds twice as many as
/// are shown.
#[derive(Clone, Default)]
pub struct History(Held);

#[derive(Clone)]
enum Held {
    Own(Vec<(Point, Payload)>),
    Packed(Packed),
    /// The first `shown` of a chain of `length`. None of them has bytes here, nor a value in a store.
    Chain {
        newest: Arc<Link>,
        shown: usize,
        length: usize,
    },
}

#[derive(Debug)]
struct Link {
    point: Point,
    payload: Payload,
    earlier: Option<Arc<Link>>,
}

impl Default for Held {
    fn default() -> Self {
        Self::Own(Vec::new())
    }
}

/// By a loop, for a chain may be longer than the stack is deep.
impl Drop for Link {
    fn drop(&mut self) {
        let mut next = self.earlier.take();
        while let Some(mut link) = next.and_then(Arc::into_inner) {
            next = link.earlier.take();
        }
    }
}

/// Whether it is a value in memory, or none: it has no bytes, and nothing is left to delete when it goes.
fn is_plain(payload: &Payload) -> bool {
    matches!(payload, Payload::Shared(_) | Payload::Deleted)
}

impl History {
    /// The newest of them first.
    pub fn iter(&self) -> HistoryIter<'_> {
        HistoryIter(match &self.0 {
            Held::Own(list) => At::Own(list.iter()),
            Held::Packed(packed) => At::Own(packed.list().iter()),
            Held::Chain { newest, shown, .. } => At::Chain { next: Some(newest), left: *shown },
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match &self.0 {
            Held::Own(list) => list.len(),
            Held::Packed(packed) => packed.len(),
            Held::Chain { shown, .. } => *shown,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn packed(packed: Packed) -> Self {
        Self(Held::Packed(packed))
    }

    /// As it is written in a record with this meta.
    ///
    /// # Errors
    /// A payload has no bytes, or the payloads are out of order.
    pub(super) fn entries(&self, meta: &Arc<Meta>) -> Result<Bytes> {
        if let Held::Packed(packed) = &self.0
            && let Some(entries) = packed.entries(meta)
        {
            return Ok(entries.clone());
        }
        Packed::of(Arc::clone(meta), self.iter()).map(Packed::into_entries)
    }

    /// See [`Packed::with`]. `None` also where it is not packed.
    pub(super) fn with_bytes(
        &self,
        point: Point,
        payload: &Payload,
        meta: &Arc<Meta>,
        limit: usize,
    ) -> Option<(Self, Vec<(Realm, Version)>)> {
        let (packed, trimmed) = match &self.0 {
            Held::Packed(packed) => packed.with(point, payload, meta, limit)?,
            Held::Own(list) if list.is_empty() => Packed::empty(Arc::clone(meta)).with(point, payload, meta, limit)?,
            Held::Own(_) | Held::Chain { .. } => return None,
        };
        Some((Self(Held::Packed(packed)), trimmed))
    }

    /// This with one more in front and at most `limit` in all, if nothing but values in memory is in it; else `None`.
    pub(super) fn with(&self, point: Point, payload: &Payload, limit: usize) -> Option<Self> {
        if limit == 0 || !is_plain(payload) {
            return None;
        }
        let (earlier, length) = match &self.0 {
            Held::Chain { newest, length, .. } if *length < 2 * limit => (Some(Arc::clone(newest)), *length),
            Held::Packed(_) => return None,
            Held::Own(list) if !list.iter().all(|(_, payload)| is_plain(payload)) => return None,
            _ => self.copied(limit - 1),
        };
        let shown = (self.len() + 1).min(limit);
        let newest = Arc::new(Link { point, payload: payload.clone(), earlier });
        Some(Self(Held::Chain { newest, shown, length: length + 1 }))
    }

    /// A chain of the newest, at most `most`, and its length.
    fn copied(&self, most: usize) -> (Option<Arc<Link>>, usize) {
        let kept: Vec<_> = self.iter().take(most).collect();
        let link = |earlier, &(point, payload): &(Point, &Payload)| {
            Some(Arc::new(Link { point, payload: payload.clone(), earlier }))
        };
        (kept.iter().rev().fold(None, link), kept.len())
    }
}

impl From<Vec<(Point, Payload)>> for History {
    fn from(list: Vec<(Point, Payload)>) -> Self {
        Self(Held::Own(list))
    }
}

impl FromIterator<(Point, Payload)> for History {
    fn from_iter<I: IntoIterator<Item = (Point, Payload)>>(items: I) -> Self {
        Self(Held::Own(items.into_iter().collect()))
    }
}

impl<'a> IntoIterator for &'a History {
    type Item = (Point, &'a Payload);
    type IntoIter = HistoryIter<'a>;

    fn into_iter(self) -> HistoryIter<'a> {
        self.iter()
    }
}

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Goes through a [`History`].
#[derive(Clone, Debug)]
pub struct HistoryIter<'a>(At<'a>);

#[derive(Clone, Debug)]
enum At<'a> {
    Own(std::slice::Iter<'a, (Point, Payload)>),
    Chain { next: Option<&'a Arc<Link>>, left: usize },
}

impl<'a> Iterator for HistoryIter<'a> {
    type Item = (Point, &'a Payload);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            At::Own(list) => list.next().map(|(point, payload)| (*point, payload)),
            At::Chain { next, left } => {
                *left = left.checked_sub(1)?;
                let link = (*next)?;
                *next = link.earlier.as_ref();
                Some((link.point, &link.payload))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Weak;

    use super::*;
    use crate::protocol::Shared;

    /// A chain shows the newest, in order, as many as it was last asked to, and holds at most twice as many.
    #[test]
    fn a_chain_shows_the_newest_and_lets_go_of_the_rest() {
        for limit in [1_usize, 2, 3, 8] {
            let mut history = History::default();
            let mut values: Vec<Weak<u64>> = Vec::new();
            for n in 0..100_u64 {
                let value = Arc::new(n);
                values.push(Arc::downgrade(&value));
                // Now and then less is asked for.
                let limit = if n % 31 == 30 { 1 } else { limit };
                let before = history.clone();
                let shown = before.iter().count();
                let payload = Payload::Shared(value as Shared);
                history = before.with(Point::new(n), &payload, limit).expect("values in memory");
                assert_eq!(before.iter().count(), shown);
                assert_eq!(history.len(), history.iter().count());
                assert_eq!(history.len(), (shown + 1).min(limit));
                for ((point, payload), n) in history.iter().zip((0..=n).rev()) {
                    let Payload::Shared(value) = payload else { unreachable!("only such were put in") };
                    assert_eq!((point, value.downcast_ref()), (Point::new(n), Some(&n)));
                }
                drop((before, payload));
                assert!(values.iter().filter(|value| value.strong_count() > 0).count() <= 2 * limit.max(8));
            }
            let held = values.iter().filter(|value| value.strong_count() > 0).count();
            assert!((limit.min(history.len())..=2 * limit).contains(&held), "{held} for {limit}");
        }
    }

    /// A long chain is dropped without going deep, and what has bytes or lies in a store is in no chain.
    #[test]
    fn a_chain_ends_flat_and_holds_values_in_memory_only() {
        let mut history = History::default();
        for n in 0..500_000 {
            history = history.with(Point::new(n), &Payload::Deleted, usize::MAX / 4).expect("no bytes");
        }
        drop(history);
        let inline = Payload::Inline(bytes::Bytes::from_static(b"x"));
        assert!(History::default().with(Point::ZERO, &inline, 3).is_none());
        let with_bytes: History = [(Point::ZERO, inline)].into_iter().collect();
        assert!(with_bytes.with(Point::new(1), &Payload::Deleted, 3).is_none());
    }
}
