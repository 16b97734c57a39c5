use std::collections::HashMap;

use crate::protocol::Key;

/// Up to this many keys are found by looking at each.
const FEW: usize = 16;

/// A map that keeps the order of insertion and is fastest for a few keys, as most transactions have.
#[derive(Debug)]
pub(crate) struct KeyMap<V> {
    items: Vec<(Key, V)>,
    /// Made once there are more than a few.
    index: Option<HashMap<Key, usize>>,
    /// The place after the one last found: keys are most often asked for in their order.
    next: usize,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { items: Vec::new(), index: None, next: 0 }
    }
}

impl<V> KeyMap<V> {
    fn position(&self, key: &Key) -> Option<usize> {
        match &self.index {
            None => self.items.iter().position(|(other, _)| other == key),
            Some(index) => index.get(key).copied(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Makes room for so many more keys.
    pub(crate) fn reserve(&mut self, keys: usize) {
        self.items.reserve(keys);
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&V> {
        self.position(key).map(|at| &self.items[at].1)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.position(key).map(|at| &mut self.items[at].1)
    }

    /// The value of `key`, made first if there is none.
    pub(crate) fn entry(&mut self, key: &Key) -> &mut V
    where
        V: Default,
    {
        let at = match self.items.get(self.next) {
            Some((next, _)) if next == key => self.next,
            _ => self.position(key).unwrap_or_else(|| self.push(key.clone(), V::default())),
        };
        self.next = at + 1;
        &mut self.items[at].1
    }

    /// The same with a key of its own.
    pub(crate) fn entry_of(&mut self, key: Key) -> &mut V
    where
        V: Default,
    {
        let at = match self.position(&key) {
            Some(at) => at,
            None => self.push(key, V::default()),
        };
        &mut self.items[at].1
    }

    /// Sets the value of `key`.
    pub(crate) fn insert(&mut self, key: Key, value: V) {
        match self.position(&key) {
            Some(at) => self.items[at].1 = value,
            None => {
                self.push(key, value);
            }
        }
    }

    /// Adds a key that is not there, and gives its place.
    pub(crate) fn push(&mut self, key: Key, value: V) -> usize {
        let at = self.items.len();
        if let Some(index) = &mut self.index {
            index.insert(key.clone(), at);
        }
        self.items.push((key, value));
        if at == FEW {
            let places = self.items.iter().enumerate().map(|(at, (key, _))| (key.clone(), at));
            self.index = Some(places.collect());
        }
        at
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.items.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut V)> {
        self.items.iter_mut().map(|(key, value)| (&*key, value))
    }
}

impl<V> Extend<(Key, V)> for KeyMap<V> {
    fn extend<I: IntoIterator<Item = (Key, V)>>(&mut self, items: I) {
        items.into_iter().for_each(|(key, value)| self.insert(key, value));
    }
}

impl<V> FromIterator<(Key, V)> for KeyMap<V> {
    fn from_iter<I: IntoIterator<Item = (Key, V)>>(items: I) -> Self {
        let mut map = Self::default();
        map.extend(items);
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the number of keys, each is found with its own value.
    #[test]
    fn finds_each_key() {
        let mut map = KeyMap::<usize>::default();
        let key = |n: usize| Key::new(format!("/{n}")).expect("a key");
        for n in 0..100 {
            *map.entry(&key(n)) = n;
            *map.entry(&key(n)) += 1000;
            for m in 0..=n {
                assert_eq!(map.get(&key(m)), Some(&(m + 1000)));
            }
            assert_eq!(map.get(&key(n + 1)), None);
        }
        assert_eq!(map.iter().count(), 100);
    }
}
