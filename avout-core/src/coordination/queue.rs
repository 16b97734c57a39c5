use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::delivery::Delivery;
use super::raw::RawValue;
use super::receive::receive;
use super::records::{Records, no_room};
use super::session_manager::SessionManager;
use crate::backend::time::timeout_at;
use crate::engine::{Options, run};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Item, Stm, Tx, Value};
use crate::protocol::Key;

/// A durable queue of values, first in, first out, over all processes; made by [`Stm::queue`](crate::Stm::queue).
///
/// Pushing and popping are transactions of their own, or parts of larger ones: [`push_in`](Self::push_in) and
/// [`pop_in`](Self::pop_in). So a value can be taken off in the same commit that does its work, and the work is done
/// exactly once. If the work is not a transaction, [`receive`](Self::receive) hides the value until it is acknowledged,
/// and redelivers it if that does not happen.
///
/// A queue holds at most its capacity of values, including those that were received but not acknowledged. Each value is
/// a record of its own, and places are reused, so storage is bounded. A new value makes all waiting consumers look;
/// with very many consumers, a queue for each group of them is quicker.
///
/// # The capacity
/// All users of a queue name the same capacity. With another capacity every operation is refused with
/// [`Mismatch`](ErrorKind::Mismatch), which names both, except [`set_capacity`](Self::set_capacity), which changes it.
///
/// # Values that cannot be read
/// A value that a consumer cannot decode, such as one pushed by a newer version of a program, stays where it is.
/// Consumers that can decode it get it; all others get the error [`Codec`](ErrorKind::Codec) with an
/// [`Unreadable`](crate::Unreadable) as its source, again and again. The consumer decides what to do: try later, take
/// the bytes off with [`pop_raw`](Self::pop_raw), or throw the value away with [`skip`](Self::skip). Skipping names the
/// number from the error, so it never throws another value away.
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
    records: Arc<Records>,
    types: PhantomData<fn() -> T>,
}

impl Stm {
    /// The queue with this name, with room for `capacity` values. It makes no request. All its users must name the same
    /// capacity and type.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, one of more than 460 bytes, or a capacity of zero.
    /// [`Mismatch`](ErrorKind::Mismatch), from every operation: it has another capacity; [`Queue::set_capacity`] changes it.
    pub fn queue<T>(&self, key: impl AsRef<str>, capacity: u64) -> Result<Queue<T>> {
        let records = Records::new(SessionManager::of(self), Key::new(key)?, capacity)?;
        Ok(Queue { records: Arc::new(records), types: PhantomData })
    }
}

impl<T: Value + Serialize + DeserializeOwned> Queue<T> {
    /// The queue's key.
    pub fn key(&self) -> &Key {
        &self.records.key
    }

    /// Adds a value at the end.
    ///
    /// # Errors
    /// [`Full`](ErrorKind::Full): it holds as many values as it has room for. [`Mismatch`](ErrorKind::Mismatch): it has
    /// another capacity. Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn push(&self, value: T) -> Result<()> {
        let item = Item::new(value);
        self.records.manager.transact_soon(async |tx| self.records.push(&tx, item.clone()).await).await
    }

    /// Adds a value as a part of a transaction.
    ///
    /// # Errors
    /// As [`push`](Self::push), and those of [`Tx`]'s methods.
    pub async fn push_in(&self, tx: &Tx, value: T) -> Result<()> {
        self.records.push(tx, Item::new(value)).await
    }

    /// Takes the first value off, and waits for one for as long as it takes.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it has another capacity. [`Codec`](ErrorKind::Codec): the value cannot be
    /// read as a `T`, and stays. Those of [`Stm::dosync`](crate::Stm::dosync), except `Timeout`.
    ///
    /// # Cancel safety
    /// If the future is dropped while it waits, it takes nothing. If it is dropped in the moment of its commit, a value
    /// may have been taken off and is lost. Where that matters, use [`receive`](Self::receive).
    pub async fn pop(&self) -> Result<T> {
        self.pop_until(None).await
    }

    /// The same with a time limit.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), and as [`pop`](Self::pop).
    ///
    /// # Cancel safety
    /// As [`pop`](Self::pop). This time limit never loses a value, as a timeout around [`pop`](Self::pop) may.
    pub async fn pop_timeout(&self, timeout: Duration) -> Result<T> {
        self.pop_until(Some(timeout)).await
    }

    /// Takes the first value off; `None`: there is none.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), and `Timeout`.
    ///
    /// # Cancel safety
    /// As [`pop`](Self::pop).
    pub async fn try_pop(&self) -> Result<Option<T>> {
        self.records.manager.transact_soon(async |tx| self.pop_in(&tx).await).await
    }

    /// Takes the first value off as a part of a transaction; `None`: there is none, and a [`retry`](Tx::retry) waits
    /// for one.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), and those of [`Tx`]'s methods.
    pub async fn pop_in(&self, tx: &Tx) -> Result<Option<T>> {
        let Some((head, item)) = self.records.front(tx).await? else {
            return Ok(None);
        };
        let value = self.records.read(tx, head.front, &item).await?;
        self.records.pass_front(tx, head, item).await?;
        Ok(Some(value))
    }

    /// Gets the first value that no other consumer has, and waits for one for as long as it takes. The value is hidden
    /// from others until it is [acknowledged](Delivery::ack), which takes it off. It is redelivered, before later
    /// values, if you drop the delivery, your process dies, or `hidden` elapses on a waiting consumer's clock.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it has another capacity, possibly set during the wait.
    /// [`Codec`](ErrorKind::Codec): the value cannot be read as a `T`, and stays for others. Errors of the store that
    /// do not pass; [`Nested`](ErrorKind::Nested).
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped, a value that it got is redelivered at once.
    pub async fn receive(&self, hidden: Duration) -> Result<Delivery<T>> {
        self.records.manager.engine.begin("receive")?;
        receive(Arc::clone(&self.records), hidden).await
    }

    /// The number of values, including those that were received but not acknowledged.
    ///
    /// # Errors
    /// As [`push`](Self::push), except `Full`.
    pub async fn len(&self) -> Result<u64> {
        let Records { manager, tail, .. } = &*self.records;
        let count = manager.transact_soon(async |tx| {
            let Some(head) = self.records.head(&tx).await? else {
                return Ok(0);
            };
            Ok(tail.get(&tx).await?.map_or(0, |tail| head.count(&tail)))
        });
        count.await
    }

    /// Whether there is no value.
    ///
    /// # Errors
    /// As [`len`](Self::len).
    pub async fn is_empty(&self) -> Result<bool> {
        Ok(self.len().await? == 0)
    }

    /// The first value that no consumer has, which stays where it is; `None`: there is none.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    pub async fn peek(&self) -> Result<Option<T>> {
        self.records.manager.transact_soon(async |tx| self.peek_in(&tx).await).await
    }

    /// The same as a part of a transaction, which commits only if that is still the first value.
    ///
    /// # Errors
    /// As [`pop_in`](Self::pop_in).
    pub async fn peek_in(&self, tx: &Tx) -> Result<Option<T>> {
        match self.records.front(tx).await? {
            None => Ok(None),
            Some((head, item)) => self.records.read(tx, head.front, &item).await.map(Some),
        }
    }

    async fn pop_until(&self, deadline: Option<Duration>) -> Result<T> {
        let engine = &self.records.manager.engine;
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
}

/// Operations on values of any type, including those that cannot be read.
impl<T> Queue<T> {
    /// Takes a value off without decoding it: the first one that no consumer has, or one that is due for redelivery.
    /// `false`: it is neither; another consumer may have taken it off, or have it now.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it has another capacity. Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn skip(&self, number: u64) -> Result<bool> {
        self.records.manager.engine.begin("skip")?;
        let Records { manager, key, .. } = &*self.records;
        let looked = match manager.engine.deadline() {
            None => self.records.overdue().await,
            Some(deadline) => timeout_at(deadline, self.records.overdue()).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, "the deadline passed before the store had told what is out"))
            }),
        };
        looked.map_err(|error| error.at(key).during("skip"))?;
        self.records.manager.transact_soon(async |tx| self.skip_in(&tx, number).await).await
    }

    /// The same as a part of a transaction. Whether a value is due for redelivery is what this client saw when it last
    /// looked, as in the [`receive`](Self::receive) that gave the error.
    ///
    /// # Errors
    /// As [`skip`](Self::skip), and those of [`Tx`]'s methods.
    pub async fn skip_in(&self, tx: &Tx, number: u64) -> Result<bool> {
        let records = &self.records;
        if let Some((head, item)) = records.front(tx).await?
            && head.front == number
        {
            records.pass_front(tx, head, item).await?;
            return Ok(true);
        }
        let Some(mut head) = records.head(tx).await? else {
            return Ok(false);
        };
        let out = head.out.iter().find(|out| out.number == number);
        if !out.is_some_and(|out| records.manager.sights.is_overdue(&records.key, out)) {
            return Ok(false);
        }
        records.take_off(tx, &mut head, number).await?;
        records.head.put(tx, head).await?;
        Ok(true)
    }

    /// Takes the first value off in its stored form; `None`: there is none.
    ///
    /// # Errors
    /// As [`skip`](Self::skip).
    ///
    /// # Cancel safety
    /// As [`pop`](Self::pop).
    pub async fn pop_raw(&self) -> Result<Option<RawValue>> {
        self.records.manager.transact_soon(async |tx| self.pop_raw_in(&tx).await).await
    }

    /// The same as a part of a transaction.
    ///
    /// # Errors
    /// As [`skip`](Self::skip), and those of [`Tx`]'s methods.
    pub async fn pop_raw_in(&self, tx: &Tx) -> Result<Option<RawValue>> {
        let Some((head, item)) = self.records.front(tx).await? else {
            return Ok(None);
        };
        let value = RawValue::new(head.front, &self.records.load(tx, head.front, &item).await?)?;
        self.records.pass_front(tx, head, item).await?;
        Ok(Some(value))
    }

    /// A value in its stored form, which stays where it is: the first one that no consumer has, or one that is out.
    /// `None`: it is neither.
    ///
    /// # Errors
    /// As [`skip`](Self::skip).
    pub async fn peek_raw(&self, number: u64) -> Result<Option<RawValue>> {
        self.records.manager.transact_soon(async |tx| self.peek_raw_in(&tx, number).await).await
    }

    /// The same as a part of a transaction, which commits only if that is still so.
    ///
    /// # Errors
    /// As [`skip`](Self::skip), and those of [`Tx`]'s methods.
    pub async fn peek_raw_in(&self, tx: &Tx, number: u64) -> Result<Option<RawValue>> {
        let records = &self.records;
        let Some(head) = records.head(tx).await? else {
            return Ok(None);
        };
        let out = head.out.iter().any(|out| out.number == number);
        let place = if out { head.place(number) } else { head.front_place().filter(|_| head.front == number) };
        let Some(place) = place else {
            return Ok(None);
        };
        let item = records.item(place)?;
        if !item.exists(tx).await? {
            return Ok(None);
        }
        RawValue::new(number, &records.load(tx, number, &item).await?).map(Some)
    }

    /// Changes the capacity of the queue, whatever it was, and returns a handle with the new capacity. Others may push
    /// and pop meanwhile: no value is lost, duplicated or out of order. A queue that holds more values than that keeps
    /// them all, and takes no more until there is room.
    ///
    /// From then on every operation of a handle with another capacity is refused with
    /// [`Mismatch`](ErrorKind::Mismatch), including those that wait. Values that were received can still be
    /// acknowledged. A queue to which nothing was pushed has no capacity yet, and the first push sets it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): a capacity of zero. Those of [`Stm::dosync`](crate::Stm::dosync).
    /// After an unknown outcome, call it again.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
    /// use avout_core::ErrorKind;
    ///
    /// let jobs = stm.queue::<u32>("/jobs", 1)?;
    /// jobs.push(1).await?;
    /// assert_eq!(jobs.push(2).await.map_err(|error| error.kind()), Err(ErrorKind::Full));
    ///
    /// let jobs = jobs.set_capacity(2).await?;
    /// jobs.push(2).await?;
    /// assert_eq!((jobs.pop().await?, jobs.pop().await?), (1, 2));
    /// # Ok(()) }
    /// ```
    pub async fn set_capacity(&self, capacity: u64) -> Result<Self> {
        let records = &self.records;
        if capacity == 0 {
            return Err(no_room(&records.key));
        }
        let resized = Records::new(Arc::clone(&records.manager), records.key.clone(), capacity)?;
        records.manager.transact_soon(async |tx| records.resize(&tx, capacity).await).await?;
        Ok(Self { records: Arc::new(resized), types: PhantomData })
    }

    /// Removes the queue with all its values, including those that are out. A later push makes a new one, of any
    /// capacity.
    ///
    /// It may be in use. Consumers that wait go on waiting, for values of the new queue. Values that were received can
    /// no longer be acknowledged: the error is [`Lost`](ErrorKind::Lost), so that a transaction with
    /// [`ack_in`](Delivery::ack_in) does nothing.
    ///
    /// The queue goes in one commit. The records of its values are removed afterwards, some at a time. If that is
    /// interrupted, another call continues, or the client that makes the new queue. The number of the next value stays.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): it has another capacity. Those of [`Stm::dosync`](crate::Stm::dosync). After
    /// any error, it can be called again.
    ///
    /// # Cancel safety
    /// Safe: it can be called again.
    pub async fn destroy(&self) -> Result<()> {
        let records = &self.records;
        records.manager.transact_soon(async |tx| records.ruin(&tx).await).await?;
        records.clear_all().await
    }
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { records: Arc::clone(&self.records), types: PhantomData }
    }
}

impl<T> std::fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Records { key, capacity, .. } = &*self.records;
        f.debug_struct("Queue").field("key", key).field("capacity", capacity).finish()
    }
}
