use std::sync::Arc;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::refs::{cells, values};
use super::{Ref, Refs, Value};
use crate::engine::{Cell, Engine, Loaded, absent, lost_value};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Entry, Key, Payload, Point, Shared};

/// All refs as of one point, for reading outside a transaction; made by [`Stm::snapshot`](crate::Stm::snapshot).
///
/// It holds nothing in the stores: it finds the value of a ref at the point in the ref's history, for as long as that
/// reaches back. Raise a ref's [`history`](crate::RefBuilder::history) if its snapshots are used for long.
///
/// # Errors
/// The methods that read give [`TooOld`](ErrorKind::TooOld) if the history no longer reaches back;
/// [`Corrupt`](ErrorKind::Corrupt) if a store has lost the current value; [`NotFound`](ErrorKind::NotFound) if the ref
/// did not exist; [`Misuse`](ErrorKind::Misuse) for a ref of another client; [`Nested`](ErrorKind::Nested) inside a
/// transaction.
///
/// # Cancel safety
/// All methods are safe.
#[derive(Clone)]
pub struct Snapshot {
    engine: Arc<Engine>,
    point: Point,
    /// The number of losses at the time it was taken.
    history: u64,
}

impl Snapshot {
    pub(super) async fn take(engine: &Arc<Engine>) -> Result<Self> {
        engine.begin("snapshot")?;
        let history = engine.losses.count();
        let point = engine.read(&[], engine.deadline()).await?.point;
        engine.tell_losses().map_err(|error| error.during("snapshot"))?;
        Ok(Self { engine: Arc::clone(engine), point, history })
    }

    /// The point.
    pub fn point(&self) -> Point {
        self.point
    }

    /// The value of a ref at the point. One request.
    pub async fn get<T: Value>(&self, r: &Ref<T>) -> Result<T> {
        let (value,) = self.get_many((r,)).await?;
        Ok(value)
    }

    /// The values of several refs at the point. One request, and one for each value that is in a store.
    pub async fn get_many<R: Refs>(&self, refs: R) -> Result<R::Values> {
        self.engine.begin("snapshot")?;
        let deadline = self.engine.deadline();
        let cells = cells(&refs);
        let keys: Vec<Key> = cells.iter().map(|cell| cell.key.clone()).collect();
        let snapshot = self.engine.read_at(&keys, Some(self.point), deadline).await?;
        self.engine.tell_losses().map_err(|error| error.during("snapshot"))?;
        if self.history != self.engine.losses.count() {
            let message = "the store has lost commits since it was taken: take a new snapshot";
            return Err(Error::new(ErrorKind::TooOld, message).during("snapshot"));
        }
        let found = cells.into_iter().zip(&snapshot.entries);
        let found = found.map(|(cell, entry)| self.value(cell, entry.as_ref(), snapshot.point, deadline));
        values(&refs, try_join_all(found).await.map_err(|error| error.during("snapshot"))?)
    }

    async fn value(
        &self,
        cell: &Cell,
        entry: Option<&Entry>,
        read_at: Point,
        deadline: Option<Instant>,
    ) -> Result<Shared> {
        if cell.client != self.engine.client {
            let message = "this ref was opened with another client than the snapshot's";
            return Err(Error::new(ErrorKind::Misuse, message).at(&cell.key));
        }
        let payload = match entry {
            Some(entry) => entry.record.at(entry.point, self.point).map(|(_, payload)| payload),
            None if read_at == self.point => Some(&Payload::Deleted),
            None => None,
        };
        let Some(payload) = payload else {
            return Err(self.too_old(cell));
        };
        if let (Some(entry), false) = (entry, matches!(payload, Payload::Deleted)) {
            cell.check_meta(&entry.record.meta)?;
        }
        match self.engine.load(cell, Some(payload), deadline).await? {
            Loaded::Value(value) => Ok(value),
            Loaded::Absent => Err(absent(&cell.key)),
            // It was trimmed by a later commit, or is really lost: the record tells.
            Loaded::Gone(realm, version) => match self.engine.points_at(&cell.key, &version, deadline).await? {
                true => Err(lost_value(&cell.key, realm, &version)),
                false => Err(self.too_old(cell)),
            },
        }
    }

    fn too_old(&self, cell: &Cell) -> Error {
        let message = format!(
            "its history no longer reaches back to point {}: take a new snapshot, or keep more history",
            self.point
        );
        Error::new(ErrorKind::TooOld, message).at(&cell.key)
    }
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot").field("point", &self.point).finish_non_exhaustive()
    }
}
