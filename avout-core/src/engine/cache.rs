use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::protocol::{Key, State, Version};

/// What an entry costs besides its value.
const OVERHEAD: u64 = 128;

#[derive(Clone)]
struct Weight;

impl Weighter<(Key, Version), State> for Weight {
    fn weight(&self, _: &(Key, Version), state: &State) -> u64 {
        OVERHEAD + state.size() as u64
    }
}

/// Values of stores by version. A version never changes, so what is here is never stale.
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
        if let Some(cache) = &self.0 {
            cache.insert((key.clone(), *version), state);
        }
    }

    pub(crate) fn forget(&self, key: &Key, version: &Version) {
        if let Some(cache) = &self.0 {
            cache.remove(&(key.clone(), *version));
        }
    }
}
