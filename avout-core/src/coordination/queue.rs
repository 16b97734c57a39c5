use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::delivery::Delivery;
use super::gate::own_key;
use super::hub::Hub;
use super::rules::Claimant;
use crate::backend::time::{sleep_until, timeout_at};
use crate::engine::{Options, refuse_nested, run};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Own, Stm, Tx, Value};
use crate::protocol::{Key, SessionId};

/// A durable queue of values, first in, first out, over all processes; made by [`Stm::queue`](crate::Stm::queue).
///
/// To push and to pop are transactions of their own, or parts of larger ones: [`push_in`](Self::push_in) and [`pop_in`](Self::pop_in). So a value
/// can be taken off in the same commit that does what it asks for, and it happens exactly once. Where the work is not a
/// transaction, [`receive`](Self::receive) hides the value until it is acknowledged, and brings it back if that does not happen.
///
/// It holds at most its capacity of values. Each is a record of its own, and places are used again, so that what is stored is bounded.
/// All who wait for a value look when one comes; for very many consumers a queue for each of some groups is quicker.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let done = stm.create_ref("/done", 0_u32).await?;
/// let jobs = stm.queue::<String>("/jobs", 1000)?;
/// jobs.push("a job".to_string()).await?;
/// jobs.push("another".to_string()).await?;
///
/// assert_eq!(jobs.pop().await?, "a job");
/// stm.dosync(async |tx| {
///     let job = jobs.pop_in(&tx).await?;
///     tx.alter(&done, |n| n + u32::from(job.is_some())).await
/// }).await?;
/// assert_eq!((done.get().await?, jobs.try_pop().await?), (1, None));
/// # Ok(()) }
/// ```
pub struct Queue<T> {
    pub(super) inner: Arc<Inner>,
    types: PhantomData<fn() -> T>,
}

/// What of a queue does not depend on the type.
pub(super) struct Inner {
    pub(super) hub: Arc<Hub>,
    pub(super) key: Key,
    capacity: u64,
    head: Own<Head>,
    tail: Own<Tail>,
    /// When this process has seen for the first time that a value was out.
    seen: Mutex<HashMap<(u64, u32), Instant>>,
}

/// What those who take off change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The first value that nobody has got yet.
    next: u64,
    /// Values that somebody has got, and has not acknowledged.
    out: Vec<Out>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Out {
    number: u64,
    who: Claimant,
    /// How often it was handed out.
    times: u32,
    /// How long it stays hidden, in milliseconds.
    hidden: u64,
}

/// What those who add change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tail {
    /// The number of the next value.
    next: u64,
    /// No value before this one is in the queue; there may be none at it either.
    first: u64,
    capacity: u64,
}

/// What there is to be received.
pub(super) struct Got<T> {
    pub(super) number: u64,
    pub(super) times: u32,
    pub(super) value: T,
}

impl Head {
    fn first(&self) -> u64 {
        self.out.iter().map(|out| out.number).min().unwrap_or(self.next).min(self.next)
    }
}

impl Stm {
    /// The queue of this name, with room for `capacity` values. It makes no request. All who use it must name the same capacity and type.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): no key, or one of more than 460 bytes; a capacity of zero. When it is used:
    /// [`Mismatch`](ErrorKind::Mismatch) if it was made with another capacity.
    pub fn queue<T>(&self, key: impl AsRef<str>, capacity: u64) -> Result<Queue<T>> {
        let hub = Hub::of(self);
        let key = Key::new(key)?;
        if capacity == 0 {
            return Err(Error::new(ErrorKind::InvalidInput, "a queue has room for at least one value").at(&key));
        }
        own_key("queues", "18446744073709551615", &key)?;
        let head = Own::new(&hub.engine, own_key("queues", "head", &key)?, "head");
        let tail = Own::new(&hub.engine, own_key("queues", "tail", &key)?, "tail");
        let inner = Inner { hub, key, capacity, head, tail, seen: Mutex::default() };
        Ok(Queue { inner: Arc::new(inner), types: PhantomData })
    }
}

impl<T: Value + Serialize + DeserializeOwned> Queue<T> {
    /// The queue's key.
    pub fn key(&self) -> &Key {
        &self.inner.key
    }

    /// Adds a value at the end.
    ///
    /// # Errors
    /// [`Full`](ErrorKind::Full): it holds as many values as it has room for. [`Mismatch`](ErrorKind::Mismatch): another capacity. And
    /// those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn push(&self, value: T) -> Result<()> {
        self.inner.hub.transact_soon(async |tx| self.push_in(&tx, value.clone()).await).await
    }

    /// Adds a value as a part of a transaction.
    ///
    /// # Errors
    /// As [`push`](Self::push), and of [`Tx`]'s methods.
    pub async fn push_in(&self, tx: &Tx, value: T) -> Result<()> {
        let Inner { tail, key, capacity, .. } = &*self.inner;
        let mut end = tail.get(tx).await?.unwrap_or(Tail { next: 0, first: 0, capacity: *capacity });
        if end.capacity != *capacity {
            let message = format!("it was made with room for {} values, and is used with {capacity}", end.capacity);
            return Err(Error::new(ErrorKind::Mismatch, message).at(key));
        }
        if end.next - end.first >= *capacity {
            end.first = self.inner.head(tx).await?.first();
            if end.next - end.first >= *capacity {
                let message = format!("the queue holds {capacity} values, and has no room for more");
                return Err(Error::new(ErrorKind::Full, message).at(key));
            }
        }
        self.item(end.next)?.put(tx, value).await?;
        end.next += 1;
        tail.put(tx, end).await
    }

    /// Takes the first value off, and waits for one as long as it takes.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync), but for `Timeout`.
    ///
    /// # Cancel safety
    /// Dropped while it waits, it takes nothing. Dropped in the moment of its commit, it may have taken a value, which is lost then:
    /// [`receive`](Self::receive) is for where that matters.
    pub async fn pop(&self) -> Result<T> {
        self.pop_until(None).await
    }

    /// The same, but waits no longer than this.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), and as [`pop`](Self::pop).
    ///
    /// # Cancel safety
    /// As [`pop`](Self::pop).
    pub async fn pop_timeout(&self, timeout: Duration) -> Result<T> {
        self.pop_until(Some(timeout)).await
    }

    /// Takes the first value off; `None`: there is none.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`pop`](Self::pop).
    pub async fn try_pop(&self) -> Result<Option<T>> {
        self.inner.hub.transact_soon(async |tx| self.pop_in(&tx).await).await
    }

    /// Takes the first value off as a part of a transaction; `None`: there is none, and a [`retry`](Tx::retry) waits for one.
    ///
    /// # Errors
    /// As [`Tx`]'s methods.
    pub async fn pop_in(&self, tx: &Tx) -> Result<Option<T>> {
        let mut head = self.inner.head(tx).await?;
        let item = self.item(head.next)?;
        let Some(value) = item.get(tx).await? else {
            return Ok(None);
        };
        if head.out.iter().any(|out| out.number % self.inner.capacity == head.next % self.inner.capacity) {
            // The place is that of a value which is out: the queue is full, and the next value is still to come.
            return Ok(None);
        }
        item.remove(tx).await?;
        head.next += 1;
        self.inner.head.put(tx, head).await?;
        Ok(Some(value))
    }

    /// Gets the first value that nobody else has, and waits for one as long as it takes. It is hidden from others until it is
    /// [acknowledged](Delivery::ack), which takes it off; or until `hidden` has passed by the clock of one that waits, or
    /// this process has died, or the delivery is dropped: then it is handed out again, before those that came after it.
    ///
    /// # Errors
    /// What the store refuses for good; [`Nested`](ErrorKind::Nested).
    ///
    /// # Cancel safety
    /// Safe: a value that nobody got is handed out again, at the latest when `hidden` has passed.
    pub async fn receive(&self, hidden: Duration) -> Result<Delivery<T>> {
        refuse_nested("receive")?;
        let Inner { hub, head, key, .. } = &*self.inner;
        let claim = hub.claim();
        let engine = &hub.engine;
        loop {
            let session = hub.session().await?;
            let who = Claimant::new(session.id, claim.ticket);
            // Before the look, so that nothing that comes after it is missed.
            let next = hub.transact(async |tx| Ok(self.inner.head(&tx).await?.next)).await?;
            let keys = [head.key().clone(), self.item(next)?.key().clone()];
            let mut watcher = engine.until(None, || engine.coordinator.watch(&keys)).await?;
            let (again, look_again) = self.inner.overdue().await?;
            let begun = session.has_begun();
            let sent = Mutex::new(Instant::now());
            let got = hub
                .transact(async |tx| {
                    *sent.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    if !hub.enter(&session, begun, &tx).await? {
                        return Ok(None);
                    }
                    self.take(&tx, who, hidden, &again).await.map(Some)
                })
                .await
                .map_err(|error| error.at(key).during("receive"))?;
            match got {
                None => {
                    hub.lose(&session);
                    continue;
                }
                Some(got) => {
                    hub.entered(&session, sent.into_inner().unwrap_or_else(PoisonError::into_inner));
                    if let Some(Got { number, times, value }) = got {
                        return Ok(Delivery::new(self.clone(), claim, session, who, number, times, value));
                    }
                }
            }
            let hint = async {
                match look_again {
                    None => watcher.changed().await,
                    Some(at) => timeout_at(at, watcher.changed()).await.unwrap_or(Ok(crate::backend::Wake::Changed)),
                }
            };
            match hint.await {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    sleep_until(Instant::now() + hub.tick() / 8).await
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// How many values there are, those that are out and not acknowledged among them.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn len(&self) -> Result<u64> {
        let Inner { hub, tail, .. } = &*self.inner;
        hub.transact_soon(async |tx| {
            let head = self.inner.head(&tx).await?;
            let end = tail.get(&tx).await?.map_or(0, |tail| tail.next);
            Ok(end - head.next + head.out.len() as u64)
        })
        .await
    }

    /// Whether there is no value.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    async fn pop_until(&self, deadline: Option<Duration>) -> Result<T> {
        let engine = &self.inner.hub.engine;
        let options = Options { deadline, max_attempts: None, ..Options::new(&engine.config) };
        run(engine, options, |tx| async move {
            let tx = Tx(tx);
            match self.pop_in(&tx).await? {
                Some(value) => Ok(value),
                None => Err(tx.retry()),
            }
        })
        .await
    }

    pub(super) fn item(&self, number: u64) -> Result<Own<T>> {
        let Inner { hub, key, capacity, .. } = &*self.inner;
        Ok(Own::new(&hub.engine, own_key("queues", &(number % capacity).to_string(), key)?, "item"))
    }

    /// Hands a value out: one of those that were out for too long, or the next. `None`: there is none.
    async fn take(&self, tx: &Tx, who: Claimant, hidden: Duration, again: &[(u64, u32)]) -> Result<Option<Got<T>>> {
        let mut head = self.inner.head(tx).await?;
        let hidden = u64::try_from(hidden.as_millis()).unwrap_or(u64::MAX);
        let overdue = head.out.iter_mut().filter(|out| again.contains(&(out.number, out.times)));
        let (number, times) = match overdue.min_by_key(|out| out.number) {
            Some(out) => {
                (out.who, out.times, out.hidden) = (who, out.times + 1, hidden);
                (out.number, out.times)
            }
            None => {
                let number = head.next;
                let taken = head.out.iter().any(|out| out.number % self.inner.capacity == number % self.inner.capacity);
                if self.item(number)?.get(tx).await?.is_none() || taken {
                    return Ok(None);
                }
                head.next += 1;
                head.out.push(Out { number, who, times: 1, hidden });
                (number, 1)
            }
        };
        let Some(value) = self.item(number)?.get(tx).await? else {
            return Err(Error::new(ErrorKind::Corrupt, "a value that was handed out is missing").at(&self.inner.key));
        };
        self.inner.head.put(tx, head).await?;
        Ok(Some(Got { number, times, value }))
    }
}

impl Inner {
    async fn head(&self, tx: &Tx) -> Result<Head> {
        Ok(self.head.get(tx).await?.unwrap_or_default())
    }

    /// The values that were out for too long, or with somebody who died; and when to look for more of them.
    async fn overdue(&self) -> Result<(Vec<(u64, u32)>, Option<Instant>)> {
        let head = self.hub.transact(async |tx| self.head(&tx).await).await?;
        if head.out.is_empty() {
            return Ok((Vec::new(), None));
        }
        let mut sessions: Vec<SessionId> = head.out.iter().map(|out| out.who.session()).collect();
        sessions.sort_unstable();
        sessions.dedup();
        let dead: Vec<SessionId> = self.hub.judge(&sessions).await?.into_iter().map(|dead| dead.session).collect();
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(number, times), _| head.out.iter().any(|out| (out.number, out.times) == (*number, *times)));
        let mut look_again = now + self.hub.tick();
        let mut overdue = Vec::new();
        for out in &head.out {
            let since = *seen.entry((out.number, out.times)).or_insert(now);
            match since.checked_add(Duration::from_millis(out.hidden)) {
                Some(until) if until <= now => overdue.push((out.number, out.times)),
                Some(until) => look_again = look_again.min(until),
                None => {}
            }
            if dead.contains(&out.who.session()) && !overdue.contains(&(out.number, out.times)) {
                overdue.push((out.number, out.times));
            }
        }
        Ok((overdue, Some(look_again)))
    }

    /// Forgets that a value is out. `false`: it was handed to somebody else since.
    pub(super) async fn settle(&self, tx: &Tx, number: u64, who: Claimant, times: u32) -> Result<bool> {
        let mut head = self.head(tx).await?;
        let before = head.out.len();
        head.out.retain(|out| (out.number, out.who, out.times) != (number, who, times));
        if head.out.len() == before {
            return Ok(false);
        }
        self.head.put(tx, head).await?;
        Ok(true)
    }

    /// Lets others have a value at once.
    pub(super) async fn expose(&self, number: u64, who: Claimant, times: u32) -> Result<()> {
        self.hub
            .transact(async |tx| {
                let mut head = self.head(&tx).await?;
                let mine = head.out.iter_mut().find(|out| (out.number, out.who, out.times) == (number, who, times));
                let Some(out) = mine else {
                    return Ok(());
                };
                out.hidden = 0;
                self.head.put(&tx, head).await
            })
            .await
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), types: PhantomData }
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queue").field("key", &self.inner.key).field("capacity", &self.inner.capacity).finish()
    }
}
