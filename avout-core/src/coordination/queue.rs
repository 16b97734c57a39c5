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
/// To push and to pop are transactions of their own, or parts of larger ones: [`push_in`](Self::push_in) and [`pop_in`](Self::pop_in). So a value
/// can be taken off in the same commit that does what it asks for, and it happens exactly once. Where the work is not a
/// transaction, [`receive`](Self::receive) hides the value until it is acknowledged, and brings it back if that does not happen.
///
/// It holds at most its capacity of values, those that were received and not acknowledged among them. Each is a record of its own, and
/// places are used again, so that what is stored is bounded.
/// All who wait for a value look when one comes; for very many consumers a queue for each of some groups is quicker.
///
/// # The capacity
/// All who use a queue name the same capacity. With another one every operation is refused with [`Mismatch`](ErrorKind::Mismatch), which
/// names both, but for [`set_capacity`](Self::set_capacity), which changes it.
///
/// # Values that cannot be read
/// A value that a consumer cannot decode, as one that a newer version of a program has pushed, stays where it is: consumers that can
/// decode it get it, and all others the error [`Codec`](ErrorKind::Codec) with an [`Unreadable`](crate::Unreadable) as its source, again
/// and again. What is to be done is the consumer's choice: to go on later, to take the bytes off with [`pop_raw`](Self::pop_raw), or to
/// throw the value away with [`skip`](Self::skip), by the number that the error names, so that never another value is thrown away.
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
    /// The queue of this name, with room for `capacity` values. It makes no request. All who use it must name the same capacity and type.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): no key, or one of more than 460 bytes; a capacity of zero. When it is used:
    /// [`Mismatch`](ErrorKind::Mismatch) if it has another capacity.
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
    /// [`Full`](ErrorKind::Full): it holds as many values as it has room for. [`Mismatch`](ErrorKind::Mismatch): another capacity. And
    /// those of [`Stm::dosync`](crate::Stm::dosync).
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
    /// As [`push`](Self::push), and of [`Tx`]'s methods.
    pub async fn push_in(&self, tx: &Tx, value: T) -> Result<()> {
        self.records.push(tx, Item::new(value)).await
    }

    /// Takes the first value off, and waits for one as long as it takes.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): another capacity. [`Codec`](ErrorKind::Codec): the value cannot be read as a `T`, and stays. And
    /// those of [`Stm::dosync`](crate::Stm::dosync), but for `Timeout`.
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
    /// As [`pop`](Self::pop). The time that is given here never loses a value, as a timeout around [`pop`](Self::pop) may.
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

    /// Takes the first value off as a part of a transaction; `None`: there is none, and a [`retry`](Tx::retry) waits for one.
    ///
    /// # Errors
    /// As [`pop`](Self::pop), and of [`Tx`]'s methods.
    pub async fn pop_in(&self, tx: &Tx) -> Result<Option<T>> {
        let Some((head, item)) = self.records.front(tx).await? else {
            return Ok(None);
        };
        let value = self.records.read(tx, head.front, &item).await?;
        self.records.pass_front(tx, head, item).await?;
        Ok(Some(value))
    }

    /// Gets the first value that nobody else has, and waits for one as long as it takes. It is hidden from others until it is
    /// [acknowledged](Delivery::ack), which takes it off; or until `hidden` has passed by the clock of one that waits, or
    /// this process has died, or the delivery is dropped: then it is handed out again, before those that came after it.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): another capacity, also when it is changed while this waits. [`Codec`](ErrorKind::Codec): the
    /// value cannot be read as a `T`, and stays for others. What the store refuses for good; [`Nested`](ErrorKind::Nested).
    ///
    /// # Cancel safety
    /// Safe: what was got for a future that was dropped is handed out again at once.
    pub async fn receive(&self, hidden: Duration) -> Result<Delivery<T>> {
        self.records.manager.engine.begin("receive")?;
        receive(Arc::clone(&self.records), hidden).await
    }

    /// How many values there are, those that are out and not acknowledged among them.
    ///
    /// # Errors
    /// As [`push`](Self::push), but for `Full`.
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

    /// The first value that nobody has got, which stays where it is; `None`: there is none.
    ///
    /// # Errors
    /// As [`try_pop`](Self::try_pop).
    pub async fn peek(&self) -> Result<Option<T>> {
        self.records.manager.transact_soon(async |tx| self.peek_in(&tx).await).await
    }

    /// The same as a part of a transaction, which commits only if that is still so.
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

/// For values of any type, also those that cannot be read.
impl<T> Queue<T> {
    /// Takes a value off without decoding it: the first one that nobody has got, or one that was handed out and is to be handed out
    /// again. `false`: it is neither, as when somebody else has taken it, or has it now.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): another capacity. Those of [`Stm::dosync`](crate::Stm::dosync).
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

    /// The same as a part of a transaction. Which values are to be handed out again is what this client saw when it last looked, as
    /// it did for the [`receive`](Self::receive) that gave the error.
    ///
    /// # Errors
    /// As [`skip`](Self::skip), and of [`Tx`]'s methods.
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

    /// Takes the first value off as it is stored; `None`: there is none.
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
    /// As [`skip`](Self::skip), and of [`Tx`]'s methods.
    pub async fn pop_raw_in(&self, tx: &Tx) -> Result<Option<RawValue>> {
        let Some((head, item)) = self.records.front(tx).await? else {
            return Ok(None);
        };
        let value = RawValue::new(head.front, &self.records.load(tx, head.front, &item).await?)?;
        self.records.pass_front(tx, head, item).await?;
        Ok(Some(value))
    }

    /// A value as it is stored, which stays where it is: the first one that nobody has got, or one that is out. `None`: it is neither.
    ///
    /// # Errors
    /// As [`skip`](Self::skip).
    pub async fn peek_raw(&self, number: u64) -> Result<Option<RawValue>> {
        self.records.manager.transact_soon(async |tx| self.peek_raw_in(&tx, number).await).await
    }

    /// The same as a part of a transaction, which commits only if that is still so.
    ///
    /// # Errors
    /// As [`skip`](Self::skip), and of [`Tx`]'s methods.
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

    /// Changes how many values the queue has room for, from whatever it was, and gives a handle with the new capacity. Others may push and
    /// pop meanwhile: no value is lost, comes twice or out of order. A queue that holds more than that keeps them all, and takes no more until
    /// there is room.
    ///
    /// From then on every operation of handles with another capacity, those that wait among them, is refused with
    /// [`Mismatch`](ErrorKind::Mismatch). What they have received can still be acknowledged. A queue that nobody has pushed to
    /// has no capacity yet, and the first push sets it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): a capacity of zero. Those of [`Stm::dosync`](crate::Stm::dosync). After an unknown
    /// outcome it can be called again.
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

    /// Removes the queue with all its values, those that are out among them. Whoever pushes to it later makes a new one, of any
    /// capacity.
    ///
    /// It may be in use. Those who wait for values wait on, for those of the new queue. What was received can no longer be
    /// acknowledged, with the error [`Lost`](ErrorKind::Lost), so that a transaction with [`ack_in`](Delivery::ack_in) does nothing.
    ///
    /// The queue goes in one commit. The records of its values are removed after it, some at a time; if that does not come to its end,
    /// another call goes on with it, or whoever makes the new queue. What stays is a number, from which values go on to be counted.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): another capacity. Those of [`Stm::dosync`](crate::Stm::dosync). After any of them it can be
    /// called again.
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
