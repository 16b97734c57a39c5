use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Where a backend reports whether it is connected, for [`Stm::events`](crate::Stm::events).
///
/// A backend has one for all its connections, and holds an [`Up`] for each that can serve requests: it is connected
/// while there is any. If the coordinator and the store of one client share one, its changes are told once.
///
/// # Examples
/// ```
/// use avout_core::backend::Connection;
///
/// let connection = Connection::new();
/// let first = connection.up(); // a link was made
/// let second = connection.up();
/// drop(first); // and was lost
/// assert!(connection.is_up());
/// drop(second);
/// assert!(!connection.is_up());
/// ```
#[derive(Debug)]
pub struct Connection {
    links: Mutex<usize>,
    /// The number of changes: odd while it is up.
    turns: watch::Sender<u64>,
}

/// At most this many changes are kept. A listener that is further behind is told of these only.
const KEPT: u64 = 64;

/// One connection that can serve requests, until it is dropped.
#[derive(Debug)]
#[must_use = "the connection counts for as long as this lives"]
pub struct Up(Arc<Connection>);

impl Connection {
    /// One that is not connected yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { links: Mutex::new(0), turns: watch::Sender::new(0) })
    }

    /// Counts a connection until the result is dropped.
    pub fn up(self: &Arc<Self>) -> Up {
        self.count(|links| *links += 1);
        Up(Arc::clone(self))
    }

    /// Whether there is a connection.
    #[must_use]
    pub fn is_up(&self) -> bool {
        is_up(self.turns())
    }

    fn count(&self, change: impl FnOnce(&mut usize)) {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut links);
        // Under the lock, so that changes are told in their order.
        self.turns.send_if_modified(|turns| {
            let changed = is_up(*turns) != (*links > 0);
            *turns += u64::from(changed);
            changed
        });
    }

    /// How often it has changed so far.
    pub(crate) fn turns(&self) -> u64 {
        *self.turns.borrow()
    }

    /// The change after number `told`, with its own number, and whether it is up since then; `None` if there is none
    /// yet.
    pub(crate) fn after(&self, told: u64) -> Option<(u64, bool)> {
        let now = self.turns();
        let behind = now.checked_sub(told).filter(|behind| *behind > 0)?;
        let next = if behind > KEPT { now - KEPT + 1 } else { told + 1 };
        Some((next, is_up(next)))
    }

    /// Waits until it has changed more than `told` times.
    pub(crate) async fn changed(&self, told: u64) {
        // The sender is a field of this.
        let _ = self.turns.subscribe().wait_for(|turns| *turns > told).await;
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.count(|links| *links -= 1);
    }
}

fn is_up(turns: u64) -> bool {
    turns % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is up while any link is, and each listener is told of each change once, in order.
    #[tokio::test]
    async fn each_change_is_told_once() {
        let connection = Connection::new();
        assert_eq!((connection.is_up(), connection.after(0)), (false, None));
        let (one, two) = (connection.up(), connection.up());
        drop(one);
        assert_eq!((connection.is_up(), connection.after(0), connection.after(1)), (true, Some((1, true)), None));
        let changed = connection.changed(1);
        drop(two);
        changed.await;
        assert_eq!((connection.after(0), connection.after(1)), (Some((1, true)), Some((2, false))));
        for _ in 0..KEPT {
            drop(connection.up());
        }
        let (first, up) = connection.after(0).expect("changes");
        assert_eq!((connection.turns() - first + 1, up), (KEPT, is_up(first)));
    }
}
