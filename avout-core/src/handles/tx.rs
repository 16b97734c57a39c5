use std::sync::Arc;

use super::refs::{cells, values};
use super::{Ref, Refs, Value, cloned, typed};
use crate::engine::{Action, Function, TxInner};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Point, Shared};

/// One attempt of a transaction, as its body sees it.
///
/// It is a cheap handle: pass `&Tx` to functions that take part in the transaction. It shows one moment, the attempt's
/// read point, with the attempt's own writes on top. Nobody else can see these writes before the commit.
///
/// A body may run several times, so it should do nothing that cannot be repeated: leave that to
/// [`on_commit`](Self::on_commit).
///
/// # Errors
/// All methods give [`ErrorKind::Restart`](crate::ErrorKind::Restart) when the attempt has been lost: pass it on, and
/// the body is run again. It is run again even if the body does not pass it on.
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for a ref that was destroyed.
/// [`ErrorKind::Misuse`](crate::ErrorKind::Misuse) for a ref of another client, and for a `Tx` that outlived its body.
///
/// # Cancel safety
/// All methods are safe: a write is buffered as a whole or not at all.
#[derive(Clone)]
pub struct Tx(pub(crate) Arc<TxInner>);

impl Tx {
    /// The value of a ref.
    ///
    /// The first read of an attempt is one request to the coordinator, and so is each later read of a ref that was not
    /// read yet: read several at once with [`get_many`](Self::get_many).
    #[doc(alias = "deref")]
    pub async fn get<T: Value>(&self, r: &Ref<T>) -> Result<T> {
        cloned(self.shared(r).await?)
    }

    /// The value of a ref, without a copy of it.
    pub async fn get_arc<T: Value>(&self, r: &Ref<T>) -> Result<Arc<T>> {
        typed(self.shared(r).await?)
    }

    /// The values of several refs, in one request.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
    /// let count = stm.create_ref("/count", 1_i64).await?;
    /// let name = stm.create_ref("/name", "x".to_string()).await?;
    /// let (n, s) = stm.dosync(async |tx| tx.get_many((&count, &name)).await).await?;
    /// # assert_eq!((n, &*s), (1, "x"));
    /// # Ok(()) }
    /// ```
    pub async fn get_many<R: Refs>(&self, refs: R) -> Result<R::Values> {
        let loaded = self.0.values(&cells(&refs), true).await?;
        values(&refs, loaded)
    }

    /// Reads the records of several refs in one request, so that a later `get`, `alter` or `commute` of them needs no
    /// request. It only warms the cache: the refs do not count as read.
    pub async fn prefetch<R: Refs>(&self, refs: R) -> Result<()> {
        let cells = cells(&refs);
        for cell in &cells {
            self.0.check_own(cell)?;
        }
        let keys: Vec<_> = cells.iter().map(|cell| &cell.key).collect();
        self.0.see(&keys).await
    }

    /// Sets a ref. The body need not read it; if it did not, the commit does.
    #[doc(alias = "ref-set!!")]
    pub async fn set<T: Value>(&self, r: &Ref<T>, value: T) -> Result<()> {
        self.0.write(&r.inner.cell, Action::Set(Arc::new(value)))
    }

    /// Sets a ref to the result of `f` on its value, and returns the new value.
    #[doc(alias = "alter!!")]
    pub async fn alter<T: Value>(&self, r: &Ref<T>, f: impl FnOnce(T) -> T) -> Result<T> {
        let new = f(self.get(r).await?);
        self.set(r, new.clone()).await?;
        Ok(new)
    }

    /// Changes a ref in place, and returns the result of `f`.
    pub async fn update<T: Value, O>(&self, r: &Ref<T>, f: impl FnOnce(&mut T) -> O) -> Result<O> {
        let mut value = self.get(r).await?;
        let out = f(&mut value);
        self.set(r, value).await?;
        Ok(out)
    }

    /// Changes a ref by a function that may be applied in any order with those of other transactions, and returns a
    /// provisional new value.
    ///
    /// Others may commit to the ref meanwhile: then the commit applies `f` again to the value it finds, and the body is
    /// not run again. So `f` should commute with the functions of others, like adding, and the body should not rely on
    /// the provisional value. If the body also reads the ref, the ref is protected as with [`alter`](Self::alter).
    #[doc(alias = "commute!!")]
    pub async fn commute<T: Value>(&self, r: &Ref<T>, f: impl Fn(T) -> T + Send + Sync + 'static) -> Result<T> {
        let function: Function = Arc::new(move |value: &Shared| {
            let new: Shared = Arc::new(f(cloned(Arc::clone(value))?));
            Ok(new)
        });
        cloned(self.0.commute(&r.inner.cell, function).await?)
    }

    /// The value of a ref, which no other transaction can change before this one commits, whatever the
    /// [`Isolation`](crate::Isolation). If the ref does not exist, or has another type, that is protected too.
    #[doc(alias = "ensure!!")]
    pub async fn ensure<T: Value>(&self, r: &Ref<T>) -> Result<T> {
        let value = self.get(r).await;
        if value.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::Misuse) {
            self.0.protect(&r.inner.cell);
        }
        value
    }

    /// Destroys a ref: from the commit on it is not found, until it is created again.
    #[doc(alias = "destroy-ref!!")]
    pub async fn destroy<T: Value>(&self, r: &Ref<T>) -> Result<()> {
        self.0.write(&r.inner.cell, Action::Destroy)
    }

    /// Ends this attempt, waits until a ref that it read has changed, and runs the body again.
    ///
    /// It returns an error to be passed on: `return Err(tx.retry())`. The transaction's deadline also limits the wait.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
    /// let jobs = stm.create_ref("/jobs", vec!["a job".to_string()]).await?;
    /// let job = stm.dosync(async |tx| match tx.update(&jobs, Vec::pop).await? {
    ///     Some(job) => Ok(job),
    ///     None => Err(tx.retry()),
    /// }).await?;
    /// # assert_eq!(job, "a job");
    /// # Ok(()) }
    /// ```
    #[must_use = "pass it on: return Err(tx.retry())"]
    pub fn retry(&self) -> Error {
        self.0.retry()
    }

    /// Runs `first`; if that ends in a [`retry`](Self::retry), undoes its writes and runs `second` instead. If both
    /// retry, the transaction waits for a change of any ref that either has read.
    pub async fn or_else<T, A, B>(&self, first: impl FnOnce(Tx) -> A, second: impl FnOnce(Tx) -> B) -> Result<T>
    where
        A: Future<Output = Result<T>>,
        B: Future<Output = Result<T>>,
    {
        let saved = self.0.attempt().save();
        let done = first(self.clone()).await;
        let resumed = self.0.attempt().resume(saved);
        let Some(on_abort) = resumed else {
            return done;
        };
        on_abort.into_iter().for_each(|hook| hook());
        second(self.clone()).await
    }

    /// Calls `f` once this attempt has committed, with its commit point; a transaction that only reads gives its read
    /// point.
    ///
    /// It is called before `dosync` returns, on the same task, and should be short. It is not called if the outcome
    /// stayed unknown or the future of `dosync` was dropped.
    pub fn on_commit(&self, f: impl FnOnce(Point) + Send + 'static) {
        self.0.attempt().on_commit.push(Box::new(f));
    }

    /// Calls `f` if this attempt is given up, whether the body is then run again or not.
    ///
    /// It is not called if the outcome stayed unknown or the future of `dosync` was dropped.
    pub fn on_abort(&self, f: impl FnOnce() + Send + 'static) {
        self.0.attempt().on_abort.push(Box::new(f));
    }

    /// The number of this attempt, from 1.
    pub fn attempt(&self) -> u32 {
        self.0.number
    }

    async fn shared<T: Value>(&self, r: &Ref<T>) -> Result<Shared> {
        self.0.one(&r.inner.cell).await
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("attempt", &self.0.number).finish_non_exhaustive()
    }
}
