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

use super::Engine;
use super::attempt::Primed;
use super::commit::{Ended, Standing};
use super::floor::KnownFloor;
use super::plan::Plan;
use crate::backend::time::timeout_at;
use crate::protocol::{Entry, Key, Point};

/// How many commits' time to wait for each that is ahead.
const COMMITS_EACH: u32 = 8;
const LEAST_PATIENCE: Duration = Duration::from_millis(10);
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// The keys that have a queue now.
#[derive(Default)]
pub(crate) struct Queues {
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
    left: Mutex<Option<Arc<Left>>>,
}

/// Entries that a commit is known to have left, all current at its point.
pub(super) struct Left {
    /// Before this the commit had not been sent.
    pub(super) sent: Instant,
    /// How many losses there had been when the attempt began that was committed.
    pub(super) history: u64,
    /// The floor that the commit was made under, or an earlier one.
    pub(super) floor: Option<KnownFloor>,
    pub(super) point: Point,
    pub(super) entries: Vec<(Key, Option<Entry>)>,
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
    fn hot<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Key> {
        let by_key = self.by_key.lock().unwrap_or_else(PoisonError::into_inner);
        keys.filter(|key| by_key.contains_key(*key)).cloned().collect()
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

impl Engine {
    /// Waits in the queues of the plan's keys, where there are any. The transaction stands in none yet.
    pub(super) async fn queue_if_hot(
        &self,
        plan: &mut Plan,
        read_point: Option<Point>,
        run: &mut Standing,
    ) -> Option<Ended> {
        let hot = self.queues.hot(plan.keys());
        if hot.is_empty() {
            return None;
        }
        if self.capabilities.in_process {
            self.give_way(&hot, run.deadline).await;
            return None;
        }
        self.queue_up(hot, plan, read_point, run).await
    }

    /// Waits in the queues of these keys of the plan. What was read may have changed meanwhile: `Some` if the attempt is lost.
    pub(super) async fn queue_up(
        &self,
        keys: Vec<Key>,
        plan: &mut Plan,
        read_point: Option<Point>,
        run: &mut Standing,
    ) -> Option<Ended> {
        run.tickets = self.queue_for(keys, run.deadline).await;
        // An older one tells nothing of what was read since.
        let left = find_left(&run.tickets, run.begun, self.losses.count())
            .filter(|left| read_point.is_none_or(|read| read < left.point))?;
        let key = plan.stale_by(&left)?;
        Some(Ended::Lost { key, primed: Some(left.primed()) })
    }

    /// Lets those go first who stand in the queues of these keys, without standing in line with them. In memory those
    /// who have not lost often only give way: if they all took turns nobody would race any more.
    async fn give_way(&self, keys: &[Key], deadline: Option<Instant>) {
        let until = Instant::now() + LEAST_PATIENCE;
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        loop {
            let mut ended = pin!(self.queues.ended.notified());
            ended.as_mut().enable();
            if self.queues.hot(keys.iter()).is_empty() {
                return;
            }
            let Ok(Ok(())) = self.closing.race(timeout_at(until, ended)).await else { return };
        }
    }

    /// Waits for its turn at each of these keys. The caller holds no tickets, and keys are taken in their
    /// order, so that there is no circle. Whoever is ahead may be held up by what this one would do, so the wait is
    /// bounded, and ends with the client; then the caller goes on with the tickets that it got.
    pub(super) async fn queue_for(&self, mut keys: Vec<Key>, deadline: Option<Instant>) -> Vec<Ticket> {
        keys.sort_unstable();
        keys.dedup();
        let mut tickets = Vec::with_capacity(keys.len());
        for key in &keys {
            let mut ticket = self.queues.join(key);
            let turn = match Arc::clone(&ticket.queue.turn).try_lock_owned() {
                Ok(turn) => turn,
                Err(_) => {
                    let ahead = u32::try_from(ticket.queue.users.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
                    let patience = self.backoff.commit_time().saturating_mul(COMMITS_EACH.saturating_mul(ahead));
                    let until = Instant::now() + patience.clamp(LEAST_PATIENCE, MOST_PATIENCE);
                    let until = deadline.map_or(until, |deadline| until.min(deadline));
                    let turn = timeout_at(until, Arc::clone(&ticket.queue.turn).lock_owned());
                    match self.closing.race(turn).await {
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
}

/// Tells those who are next what this commit left.
pub(super) fn leave(tickets: &[Ticket], left: Left) {
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
pub(super) fn find_left(tickets: &[Ticket], begun: Instant, history: u64) -> Option<Arc<Left>> {
    let left = |ticket: &Ticket| ticket.queue.left.lock().unwrap_or_else(PoisonError::into_inner).clone();
    tickets
        .iter()
        .filter_map(left)
        .filter(|left| left.sent >= begun && left.history == history)
        .max_by_key(|left| left.point)
}

/// Whether a ticket for each of these keys is held. `queue_for` gave them in the order of their keys.
pub(super) fn hold_all<'a>(tickets: &[Ticket], mut keys: impl Iterator<Item = &'a Key>) -> bool {
    keys.all(|key| tickets.binary_search_by(|ticket| ticket.key.cmp(key)).is_ok())
}

impl Left {
    pub(super) fn primed(&self) -> Box<Primed> {
        Primed::new(self.floor.clone(), self.point, self.entries.iter().cloned())
    }
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
