use std::marker::PhantomData;
use std::sync::Arc;

use super::change::Changes;
use super::watches::Watches;
use super::{Change, Value, Verdict, validate};
use crate::engine::{Cell, Engine, Follower};
use crate::error::Result;
use crate::protocol::{Key, Point};

/// A named, typed, durable cell that is changed in transactions.
///
/// It is a cheap handle to the ref: clone and share it. Each method that writes is a transaction of its own. To change
/// several refs together, or to read and write, use [`Stm::dosync`](crate::Stm::dosync).
///
/// # Errors
/// The methods here give [`NotFound`](crate::ErrorKind::NotFound) if the ref was destroyed;
/// [`Nested`](crate::ErrorKind::Nested) inside the body of a transaction, which should use its [`Tx`](crate::Tx)
/// instead; [`Unavailable`](crate::ErrorKind::Unavailable) if the store was unavailable until the client's deadline;
/// and methods that write give those of [`Stm::dosync`](crate::Stm::dosync).
pub struct Ref<T> {
    pub(super) inner: Arc<RefInner>,
    types: PhantomData<fn() -> T>,
}

pub(super) struct RefInner {
    pub(super) engine: Arc<Engine>,
    pub(super) cell: Arc<Cell>,
    watches: Watches,
}

/// An earlier value of a ref.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Past<T> {
    /// The point at which the value took effect.
    pub point: Point,
    /// The value; `None`: the ref did not exist.
    pub value: Option<T>,
}

impl<T: Value> Ref<T> {
    pub(super) fn new(engine: Arc<Engine>, cell: Arc<Cell>) -> Self {
        Self { inner: Arc::new(RefInner { engine, cell, watches: Watches::default() }), types: PhantomData }
    }

    /// The ref's key.
    pub fn key(&self) -> &Key {
        &self.inner.cell.key
    }

    /// Replaces this handle's validator, which clones share. Other handles keep theirs.
    #[doc(alias = "set-validator!!")]
    pub fn set_validator<V: Verdict>(&self, f: impl Fn(&T) -> V + Send + Sync + 'static) {
        self.inner.cell.set_validator(Some(validate::validator(f)));
    }

    /// Removes this handle's validator.
    pub fn remove_validator(&self) {
        self.inner.cell.set_validator(None);
    }

    /// The changes that are committed from now on, in commit order, each once as long as the ref's history holds it.
    ///
    /// # Errors
    /// At the beginning, those of the other methods; later errors are items of the stream.
    pub async fn watch(&self) -> Result<Changes<T>> {
        self.inner.engine.begin("watch")?;
        let RefInner { engine, cell, .. } = &*self.inner;
        Ok(Changes::from_source(Follower::begin(Arc::clone(engine), Arc::clone(cell)).await?))
    }

    /// Calls `f` with every change that is committed from now on, one after the other, until
    /// [`remove_watch`](Self::remove_watch) is called or the last clone of this handle is dropped. It replaces a watch
    /// of the same name.
    ///
    /// `f` is called on a thread that may block; while it runs, its next change waits. The calls continue when the
    /// runtime ends on which the watch was added. Until then, `tokio::spawn` in `f` uses that runtime. A panic in `f`
    /// is logged, and the watch continues.
    ///
    /// # Errors
    /// As [`watch`](Self::watch).
    #[doc(alias = "add-watch!!")]
    pub async fn add_watch(
        &self,
        name: impl Into<String>,
        f: impl Fn(&Change<T>) + Send + Sync + 'static,
    ) -> Result<()> {
        let changes = self.watch().await?;
        self.inner.watches.add(&self.inner.engine.config.tasks, name.into(), changes, f);
        Ok(())
    }

    /// Ends the watch of this name; `false`: there is none.
    #[doc(alias = "remove-watch!!")]
    pub fn remove_watch(&self, name: &str) -> bool {
        self.inner.watches.remove(name)
    }
}

impl<T> Clone for Ref<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), types: PhantomData }
    }
}

impl<T> std::fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ref").field(&self.inner.cell.key).finish()
    }
}
