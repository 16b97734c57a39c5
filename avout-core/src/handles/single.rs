//! The methods of a ref by itself: each of these is a transaction of its own.

use super::{Past, Ref, Tx, Value, cloned};
use crate::engine::{Options, run};
use crate::error::{Error, Result};

impl<T: Value> Ref<T> {
    /// The current value: one that no earlier acknowledged commit has replaced.
    ///
    /// # Cancel safety
    /// Safe.
    #[doc(alias = "deref")]
    pub async fn get(&self) -> Result<T> {
        self.inner.engine.begin("get")?;
        self.transact(async |tx| tx.get(self).await).await
    }

    /// Sets the value, whatever it was.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn set(&self, value: T) -> Result<()> {
        self.transact(async |tx| tx.set(self, value.clone()).await).await
    }

    /// Sets the value to the result of `f`, and returns it. `f` may be called several times.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn alter(&self, f: impl Fn(T) -> T) -> Result<T> {
        self.transact(async |tx| tx.alter(self, &f).await).await
    }

    /// Changes the value in place, and returns the result of `f`. `f` may be called several times.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn update<O>(&self, f: impl Fn(&mut T) -> O) -> Result<O> {
        self.transact(async |tx| tx.update(self, &f).await).await
    }

    /// Destroys the ref. It can be created again. Its record stays as a tombstone, with its history.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn destroy(&self) -> Result<()> {
        self.transact(async |tx| tx.destroy(self).await).await
    }

    /// The values that the record still holds, newest first, beginning with the current one.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn history(&self) -> Result<Vec<Past<T>>> {
        self.inner.engine.begin("history")?;
        let past = self.transact(async |tx| tx.0.past(&self.inner.cell).await).await?;
        let past = past
            .into_iter()
            .map(|(point, value)| -> Result<Past<T>> { Ok(Past { point, value: value.map(cloned).transpose()? }) });
        past.collect()
    }

    async fn transact<O, F, Fut>(&self, body: F) -> Result<O>
    where
        F: Fn(Tx) -> Fut,
        Fut: Future<Output = Result<O, Error>>,
    {
        let engine = &self.inner.engine;
        run(engine, Options::new(&engine.config), |tx| body(Tx(tx))).await
    }
}
