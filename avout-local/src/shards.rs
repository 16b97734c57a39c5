use std::hash::BuildHasher;
use std::sync::{Mutex, MutexGuard, PoisonError};

use avout_core::Key;
use hashbrown::{DefaultHashBuilder, HashTable, hash_table};
use smallvec::SmallVec;

/// One bit of a `u64` a shard, so that a set of shards is sorted and without doubles by itself.
const SHARDS: usize = 64;

type Table<V> = HashTable<(Key, V)>;

/// Aligned so that locking one does not slow down those who lock its neighbour.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<V>(Mutex<Table<V>>);

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

/// A map from keys to `V`, cut into shards with a lock each.
///
/// Operations on several keys lock all shards they need, in the order of the shards; so they
/// are atomic and cannot deadlock.
pub(crate) struct Shards<V> {
    hasher: DefaultHashBuilder,
    shards: Box<[Shard<V>]>,
}

impl<V> Default for Shards<V> {
    fn default() -> Self {
        Self { hasher: DefaultHashBuilder::default(), shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl<V> Shards<V> {
    /// Locks what `keys` need. Within, a key is named by its place among them.
    pub(crate) fn lock<'a>(&'a self, keys: impl Iterator<Item = &'a Key>) -> Locked<'a, V> {
        let hashes: SmallVec<[u64; 8]> = keys.map(|key| self.hasher.hash_one(key)).collect();
        let mask = hashes.iter().fold(0, |mask, hash| mask | 1 << shard_of(*hash));
        let mut guards = SmallVec::new();
        let mut left: u64 = mask;
        while left != 0 {
            guards.push(lock(&self.shards[left.trailing_zeros() as usize].0));
            left &= left - 1;
        }
        Locked { hasher: &self.hasher, hashes, mask, guards }
    }

    /// The keys under `prefix` whose value is wanted, sorted. Each shard is locked by itself.
    pub(crate) fn keys(&self, prefix: &Key, wanted: impl Fn(&V) -> bool) -> Vec<Key> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let shard = lock(&shard.0);
            keys.extend(
                shard.iter().filter(|(key, value)| key.is_under(prefix) && wanted(value)).map(|(key, _)| key.clone()),
            );
        }
        keys.sort_unstable();
        keys
    }
}

// Nothing under a lock can panic half-way through a change, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// The table uses the lowest and the highest bits; the shard takes others, or its table would
// have fewer to tell keys apart by.
fn shard_of(hash: u64) -> u32 {
    (hash >> 40) as u32 % SHARDS as u32
}

/// The locked shards of some keys. Dropping it unlocks them.
pub(crate) struct Locked<'a, V> {
    hasher: &'a DefaultHashBuilder,
    hashes: SmallVec<[u64; 8]>,
    mask: u64,
    guards: SmallVec<[MutexGuard<'a, Table<V>>; 4]>,
}

impl<V> Locked<'_, V> {
    // The guards lie in the order of the shards, so a shard's guard comes behind as many as there are lower ones.
    fn guard(&self, hash: u64) -> usize {
        (self.mask & ((1 << shard_of(hash)) - 1)).count_ones() as usize
    }

    /// The value of `key`, which is the one at `place` of those that were locked.
    pub(crate) fn get(&self, place: usize, key: &Key) -> Option<&V> {
        let hash = self.hashes[place];
        self.guards[self.guard(hash)].find(hash, |(other, _)| other == key).map(|(_, value)| value)
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, place: usize, key: &Key) -> Option<&mut V> {
        let hash = self.hashes[place];
        let guard = self.guard(hash);
        self.guards[guard].find_mut(hash, |(other, _)| other == key).map(|(_, value)| value)
    }

    /// The value of `key`, made first if there is none.
    pub(crate) fn get_or_default(&mut self, place: usize, key: &Key) -> &mut V
    where
        V: Default,
    {
        let hash = self.hashes[place];
        let guard = self.guard(hash);
        let hasher = self.hasher;
        let slot = self.guards[guard]
            .entry(hash, |(other, _)| other == key, |(key, _)| hasher.hash_one(key))
            .or_insert_with(|| (key.clone(), V::default()));
        &mut slot.into_mut().1
    }

    /// Puts a value in the place of the one that was there, which it gives.
    pub(crate) fn insert(&mut self, place: usize, key: &Key, value: V) -> Option<V> {
        let hash = self.hashes[place];
        let guard = self.guard(hash);
        let hasher = self.hasher;
        match self.guards[guard].entry(hash, |(other, _)| other == key, |(key, _)| hasher.hash_one(key)) {
            hash_table::Entry::Occupied(mut slot) => Some(std::mem::replace(&mut slot.get_mut().1, value)),
            hash_table::Entry::Vacant(slot) => {
                slot.insert((key.clone(), value));
                None
            }
        }
    }

    /// Takes out a value.
    pub(crate) fn remove(&mut self, place: usize, key: &Key) -> Option<V> {
        let hash = self.hashes[place];
        let guard = self.guard(hash);
        let slot = self.guards[guard].find_entry(hash, |(other, _)| other == key).ok()?;
        Some(slot.remove().0.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys are found wherever they fall, also when all shards are locked at once.
    #[test]
    fn finds_keys_in_all_shards() {
        let shards = Shards::default();
        let keys: Vec<Key> = (0..1000).map(|n| Key::new(format!("/k/{n}")).expect("a key")).collect();
        let mut locked = shards.lock(keys.iter());
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(locked.insert(place, key, place), None);
        }
        for (place, key) in keys.iter().enumerate() {
            assert_eq!(locked.get(place, key), Some(&place));
            assert_eq!(locked.insert(place, key, place + 1), Some(place));
        }
        drop(locked);
        for (n, key) in keys.iter().enumerate() {
            let mut locked = shards.lock(std::iter::once(key));
            assert_eq!(locked.remove(0, key), Some(n + 1));
            assert_eq!(locked.remove(0, key), None);
        }
        assert!(shards.keys(&Key::root(), |_| true).is_empty());
    }
}
