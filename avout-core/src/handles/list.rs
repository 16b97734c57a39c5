use super::Stm;
use crate::backend::{Kind, page};
use crate::error::{ErrorKind, Result};
use crate::protocol::{Entry, Key, Payload};

/// How many records are read in one request.
const AT_ONCE: usize = 100;

impl Stm {
    /// The keys of existing refs that are `prefix` or lie under it, sorted; `"/"` for all.
    ///
    /// It is not a snapshot: refs created or destroyed meanwhile may be in it or not.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput); [`Unavailable`](ErrorKind::Unavailable).
    pub async fn list(&self, prefix: impl AsRef<str>) -> Result<Vec<Key>> {
        let engine = &self.engine;
        engine.begin("list")?;
        let (prefix, deadline) = (&Key::prefix(prefix)?, engine.deadline());
        // If a page fails it is requested again, without those before it.
        let page = |after: Option<Key>| async move {
            engine.until(deadline, || engine.coordinator.list(prefix, after.as_ref())).await
        };
        let mut keys = page::all(page).await?;
        keys.retain(|key| !key.is_reserved());
        let mut alive = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(AT_ONCE.clamp(1, engine.capabilities.max_keys.saturating_sub(1).max(1))) {
            let exists = |entry: Option<Entry>| entry.is_some_and(|e| !matches!(e.record.payload, Payload::Deleted));
            match engine.read(chunk, deadline).await {
                Ok(snapshot) => alive.extend(snapshot.entries.into_iter().map(exists)),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    // A bad record hides no other. Opening its ref tells what is wrong.
                    for key in chunk {
                        match engine.entry(key, deadline).await {
                            Ok(entry) => alive.push(exists(entry)),
                            Err(error) if error.kind() == ErrorKind::Corrupt => alive.push(true),
                            Err(error) => return Err(error),
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let mut alive = alive.into_iter();
        keys.retain(|_| alive.next().unwrap_or(false));
        Ok(keys)
    }

    /// The keys of the atoms in the client's own store that are `prefix` or lie under it, sorted; `"/"` for all.
    ///
    /// # Errors
    /// As [`list`](Self::list).
    pub async fn list_atoms(&self, prefix: impl AsRef<str>) -> Result<Vec<Key>> {
        let engine = &self.engine;
        engine.begin("list")?;
        let (prefix, deadline) = (&Key::prefix(prefix)?, engine.deadline());
        let page = |after: Option<Key>| async move {
            engine.until(deadline, || engine.home.keys(Kind::Atom, prefix, after.as_ref())).await
        };
        page::all(page).await
    }
}
