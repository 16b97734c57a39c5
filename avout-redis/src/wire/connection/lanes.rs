//! A client's connections: apart for each runtime that drives some.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use avout_core::ErrorKind;
use tokio::runtime::Id;
use tokio::task::AbortHandle;

use super::home::Home;
use super::link::Link;

/// The place of one connection, which is made again when it broke.
#[derive(Default)]
pub(crate) struct Lane {
    link: Mutex<Option<Arc<Link>>>,
    /// Held by who makes the connection; it tells of the last failure.
    pub(crate) turn: tokio::sync::Mutex<Option<(Instant, ErrorKind, String)>>,
}

impl Lane {
    pub(crate) fn current(&self) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).as_ref().filter(|link| !link.is_dead()).cloned()
    }

    /// Gives the link before.
    pub(crate) fn put(&self, link: Arc<Link>) -> Option<Arc<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).replace(link)
    }
}

pub(crate) struct Lanes {
    /// How many each runtime has.
    count: usize,
    next: AtomicUsize,
    places: RwLock<Vec<Place>>,
}

struct Place {
    home: Option<Id>,
    lanes: Arc<[Lane]>,
    /// A task that does nothing, and is finished when its runtime has ended.
    sign: Option<AbortHandle>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(sign) = &self.sign {
            sign.abort();
        }
    }
}

impl Lanes {
    pub(crate) fn new(count: usize) -> Self {
        Self { count, next: AtomicUsize::new(0), places: RwLock::default() }
    }

    /// The lanes of a caller, and the next one of them in turn.
    pub(crate) fn of(&self, home: &Home) -> (Arc<[Lane]>, usize) {
        let lanes = self.find(home).unwrap_or_else(|| self.add(home));
        let at = if self.count == 1 { 0 } else { self.next.fetch_add(1, Ordering::Relaxed) % self.count };
        (lanes, at)
    }

    fn find(&self, home: &Home) -> Option<Arc<[Lane]>> {
        let id = home.id();
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.iter().find(|place| place.home == id).map(|place| Arc::clone(&place.lanes))
    }

    fn add(&self, home: &Home) -> Arc<[Lane]> {
        let mut places = self.places.write().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| !place.sign.as_ref().is_some_and(AbortHandle::is_finished));
        if let Some(place) = places.iter().find(|place| place.home == home.id()) {
            return Arc::clone(&place.lanes);
        }
        let lanes: Arc<[Lane]> = (0..self.count).map(|_| Lane::default()).collect();
        let sign = home.own().map(|runtime| runtime.spawn(pending::<()>()).abort_handle());
        places.push(Place { home: home.id(), lanes: Arc::clone(&lanes), sign });
        lanes
    }

    /// All connections that are not broken.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        let places = self.places.read().unwrap_or_else(PoisonError::into_inner);
        places.iter().flat_map(|place| place.lanes.iter().filter_map(Lane::current)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::runtime::Builder;

    /// A runtime with threads of its own has lanes of its own, until it ends; all others share some.
    #[test]
    fn lanes_are_of_runtimes() {
        let lanes = Lanes::new(2);
        let shared = lanes.of(&Home::here()).0;
        let single = Builder::new_current_thread().build().expect("a runtime");
        assert!(Arc::ptr_eq(&shared, &single.block_on(async { lanes.of(&Home::here()).0 })));
        let threaded = || Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let (one, two) = (threaded(), threaded());
        let own = [&one, &two].map(|runtime| runtime.block_on(async { lanes.of(&Home::here()).0 }));
        assert!(!Arc::ptr_eq(&own[0], &own[1]) && !Arc::ptr_eq(&own[0], &shared));
        assert!(Arc::ptr_eq(&own[0], &one.block_on(async { lanes.of(&Home::here()).0 })));
        drop(one);
        let three = threaded();
        three.block_on(async { lanes.of(&Home::here()) });
        assert_eq!(lanes.places.read().expect("no panic").len(), 3, "the lanes of a runtime that has ended are kept");
    }
}
