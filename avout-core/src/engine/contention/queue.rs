//! Queues for keys that attempts of this process lose to each other. They decide only who waits: a commit
//! compares as ever, whether it waited or not, and nobody waits without end.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;

use crate::backend::time::timeout_at;
use crate::engine::closing::Closing;
use crate::engine::handover::HandOver;
use crate::protocol::Key;

/// How many commits' time to wait for each that is ahead.
const COMMITS_EACH: u32 = 8;
const LEAST_PATIENCE: Duration = Duration::from_millis(10);
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// The keys that have a queue now.
#[derive(Default)]
pub(in crate::engine) struct Queues {
    /// How many there are: most of the time none.
    hot: AtomicUsize,
    by_key: Mutex<HashMap<Key, Arc<Queue>>>,
    /// Told when a key has no queue any more.
    ended: Notify,
}

/// The queue of one key, in order of arrival.
#[derive(Default)]
struct Queue {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Those who wait and the one whose turn it is. Changed only under the lock of the map.
    users: AtomicUsize,
    /// What the last one committed.
    left: Mutex<Option<Arc<HandOver>>>,
}

/// A place in a key's queue. Dropping it leaves the queue.
pub(super) struct Ticket {
    key: Key,
    queue: Arc<Queue>,
    queues: Arc<Queues>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Queues {
    /// Whether any key has a queue.
    pub(super) fn any(&self) -> bool {
        self.hot.load(Ordering::Acquire) > 0
    }

    /// Of these keys, those that have a queue.
    pub(super) fn hot<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Key> {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        keys.filter(|key| by_key.contains_key(*key)).cloned().collect()
    }

    /// Lets those go first who stand in the queues of these keys, without standing in line with them.
    pub(super) async fn give_way(&self, keys: &[Key], deadline: Option<Instant>, closing: &Closing) {
        let until = Instant::now() + LEAST_PATIENCE;
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        loop {
            let mut ended = pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.hot(keys.iter()).is_empty() {
                return;
            }
            let Ok(Ok(())) = closing.race(timeout_at(until, ended)).await else { return };
        }
    }

    /// Waits for its turn at each of these keys, as many commits' time as there are others ahead. The caller holds no tickets, and keys are taken in their
    /// order, so that there is no circle. Whoever is ahead may be held up by what this one would do, so the wait is
    /// bounded, and ends with the client; then the caller goes on with the tickets that it got.
    pub(super) async fn wait_for(
        self: &Arc<Self>,
        mut keys: Vec<Key>,
        commit_time: Duration,
        deadline: Option<Instant>,
        closing: &Closing,
    ) -> Vec<Ticket> {
        keys.sort_unstable();
        keys.dedup();
        let mut tickets = Vec::with_capacity(keys.len());
        for key in &keys {
            let mut ticket = self.join(key);
            let turn = match Arc::clone(&ticket.queue.turn).try_lock_owned() {
                Ok(turn) => turn,
                Err(_) => {
                    let ahead = u32::try_from(ticket.queue.users.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
                    let patience = commit_time.saturating_mul(COMMITS_EACH.saturating_mul(ahead));
                    let until = Instant::now() + patience.clamp(LEAST_PATIENCE, MOST_PATIENCE);
                    let until = deadline.map_or(until, |deadline| until.min(deadline));
                    let turn = timeout_at(until, Arc::clone(&ticket.queue.turn).lock_owned());
                    match closing.race(turn).await {
                        Ok(Ok(turn)) => turn,
                        _ => break,
                    }
                }
            };
            ticket.turn = Some(turn);
            tickets.push(ticket);
        }
        tickets
    }

    fn join(self: &Arc<Self>, key: &Key) -> Ticket {
        let mut by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = by_key.entry(key.clone()).or_insert_with(|| {
            self.hot.fetch_add(1, Ordering::AcqRel);
            Arc::default()
        });
        queue.users.fetch_add(1, Ordering::Relaxed);
        Ticket { key: key.clone(), queue: Arc::clone(queue), queues: Arc::clone(self), turn: None }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        drop(self.turn.take());
        let mut by_key = self.queues.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        if self.queue.users.fetch_sub(1, Ordering::Relaxed) == 1 {
            by_key.remove(&self.key);
            self.queues.hot.fetch_sub(1, Ordering::AcqRel);
            drop(by_key);
            self.queues.ended.notify_waiters();
        }
    }
}

/// Tells those who are next what this commit left.
pub(super) fn leave(tickets: &[Ticket], left: HandOver) {
    let left = Arc::new(left);
    for ticket in tickets {
        *ticket.queue.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&left));
    }
}

/// Leaves these queues. Whoever is next there has their turn before the caller goes on, for all others wait for that one.
pub(super) async fn hand_over(tickets: Vec<Ticket>) {
    let awaited = tickets.iter().any(|ticket| ticket.queue.users.load(Ordering::Relaxed) > 1);
    drop(tickets);
    // Not tokio's `yield_now`, which lets all that is ready have its turn first, and the driver.
    let mut first = awaited;
    poll_fn(|context| {
        if std::mem::take(&mut first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// What the last one in these queues left, if it was committed after this transaction began: then its point is one
/// that the transaction may read at. What was left in a history that is over is of no use.
pub(super) fn find_left(tickets: &[Ticket], begun: Instant, history: u64) -> Option<Arc<HandOver>> {
    let left = |ticket: &Ticket| ticket.queue.left.lock().unwrap_or_else(PoisonError::into_inner).clone();
    tickets
        .iter()
        .filter_map(left)
        .filter(|left| left.sent >= begun && left.history == history)
        .max_by_key(|left| left.point)
}

/// Whether a ticket for each of these keys is held. `wait_for` gave them in the order of their keys.
pub(super) fn hold_all<'a>(tickets: &[Ticket], mut keys: impl Iterator<Item = &'a Key>) -> bool {
    keys.all(|key| tickets.binary_search_by(|ticket| ticket.key.cmp(key)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever is next is at work before the one who leaves goes on; where nobody waits nothing is waited for.
    #[tokio::test]
    async fn the_next_one_goes_first() {
        let queues: Arc<Queues> = Arc::default();
        let key = Key::new("/a").expect("a name");
        let take = async |queues: &Arc<Queues>| {
            let mut ticket = queues.join(&key);
            ticket.turn = Some(Arc::clone(&ticket.queue.turn).lock_owned().await);
            ticket
        };
        let ticket = take(&queues).await;
        let works = Arc::new(AtomicUsize::new(0));
        let next = {
            let (queues, key, works) = (Arc::clone(&queues), key.clone(), Arc::clone(&works));
            tokio::spawn(async move {
                let ticket = queues.join(&key);
                let _turn = ticket.queue.turn.lock().await;
                works.store(1, Ordering::Relaxed);
                tokio::task::yield_now().await;
            })
        };
        tokio::task::yield_now().await;
        hand_over(vec![ticket]).await;
        assert_eq!(works.load(Ordering::Relaxed), 1);
        next.await.expect("no panic");
        assert!(!queues.any());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(pin!(hand_over(vec![take(&queues).await])).poll(&mut context).is_ready());
    }
}
