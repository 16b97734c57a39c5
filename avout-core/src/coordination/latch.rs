use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::grant_queue::own_key;
use super::session_manager::SessionManager;
use crate::backend::time::timeout as within;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Stm, SystemRef, Tx};
use crate::protocol::Key;

/// A count that goes down to zero once, and lets all waiters go on then, over all processes; made by
/// [`Stm::latch`](crate::Stm::latch).
///
/// A step that was counted stays counted, even if its process dies. To count at most once for a piece of work whose
/// reply may be lost, count down in the transaction that does it: [`count_down_in`](Self::count_down_in).
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let loaded = stm.latch("/loaded", 2)?;
/// let waiter = tokio::spawn({
///     let loaded = loaded.clone();
///     async move { loaded.wait().await }
/// });
/// assert_eq!(loaded.count_down().await?, 1);
/// assert_eq!(loaded.count_down().await?, 0);
/// waiter.await.expect("no panic")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "CountDownLatch")]
pub struct Latch {
    manager: std::sync::Arc<SessionManager>,
    key: Key,
    from: u64,
    count: SystemRef<Count>,
    /// Made when the count is zero. Waiters watch this record, so that not every step wakes them.
    open: SystemRef<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    from: u64,
    left: u64,
    /// Differs after each destruction; 0 in records of the first format, which had none.
    #[serde(default)]
    made: u64,
}

/// The state of a latch, for a waiter.
enum Stands {
    Open,
    /// Which latch of this name it is.
    Closed(u64),
}

impl Stm {
    /// The latch with this name, which counts down from `from`. It makes no request. All its users must name the same
    /// number.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, or one of more than 480 bytes.
    /// [`Mismatch`](ErrorKind::Mismatch), from every operation: it counts down from another number;
    /// [`Latch::set_count`] changes it.
    pub fn latch(&self, key: impl AsRef<str>, from: u64) -> Result<Latch> {
        let manager = SessionManager::of(self);
        let key = Key::new(key)?;
        let count = SystemRef::new(&manager.engine, own_key("latches", "count", &key)?, "latch");
        let open = SystemRef::new(&manager.engine, own_key("latches", "open", &key)?, "open");
        Ok(Latch { manager, key, from, count, open })
    }
}

impl Latch {
    /// The latch's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Counts down by one, and returns the rest. Zero stays zero.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn count_down(&self) -> Result<u64> {
        self.manager.transact_soon(async |tx| self.count_down_in(&tx).await).await
    }

    /// The same as a part of a transaction.
    ///
    /// # Errors
    /// As [`Tx`]'s methods.
    pub async fn count_down_in(&self, tx: &Tx) -> Result<u64> {
        let count = self.read(tx).await?;
        let after = count.left.saturating_sub(1);
        if count.left > 0 {
            self.count.put(tx, Count { left: after, ..count }).await?;
        }
        if count.left == 1 {
            self.open.put(tx, true).await?;
        }
        Ok(after)
    }

    /// The rest of the count.
    ///
    /// # Errors
    /// As [`count_down`](Self::count_down).
    pub async fn left(&self) -> Result<u64> {
        self.manager.transact_soon(async |tx| self.read(&tx).await.map(|count| count.left)).await
    }

    /// Waits until the count is zero, for as long as it takes.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound): it was destroyed meanwhile. Otherwise as [`count_down`](Self::count_down),
    /// except `Timeout`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self) -> Result<()> {
        self.manager.engine.begin("wait")?;
        let waited = Box::pin(self.manager.wait_for(self.wait_until_open(), |waited| self.tell(waited))).await;
        waited.and_then(|done| done).map_err(|error| error.at(&self.key).during("wait"))
    }

    /// The same with a time limit.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), and as [`wait`](Self::wait).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        let late = || Error::new(ErrorKind::Timeout, "the count was not zero in time").at(&self.key).during("wait");
        within(timeout, self.wait()).await.unwrap_or_else(|_| Err(late()))
    }

    /// Changes the number that the latch counts down from, while others use it, and returns a handle with the new
    /// number. From now on handles with the old number are refused. Steps that were counted stay counted: after one
    /// step of 3, setting 5 leaves 4, and setting 1 leaves zero, which opens the latch. An open latch stays open.
    /// Waiters go on waiting.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): the latch counts down from another number than this handle. Those of
    /// [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn set_count(&self, from: u64) -> Result<Self> {
        self.manager.engine.begin("set_count")?;
        let change = self.manager.transact_soon(async |tx| {
            let count = self.read(&tx).await?;
            let left = match count.left {
                0 => 0,
                left => from.saturating_sub(self.from - left),
            };
            if left == 0 {
                self.open.put(&tx, true).await?;
            }
            self.count.put(&tx, Count { from, left, ..count }).await
        });
        change.await.map_err(|error| error.during("set_count"))?;
        Ok(Self { from, ..self.clone() })
    }

    /// Removes the latch. Its waiters are told that it was destroyed. It can then be made again, with any number.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): the latch counts down from another number than this handle. Those of
    /// [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn destroy(&self) -> Result<()> {
        self.manager.engine.begin("destroy")?;
        let destroy = self.manager.transact_soon(async |tx| {
            self.read(&tx).await?;
            self.count.remove(&tx).await?;
            // Waiters watch this record, and find the count gone.
            self.open.put(&tx, false).await
        });
        destroy.await.map_err(|error| error.during("destroy"))?;
        // The rest means nothing without the count, so this need not succeed.
        let tidy = self.manager.transact_silently(async |tx| match self.open.get(&tx).await? {
            Some(false) => self.open.remove(&tx).await,
            _ => Ok(()),
        });
        if let Err(error) = tidy.await {
            tracing::debug!(key = %self.key, %error, "a record of a destroyed latch is left");
        }
        Ok(())
    }

    async fn wait_until_open(&self) -> Result<()> {
        let keys = [self.open.key().clone()];
        // The watch is made before the look, so that no later change is missed.
        let (mut watcher, mut of) = (self.manager.engine.watch(&keys, None).await?, None);
        loop {
            match self.manager.transact(async |tx| self.stands(&tx, of).await).await {
                // It is made by then, or not.
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => continue,
                Err(error) => return Err(error),
                Ok(Stands::Open) => return Ok(()),
                Ok(Stands::Closed(made)) => of = Some(made),
            }
            watcher.changed().await?;
        }
    }

    /// The state of the latch that was made as `of`, whatever its number is by now. The first look checks this handle's
    /// number, and makes a latch that nobody has used: handles with another number are refused from then on.
    async fn stands(&self, tx: &Tx, of: Option<u64>) -> Result<Stands> {
        let found = self.count.get(tx).await?;
        let Some(of) = of else {
            let count = self.read(tx).await?;
            if found.is_none() && count.left > 0 {
                self.count.put(tx, count.clone()).await?;
            }
            return Ok(if count.left == 0 { Stands::Open } else { Stands::Closed(count.made) });
        };
        match found {
            Some(Count { made, left: 0, .. }) if made == of => Ok(Stands::Open),
            Some(Count { made, .. }) if made == of => Ok(Stands::Closed(made)),
            _ => Err(Error::new(ErrorKind::NotFound, "the latch was destroyed while it was waited for")),
        }
    }

    /// Says in the log for what a wait waits.
    async fn tell(&self, waited: Duration) {
        let key = &self.key;
        match self.manager.look(async |tx| self.count.get(&tx).await).await {
            Some(count) => {
                let left = count.map_or(self.from, |count| count.left);
                tracing::warn!(%key, left, ?waited, "waits for a latch to be counted down");
            }
            None => tracing::warn!(%key, ?waited, "waits, and the store does not answer"),
        }
    }

    async fn read(&self, tx: &Tx) -> Result<Count> {
        let new = || Count { from: self.from, left: self.from, made: self.manager.next_number() };
        let count = self.count.get(tx).await?.unwrap_or_else(new);
        if count.from == self.from {
            return Ok(count);
        }
        let message = format!("it was made to count down from {}, and is used with {}", count.from, self.from);
        Err(Error::new(ErrorKind::Mismatch, message).at(&self.key))
    }
}

impl std::fmt::Debug for Latch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Latch").field("key", &self.key).field("from", &self.from).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handles::{Codec, MessagePack};

    /// A count of the first format is read, and the next write numbers it.
    #[test]
    fn the_first_format_is_read() {
        #[derive(Serialize, Deserialize)]
        struct First {
            from: u64,
            left: u64,
        }
        let stored = MessagePack.encode(&First { from: 3, left: 2 }).expect("two numbers");
        let count: Count = MessagePack.decode(&stored).expect("a count");
        assert_eq!(count, Count { from: 3, left: 2, made: 0 });
    }
}
