use std::collections::HashMap;

use crate::protocol::Key;

/// Up to this many keys are found by looking at each.
const FEW: usize = 16;

/// A map that keeps the order of insertion and is fastest for a few keys, as most transactions have.
#[derive(Debug)]
pub(crate) struct KeyMap<V> {
    items: Vec<(Key, V)>,
    /// Filled once there are more than a few.
    index: HashMap<Key, usize>,
}

impl<V> Default for KeyMap<V> {
    fn default() -> Self {
        Self { items: Vec::new(), index: HashMap::new() }
    }
}

impl<V> KeyMap<V> {
    fn position(&self, key: &Key) -> Option<usize> {
        if self.items.len() <= FEW {
            self.items.iter().position(|(other, _)| other == key)
        } else {
            self.index.get(key).copied()
        }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&V> {
        self.position(key).map(|at| &self.items[at].1)
    }

    pub(crate) fn entry(&mut self, key: &Key) -> &mut V
    where
        V: Default,
    {
        let at = self.position(key).unwrap_or_else(|| {
            self.items.push((key.clone(), V::default()));
            let at = self.items.len() - 1;
            if at == FEW {
                self.index = self.items.iter().enumerate().map(|(at, (key, _))| (key.clone(), at)).collect();
            } else if at > FEW {
                self.index.insert(key.clone(), at);
            }
            at
        });
        &mut self.items[at].1
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Key, &V)> {
        self.items.iter().map(|(key, value)| (key, value))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut V)> {
        self.items.iter_mut().map(|(key, value)| (&*key, value))
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
