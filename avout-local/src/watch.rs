use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use avout_core::backend::Wake;
use avout_core::{Key, Result};
use hashbrown::HashMap;
use tokio::sync::Notify;

use crate::shards::Shards;

/// Who waits for changes of which keys.
///
/// Each waiter has one [`Notify`], which remembers one hint while nobody waits; so its memory does not grow
/// with the changes it misses, and waking one that was not asked since costs next to nothing.
#[derive(Default)]
pub(crate) struct Registry {
    waiters: Shards<HashMap<u64, Arc<Notify>>>,
    count: AtomicUsize,
    next: AtomicU64,
}

impl Registry {
    /// Wakes those who wait for one of `keys`.
    ///
    /// It is called after the change is applied and its locks are released: no hint comes before
    /// the change can be read, and no waker runs under a lock.
    ///
    /// ```text
    /// waiter: count += 1, register ........ read (locks the key) ........ wait
    /// writer:                       lock the key, apply, unlock .. count > 0? wake
    /// ```
    /// A waiter who reads before the writer's lock was counted before it, and is woken; one who reads
    /// after it has seen the change.
    pub(crate) fn wake<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        for key in keys {
            let locked = self.waiters.lock(std::iter::once(key));
            let woken: Vec<_> = locked.get(0, key).into_iter().flat_map(HashMap::values).cloned().collect();
            drop(locked);
            woken.iter().for_each(|notify| notify.notify_one());
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0 && self.waiters.keys(&Key::root(), |_| true).is_empty()
    }
}

/// A waiter for some keys; it is counted until it is dropped.
pub(crate) struct Waiter {
    registry: Arc<Registry>,
    id: u64,
    keys: Box<[Key]>,
    notify: Arc<Notify>,
}

impl Waiter {
    pub(crate) fn new(registry: Arc<Registry>, keys: &[Key]) -> Self {
        let id = registry.next.fetch_add(1, Ordering::Relaxed);
        let notify = Arc::new(Notify::new());
        registry.count.fetch_add(1, Ordering::SeqCst);
        for key in keys {
            registry.waiters.lock(std::iter::once(key)).get_or_default(0, key).insert(id, Arc::clone(&notify));
        }
        Self { registry, id, keys: keys.into(), notify }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let registry = &self.registry;
        for key in &self.keys {
            let mut locked = registry.waiters.lock(std::iter::once(key));
            let Some(waiters) = locked.get_mut(0, key) else { continue };
            waiters.remove(&self.id);
            if waiters.is_empty() {
                locked.remove(0, key);
            }
        }
        registry.count.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl avout_core::backend::Watcher for Waiter {
    async fn changed(&mut self) -> Result<Wake> {
        // Safe to drop: a `Notify` hands a hint on that was not taken.
        self.notify.notified().await;
        Ok(Wake::Changed)
    }
}

#[cfg(test)]
mod tests {
    use avout_core::backend::Watcher as _;
    use futures_util::FutureExt as _;

    use super::*;

    fn keys(names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| Key::new(name).expect("a key")).collect()
    }

    /// Hints are merged while nobody waits, come for the watched keys only, and nothing is left of a dropped waiter.
    #[test]
    fn remembers_one_hint_and_leaves_nothing() {
        let registry = Arc::new(Registry::default());
        let watched = keys(&["/a", "/b", "/a"]);
        let mut one = Waiter::new(Arc::clone(&registry), &watched);
        let mut two = Waiter::new(Arc::clone(&registry), &watched[..1]);
        registry.wake(keys(&["/b", "/b", "/c"]).iter());
        assert!(one.changed().now_or_never().is_some());
        assert!(one.changed().now_or_never().is_none());
        assert!(two.changed().now_or_never().is_none());
        drop(one);
        assert!(!registry.is_empty());
        registry.wake(watched.iter());
        assert!(two.changed().now_or_never().is_some());
        drop(two);
        assert!(registry.is_empty());
    }

    /// A hint that reached a wait which was then dropped comes again.
    #[test]
    fn a_dropped_wait_takes_no_hint() {
        let registry = Arc::new(Registry::default());
        let watched = keys(&["/a"]);
        let mut waiter = Waiter::new(Arc::clone(&registry), &watched);
        let mut wait = Box::pin(waiter.changed());
        assert!(wait.as_mut().now_or_never().is_none());
        registry.wake(watched.iter());
        drop(wait);
        assert!(waiter.changed().now_or_never().is_some());
    }
}
