use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::gate::own_key;
use super::hub::Hub;
use crate::engine::{Options, run};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::{Own, Stm, Tx};
use crate::protocol::Key;

/// A count that goes down to zero once, and those who wait for that, over all processes; made by [`Stm::latch`](crate::Stm::latch).
///
/// What was counted down stays so, whoever dies. To count down at most once for a piece of work whose reply may be lost, count down
/// in the transaction that does it: [`count_down_in`](Self::count_down_in).
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
    hub: std::sync::Arc<Hub>,
    key: Key,
    from: u64,
    count: Own<Count>,
    /// Made when the count is zero: those who wait watch it, and are not woken by each step.
    open: Own<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Count {
    from: u64,
    left: u64,
}

impl Stm {
    /// The latch of this name, which counts down from `from`. It makes no request. All who use it must name the same number.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): no key, or one of more than 480 bytes. When it is used: [`Mismatch`](ErrorKind::Mismatch)
    /// if it was made with another number.
    pub fn latch(&self, key: impl AsRef<str>, from: u64) -> Result<Latch> {
        let hub = Hub::of(self);
        let key = Key::new(key)?;
        let count = Own::new(&hub.engine, own_key("latches", "count", &key)?, "latch");
        let open = Own::new(&hub.engine, own_key("latches", "open", &key)?, "open");
        Ok(Latch { hub, key, from, count, open })
    }
}

impl Latch {
    /// The latch's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Counts down by one, and gives what is left. At zero it stays.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn count_down(&self) -> Result<u64> {
        self.hub.transact_soon(async |tx| self.count_down_in(&tx).await).await
    }

    /// The same as a part of a transaction.
    ///
    /// # Errors
    /// As [`Tx`]'s methods.
    pub async fn count_down_in(&self, tx: &Tx) -> Result<u64> {
        let Count { left, .. } = self.read(tx).await?;
        let after = left.saturating_sub(1);
        if left > 0 {
            self.count.put(tx, Count { from: self.from, left: after }).await?;
        }
        if left == 1 {
            self.open.put(tx, true).await?;
        }
        Ok(after)
    }

    /// How much is left.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn left(&self) -> Result<u64> {
        self.hub.transact_soon(async |tx| self.read(&tx).await.map(|count| count.left)).await
    }

    /// Waits until the count is zero, for as long as it takes.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync), but for `Timeout`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait(&self) -> Result<()> {
        self.wait_until(None).await
    }

    /// The same, but no longer than this.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), and as [`wait`](Self::wait).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_timeout(&self, timeout: Duration) -> Result<()> {
        self.wait_until(Some(timeout)).await
    }

    async fn wait_until(&self, deadline: Option<Duration>) -> Result<()> {
        let engine = &self.hub.engine;
        let options = Options { deadline, max_attempts: None, ..Options::new(&engine.config) };
        run(engine, options, |tx| async move {
            let tx = Tx(tx);
            match self.from == 0 || self.open.get(&tx).await?.is_some() {
                true => Ok(()),
                false => Err(tx.retry()),
            }
        })
        .await
    }

    async fn read(&self, tx: &Tx) -> Result<Count> {
        let count = self.count.get(tx).await?.unwrap_or(Count { from: self.from, left: self.from });
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
