use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::protocol::{Key, State, Version};

/// What an entry costs besides its value and its key.
const OVERHEAD: u64 = 128;

#[derive(Clone)]
struct Weight;

impl Weighter<(Key, Version), State> for Weight {
    fn weight(&self, (key, _): &(Key, Version), state: &State) -> u64 {
        OVERHEAD + (key.as_str().len() + state.size()) as u64
    }
}

/// Values of stores by version. A version never changes, so what is here is never stale.
///
/// Values that are shared within the process are not kept: nobody knows how large they are, and their store has them in memory
/// already.
pub(crate) struct ValueCache(Option<Cache<(Key, Version), State, Weight>>);

impl ValueCache {
    pub(crate) fn new(bytes: u64) -> Self {
        let expected = usize::try_from(bytes / 4096).unwrap_or(usize::MAX).clamp(16, 65_536);
        Self((bytes > 0).then(|| Cache::with_weighter(expected, bytes, Weight)))
    }

    pub(crate) fn get(&self, key: &Key, version: &Version) -> Option<State> {
        self.0.as_ref()?.get(&(key.clone(), *version))
    }

    pub(crate) fn put(&self, key: &Key, version: &Version, state: State) {
        if let Some(cache) = &self.0
            && matches!(state, State::Bytes(_))
        {
            cache.insert((key.clone(), *version), state);
        }
    }

    pub(crate) fn forget(&self, key: &Key, version: &Version) {
        if let Some(cache) = &self.0 {
            cache.remove(&(key.clone(), *version));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use bytes::Bytes;

    use super::*;
    use crate::protocol::{ClientId, Shared};

    const CACHE: usize = 1 << 20;

    fn names() -> impl Iterator<Item = (Key, Version)> {
        let key = |n| Key::new(format!("/{n}")).expect("a key");
        (0..62).map(move |n| (key(n), Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: n }))
    }

    /// What is kept has no more bytes than was allowed, whether the values are bytes or shared within the process.
    #[test]
    fn what_is_kept_is_bounded() {
        let cache = ValueCache::new(CACHE as u64);
        for (key, version) in names() {
            cache.put(&key, &version, State::Bytes(Bytes::from(vec![7; CACHE / 64])));
        }
        let kept: usize =
            names().filter_map(|(key, version)| cache.get(&key, &version)).map(|state| state.size()).sum();
        assert!((1..=CACHE).contains(&kept), "{kept} bytes");
        let mut shared: Vec<Weak<Vec<u8>>> = Vec::new();
        for (key, version) in names() {
            let value = Arc::new(vec![7_u8; CACHE]);
            shared.push(Arc::downgrade(&value));
            cache.put(&key, &version, State::Shared(value as Shared));
        }
        let kept = shared.iter().filter(|value| value.strong_count() > 0).count();
        assert!(kept <= 1, "{kept} values of the cache's size");
    }
}
