use crate::error::Result;
use crate::handles::{Ref, Stm, Tx};

/// A number that many processes add to at once; made by [`Stm::counter`](crate::Stm::counter).
///
/// It is a ref that is only ever [`commute`](crate::Tx::commute)d: additions do not make each other's transactions run
/// again, and concurrent additions of one client are committed together. It stops at the ends of its range.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let hits = stm.counter("/hits").await?;
/// hits.add(3).await?;
/// stm.dosync(async |tx| hits.add_in(&tx, -1).await).await?;
/// assert_eq!(hits.get().await?, 2);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Counter {
    stm: Stm,
    value: Ref<i64>,
}

impl Stm {
    /// Opens the counter with this name, or makes it with zero. It is a ref of type `i64`.
    ///
    /// # Errors
    /// As [`create_or_open_ref`](Self::create_or_open_ref).
    pub async fn counter(&self, key: impl AsRef<str>) -> Result<Counter> {
        let value = self.create_or_open_ref(key, 0_i64).history(0).await?;
        Ok(Counter { stm: self.clone(), value })
    }
}

impl Counter {
    /// Adds to it.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn add(&self, n: i64) -> Result<()> {
        self.stm.dosync(async |tx| self.add_in(&tx, n).await).await
    }

    /// Adds to it as a part of a transaction.
    ///
    /// # Errors
    /// As [`Tx`]'s methods.
    pub async fn add_in(&self, tx: &Tx, n: i64) -> Result<()> {
        tx.commute(&self.value, move |value| value.saturating_add(n)).await.map(drop)
    }

    /// The sum of all additions.
    ///
    /// # Errors
    /// As [`Ref::get`].
    pub async fn get(&self) -> Result<i64> {
        self.value.get().await
    }

    /// The ref that holds it, to be read in transactions or watched.
    pub fn reference(&self) -> &Ref<i64> {
        &self.value
    }
}
