use std::borrow::Borrow;
use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::time::from_others;
use super::{Wake, Watcher};
use crate::error::{Error, Result};

/// The watchers of a client: the keys that each one watches, and how it is woken.
///
/// A backend has one for all its watchers. It registers a [`Bell`] *before* it asks its server for changes of the keys,
/// and rings for each change that the server tells. `K` is the server's name for a key: a key, a path, a channel.
///
/// # Contract
/// - A bell that rings while nobody waits is remembered, once for any number of changes, so missed changes do not use
///   memory.
/// - Bells are rung after the change can be read.
/// - After a time without a connection [`ring_lost`](Self::ring_lost) tells every watcher that it may have missed
///   changes.
///
/// # Examples
/// ```
/// use avout_core::backend::{Bells, Wake};
///
/// # futures_executor::block_on(async {
/// let bells = Bells::new();
/// let bell = bells.register(["/a", "/b"]);
/// bells.ring("/b");
/// bells.ring("/a");
/// assert_eq!(bell.rung().await?, Wake::Changed);
/// # avout_core::Result::<()>::Ok(()) }).unwrap();
/// ```
pub struct Bells<K> {
    watched: Mutex<HashMap<K, Vec<Arc<Signal>>>>,
    unwatched: Box<dyn Fn(Vec<K>) + Send + Sync>,
}

/// One watcher's bell. It rings once for any number of changes while nobody listens.
#[derive(Default)]
struct Signal {
    bell: Notify,
    lost: AtomicBool,
    ended: OnceLock<Error>,
}

impl<K: Clone + Eq + Hash + Ord> Bells<K> {
    /// Without any watchers yet.
    pub fn new() -> Arc<Self> {
        Self::telling(|_| {})
    }

    /// The same. `unwatched` is called with the keys that nobody watches any more, when their last watcher is dropped:
    /// the backend can ask its server to stop telling of them. Another watcher may have begun to watch them again
    /// meanwhile.
    pub fn telling(unwatched: impl Fn(Vec<K>) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { watched: Mutex::default(), unwatched: Box::new(unwatched) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Vec<Arc<Signal>>>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new watcher of these keys, which watches until it is dropped.
    pub fn register(self: &Arc<Self>, keys: impl IntoIterator<Item = K>) -> Bell<K> {
        let mut keys: Vec<K> = keys.into_iter().collect();
        keys.sort_unstable();
        keys.dedup();
        let signal = Arc::<Signal>::default();
        let mut watched = self.lock();
        for key in &keys {
            watched.entry(key.clone()).or_default().push(Arc::clone(&signal));
        }
        drop(watched);
        Bell { bells: Arc::clone(self), keys, signal }
    }

    /// Rings for a change of the key.
    pub fn ring<Q>(&self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(signals) = self.lock().get(key) {
            signals.iter().for_each(|signal| signal.bell.notify_one());
        }
    }

    /// Rings all bells: changes of any key may have been missed.
    pub fn ring_lost(&self) {
        for signal in self.lock().values().flatten() {
            signal.lost.store(true, Ordering::Release);
            signal.bell.notify_one();
        }
    }

    /// Rings for these keys: changes of them may have been missed.
    pub fn ring_lost_of<Q>(&self, keys: &[Q])
    where
        K: Borrow<Q>,
        Q: Eq + Hash,
    {
        let watched = self.lock();
        for signal in keys.iter().filter_map(|key| watched.get(key)).flatten() {
            signal.lost.store(true, Ordering::Release);
            signal.bell.notify_one();
        }
    }

    /// Ends all present watchers, each with a copy of this error. Later ones are not affected.
    pub fn end(&self, error: &Error) {
        for signal in self.lock().values().flatten() {
            // The first error stays.
            let _ = signal.ended.set(error.clone());
            signal.bell.notify_one();
        }
    }

    /// All keys that are watched.
    pub fn keys(&self) -> Vec<K> {
        self.lock().keys().cloned().collect()
    }

    /// Whether the key is watched.
    pub fn is_watched<Q>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.lock().contains_key(key)
    }

    /// Whether there are no watchers.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

impl<K> fmt::Debug for Bells<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bells").finish_non_exhaustive()
    }
}

/// A watcher of some keys, registered with its [`Bells`] until it is dropped.
///
/// It can serve as the [`Watcher`] of a backend whose watchers need nothing else.
pub struct Bell<K: Clone + Eq + Hash + Ord> {
    bells: Arc<Bells<K>>,
    keys: Vec<K>,
    signal: Arc<Signal>,
}

impl<K: Clone + Eq + Hash + Ord> Bell<K> {
    /// The keys that it watches, sorted, each once.
    pub fn keys(&self) -> &[K] {
        &self.keys
    }

    /// Waits until the bell rings, if it has not rung since the last time.
    ///
    /// # Errors
    /// The error of [`Bells::end`], each time.
    ///
    /// # Cancel safety
    /// Safe: if a bell rang during a wait that was dropped, the next wait returns.
    pub async fn rung(&self) -> Result<Wake> {
        if self.signal.ended.get().is_none() {
            from_others(self.signal.bell.notified()).await;
        }
        match self.signal.ended.get() {
            Some(error) => Err(error.clone()),
            None if self.signal.lost.swap(false, Ordering::AcqRel) => Ok(Wake::Lost),
            None => Ok(Wake::Changed),
        }
    }
}

#[async_trait]
impl<K: Clone + Eq + Hash + Ord + Send + Sync + 'static> Watcher for Bell<K> {
    async fn changed(&mut self) -> Result<Wake> {
        self.rung().await
    }
}

impl<K: Clone + Eq + Hash + Ord> Drop for Bell<K> {
    fn drop(&mut self) {
        let mut unwatched = Vec::new();
        let mut watched = self.bells.lock();
        for key in self.keys.drain(..) {
            if let Some(signals) = watched.get_mut(&key) {
                signals.retain(|signal| !Arc::ptr_eq(signal, &self.signal));
                if signals.is_empty() {
                    watched.remove(&key);
                    unwatched.push(key);
                }
            }
        }
        drop(watched);
        if !unwatched.is_empty() {
            (self.bells.unwatched)(unwatched);
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> fmt::Debug for Bell<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bell").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::error::ErrorKind;

    fn now(bell: &Bell<&str>) -> Option<Result<Wake>> {
        bell.rung().now_or_never()
    }

    /// Hints are merged while nobody waits, and reach only the watchers of the key.
    #[test]
    fn hints_are_merged() {
        let bells = Bells::new();
        let (one, two) = (bells.register(["/b", "/a", "/a"]), bells.register(["/a"]));
        assert_eq!(one.keys(), ["/a", "/b"]);
        ["/b", "/b", "/c"].iter().for_each(|key| bells.ring(key));
        assert!(matches!(now(&one), Some(Ok(Wake::Changed))));
        assert!(now(&one).is_none() && now(&two).is_none());
    }

    /// A lost connection is told once to the watchers of that time, and after it a change is a change.
    #[test]
    fn a_lost_connection_is_told_once() {
        let bells = Bells::new();
        let (one, two) = (bells.register(["/a"]), bells.register(["/b"]));
        bells.ring("/a");
        bells.ring_lost();
        assert!(matches!(now(&one), Some(Ok(Wake::Lost))));
        assert!(now(&one).is_none());
        bells.ring("/a");
        assert!(matches!(now(&one), Some(Ok(Wake::Changed))));
        assert!(matches!(now(&two), Some(Ok(Wake::Lost))));
        bells.ring_lost_of(&["/b", "/c"]);
        assert!(now(&one).is_none());
        assert!(matches!(now(&two), Some(Ok(Wake::Lost))));
    }

    /// A hint that reached a wait which was then dropped comes again.
    #[test]
    fn a_dropped_wait_takes_no_hint() {
        let bells = Bells::new();
        let bell = bells.register(["/a"]);
        let mut wait = Box::pin(bell.rung());
        assert!(wait.as_mut().now_or_never().is_none());
        bells.ring("/a");
        drop(wait);
        assert!(matches!(now(&bell), Some(Ok(Wake::Changed))));
    }

    /// Watchers that have ended say so each time; later ones do not.
    #[test]
    fn an_end_is_told_again_and_again() {
        let bells = Bells::new();
        let bell = bells.register(["/a"]);
        bells.end(&Error::new(ErrorKind::Closed, "the client was closed"));
        for _ in 0..2 {
            assert!(matches!(now(&bell), Some(Err(error)) if error.kind() == ErrorKind::Closed));
        }
        let later = bells.register(["/a"]);
        bells.ring("/a");
        assert!(matches!(now(&later), Some(Ok(Wake::Changed))));
    }

    /// A dropped watcher leaves nothing behind, and keys without a watcher are told once.
    #[test]
    fn dropped_watchers_leave_nothing() {
        let unwatched = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&unwatched);
        let bells = Bells::telling(move |keys| told.lock().expect("no panic").extend(keys));
        let (one, two) = (bells.register(["/a", "/b"]), bells.register(["/a"]));
        drop(one);
        assert_eq!(*unwatched.lock().expect("no panic"), ["/b"]);
        assert!(bells.is_watched("/a") && !bells.is_watched("/b"));
        drop(two);
        assert_eq!(*unwatched.lock().expect("no panic"), ["/b", "/a"]);
        assert!(bells.is_empty() && bells.keys().is_empty());
    }
}
