use std::marker::PhantomData;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::coder::{Tags, TypedCoder};
use super::item::{Item, ItemCoder};
use super::{Codec, MessagePack, Tx, Value, cloned};
use crate::engine::{Action, Cell, Coder, Engine};
use crate::error::Result;
use crate::protocol::{Key, Meta};

/// A ref of the library's own, under a reserved key. Its first write creates it, and making the handle costs no
/// request.
pub(crate) struct SystemRef<T> {
    cell: Arc<Cell>,
    types: PhantomData<fn() -> T>,
}

impl<T: Value + Serialize + DeserializeOwned> SystemRef<T> {
    /// The record at `key`, with values of this type, tagged with `tag`.
    pub(crate) fn new(engine: &Engine, key: Key, tag: &'static str) -> Self {
        let coder = TypedCoder::<T, MessagePack>::new(MessagePack, Tags::pinned(tag), Vec::new());
        Self::with(engine, key, tag, Arc::new(coder))
    }
}

impl SystemRef<Item> {
    /// The record at `key`, which holds a value of any type.
    pub(crate) fn item(engine: &Engine, key: Key) -> Self {
        Self::with(engine, key, "item", Arc::new(ItemCoder))
    }
}

impl<T: Value> SystemRef<T> {
    fn with(engine: &Engine, key: Key, tag: &'static str, coder: Arc<dyn Coder>) -> Self {
        let store = Arc::clone(&engine.home);
        let codec = Codec::<()>::id(&MessagePack);
        // Nobody reads its past.
        let meta = Arc::new(Meta { realm: store.realm(), codec, type_tag: tag.into(), history: 0 });
        let cell = Cell::new(key, engine.client, meta, store, true, coder, None);
        Self { cell: Arc::new(cell), types: PhantomData }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.cell.key
    }

    /// The value; `None`: there is no record. The commit checks it, even if there is none.
    pub(crate) async fn get(&self, tx: &Tx) -> Result<Option<T>> {
        let written = tx.0.attempt().write(self.key()).and_then(|write| write.known().map(|value| value.cloned()));
        if let Some(value) = written {
            return value.map(cloned).transpose();
        }
        tx.0.see(&[self.key()]).await?;
        if tx.0.seen_alive(self.key()).is_none() {
            return Ok(None);
        }
        let value = tx.0.values(&[&self.cell], true).await?.pop();
        value.map(cloned).transpose()
    }

    /// Whether there is a record, whatever its value. The commit checks that.
    pub(crate) async fn exists(&self, tx: &Tx) -> Result<bool> {
        let written = tx.0.attempt().write(self.key()).and_then(|write| write.known().map(|value| value.is_some()));
        if let Some(exists) = written {
            return Ok(exists);
        }
        tx.0.see(&[self.key()]).await?;
        Ok(tx.0.seen_alive(self.key()).is_some())
    }

    /// Makes the commit check the record, whatever the isolation.
    pub(crate) fn protect(&self, tx: &Tx) {
        tx.0.protect(&self.cell);
    }

    /// Writes the record, whether there is one or not.
    pub(crate) async fn put(&self, tx: &Tx, value: T) -> Result<()> {
        tx.0.see(&[self.key()]).await?;
        let exists = tx.0.seen_alive(self.key()).is_some();
        self.undo(tx);
        let value = Arc::new(value);
        tx.0.write(&self.cell, if exists { Action::Set(value) } else { Action::Create(value) })
    }

    /// Removes the record, if there is one.
    pub(crate) async fn remove(&self, tx: &Tx) -> Result<()> {
        tx.0.see(&[self.key()]).await?;
        let exists = tx.0.seen_alive(self.key()).is_some();
        self.undo(tx);
        if exists { tx.0.write(&self.cell, Action::Destroy) } else { Ok(()) }
    }

    /// Forgets the transaction's earlier write: the next one depends on the stored record.
    fn undo(&self, tx: &Tx) {
        tx.0.attempt().keys.entry(self.key()).write = None;
    }
}

impl<T> Clone for SystemRef<T> {
    fn clone(&self) -> Self {
        Self { cell: Arc::clone(&self.cell), types: PhantomData }
    }
}
