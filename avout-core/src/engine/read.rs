use std::sync::Arc;

use futures_util::future::try_join_all;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::attempt::{Attempt, ReadPlan, Shown};
use super::cell::{Cell, absent};
use super::client::Engine;
use super::tx::TxInner;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Entry, Key, Payload, Point, Realm, Shared, State, Version};

/// A payload's value, or why there is none.
pub(crate) enum Loaded {
    Value(Shared),
    Absent,
    /// The payload points at a value that its store no longer has: it was trimmed, or lost.
    Gone(Realm, Version),
}

impl Engine {
    /// Fetches and decodes a payload's value.
    pub(crate) async fn load(
        &self,
        cell: &Cell,
        payload: Option<&Payload>,
        deadline: Option<Instant>,
    ) -> Result<Loaded> {
        match payload {
            None | Some(Payload::Deleted) => Ok(Loaded::Absent),
            Some(Payload::Inline(bytes)) => cell.decode(&State::Bytes(bytes.clone())).map(Loaded::Value),
            Some(Payload::Shared(value)) => cell.decode(&State::Shared(Arc::clone(value))).map(Loaded::Value),
            Some(Payload::Stored { realm, version }) => {
                let Some(state) = self.fetch(&cell.key, *realm, version, deadline).await? else {
                    return Ok(Loaded::Gone(*realm, *version));
                };
                cell.decode(&state).map(Loaded::Value)
            }
        }
    }

    async fn fetch(
        &self,
        key: &Key,
        realm: Realm,
        version: &Version,
        deadline: Option<Instant>,
    ) -> Result<Option<State>> {
        if let Some(state) = self.cache.get(key, version) {
            return Ok(Some(state));
        }
        let Some(store) = self.store(realm) else {
            let message = format!("its value lies in the store of realm {realm}, which is not attached: attach it");
            return Err(Error::new(ErrorKind::Mismatch, message).at(key));
        };
        let container = store.versioned_state(key);
        let state = self
            .until(deadline, || async {
                self.stats.value_read();
                container.state_at(version).await
            })
            .await
            .map_err(|error| error.at(key))?;
        if let Some(state) = &state {
            self.cache.put(key, version, state.clone());
        }
        Ok(state)
    }

    /// Whether the current record of `key` still points at this version.
    pub(crate) async fn points_at(&self, key: &Key, version: &Version, deadline: Option<Instant>) -> Result<bool> {
        let entry = self.entry(key, deadline).await?;
        Ok(entry.is_some_and(
            |entry| matches!(&entry.record.payload, Payload::Stored { version: current, .. } if current == version),
        ))
    }
}

pub(crate) fn lost_value(key: &Key, realm: Realm, version: &Version) -> Error {
    let message = format!("its record points at version {version}, which the store of realm {realm} does not have");
    Error::new(ErrorKind::Corrupt, message).at(key)
}

impl TxInner {
    /// Sees to it that these keys' states at the read point are known: none, one or two requests.
    pub(crate) async fn see(&self, keys: &[&Key]) -> Result<()> {
        let mut extend = false;
        loop {
            let (plan, at) = {
                let mut attempt = self.attempt();
                attempt.check_running()?;
                let at = match self.engine.capabilities.native_snapshots {
                    true => attempt.point_to_read_at(),
                    false => None,
                };
                extend |= at.is_none() && self.engine.capabilities.native_snapshots;
                (attempt.plan(keys.iter().copied(), extend), at)
            };
            let ReadPlan::Read { keys: asked, wanted, generation } = plan else {
                return Ok(());
            };
            let read = self.engine.read_with_floor(&asked, at, self.deadline).await;
            let mut attempt = self.attempt();
            let (snapshot, floor) = match read {
                Ok(read) => read,
                // The store no longer holds the read point.
                Err(error) if at.is_some() && error.kind() == ErrorKind::TooOld => return Err(attempt.doom(keys[0])),
                Err(error) => return Err(self.effort(error)),
            };
            attempt.check_running()?;
            if attempt.history != self.engine.losses.count() {
                return Err(attempt.doom(&asked[0]));
            }
            attempt.floor.get_or_insert(floor);
            let admitted = match self.engine.capabilities.native_snapshots {
                true => attempt.admit_native(asked, wanted, generation, snapshot),
                false => attempt.admit(asked, wanted, generation, snapshot, &mut extend)?,
            };
            if admitted {
                return Ok(());
            }
        }
    }

    /// The same where the coordinator answers at once. `false`: it does not.
    fn see_now<'k>(&self, attempt: &mut Attempt, keys: impl Iterator<Item = &'k Key> + Clone) -> Result<bool> {
        let mut extend = false;
        loop {
            let ReadPlan::Read { keys: asked, wanted, generation } = attempt.plan(keys.clone(), extend) else {
                return Ok(true);
            };
            // The first read of a client brings the floor along.
            if attempt.floor.is_none() {
                attempt.floor = self.engine.floor.get();
            }
            if attempt.floor.is_none() {
                return Ok(false);
            }
            let Some(snapshot) = self.engine.coordinator.read_now(&asked) else {
                return Ok(false);
            };
            self.engine.stats.read();
            if attempt.admit(asked, wanted, generation, snapshot, &mut extend)? {
                return Ok(true);
            }
        }
    }

    /// The values of these cells as the body sees them, all read in one request. `read`: the body
    /// comes to know them, so the commit protects them.
    pub(crate) async fn values(&self, cells: &[&Arc<Cell>], read: bool) -> Result<Vec<Shared>> {
        for cell in cells {
            self.check_own(cell)?;
        }
        let unwritten: SmallVec<[&Key; 16]> = {
            let mut attempt = self.attempt();
            attempt.check_running()?;
            let keys = cells.iter().map(|cell| &cell.key);
            let unwritten: SmallVec<_> = keys.filter(|key| !attempt.is_written(key)).collect();
            if self.engine.capabilities.in_process && self.see_now(&mut attempt, unwritten.iter().copied())? {
                let mut shown = Vec::with_capacity(cells.len());
                for cell in cells {
                    match attempt.show(cell, read)? {
                        Shown::Value(value) => shown.push(value),
                        Shown::Payload(_) => break,
                    }
                }
                if shown.len() == cells.len() {
                    return Ok(shown);
                }
            }
            unwritten
        };
        Box::pin(async {
            self.see(&unwritten).await?;
            let mut values = Vec::with_capacity(cells.len());
            let mut elsewhere = Vec::new();
            for (index, cell) in cells.iter().enumerate() {
                match self.value_here(cell, read)? {
                    Shown::Value(value) => values.push(value),
                    Shown::Payload(payload) => elsewhere.push((index, payload)),
                }
            }
            // Only those need a future each that are to be fetched.
            if !elsewhere.is_empty() {
                let fetch = elsewhere.iter().map(|(index, payload)| self.fetched(cells[*index], payload));
                for ((index, _), value) in elsewhere.iter().zip(try_join_all(fetch).await?) {
                    values.insert(*index, value);
                }
            }
            Ok(values)
        })
        .await
    }

    /// The value of one cell as the body sees it, which it comes to know.
    pub(crate) async fn one(&self, cell: &Arc<Cell>) -> Result<Shared> {
        self.check_own(cell)?;
        if self.engine.capabilities.in_process {
            let mut attempt = self.attempt();
            attempt.check_running()?;
            if (attempt.is_written(&cell.key) || self.see_now(&mut attempt, std::iter::once(&cell.key))?)
                && let Shown::Value(value) = attempt.show(cell, true)?
            {
                return Ok(value);
            }
        }
        let mut values = Box::pin(self.values(&[cell], true)).await?;
        Ok(values.pop().expect("one value for one cell"))
    }

    /// The value of a cell whose key is seen or written, or its payload where the value lies in a store.
    fn value_here(&self, cell: &Cell, read: bool) -> Result<Shown> {
        let shown = {
            let mut attempt = self.attempt();
            attempt.check_running()?;
            attempt.show(cell, read)?
        };
        match shown {
            Shown::Payload(Payload::Inline(bytes)) => {
                let value = cell.decode(&State::Bytes(bytes))?;
                self.attempt().know(&cell.key, &value);
                Ok(Shown::Value(value))
            }
            shown => Ok(shown),
        }
    }

    /// The value that a payload points at.
    async fn fetched(&self, cell: &Cell, payload: &Payload) -> Result<Shared> {
        let loaded = self.engine.load(cell, Some(payload), self.deadline).await;
        match loaded.map_err(|error| self.effort(error))? {
            Loaded::Value(value) => {
                self.attempt().know(&cell.key, &value);
                Ok(value)
            }
            Loaded::Absent => Err(absent(&cell.key)),
            Loaded::Gone(realm, version) => {
                // Trimmed by a later commit, or really lost: the record tells.
                if self.engine.points_at(&cell.key, &version, self.deadline).await? {
                    return Err(lost_value(&cell.key, realm, &version));
                }
                Err(self.attempt().doom(&cell.key))
            }
        }
    }

    /// The value of a cell, and where it took effect; no value: there is no ref.
    pub(crate) async fn current(&self, cell: &Arc<Cell>) -> Result<(Option<Shared>, Point)> {
        self.see(&[&cell.key]).await?;
        let entry = {
            let mut attempt = self.attempt();
            attempt.keys.entry(&cell.key).seen.as_ref().and_then(|seen| seen.entry.clone())
        };
        // All that a key which is absent now will ever hold comes after this.
        let since = entry.map_or(Point::ZERO, |entry| entry.record.since(entry.point));
        match self.one(cell).await {
            Ok(value) => Ok((Some(value), since)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok((None, since)),
            Err(error) => Err(error),
        }
    }

    /// The values that a ref's record holds, newest first, each with the point where it took effect; no value: it did not exist.
    pub(crate) async fn past(&self, cell: &Arc<Cell>) -> Result<Vec<(Point, Option<Shared>)>> {
        let (current, since) = self.current(cell).await?;
        let Some(entry) = self.attempt().keys.entry(&cell.key).seen.as_ref().and_then(|seen| seen.entry.clone()) else {
            return Ok(Vec::new());
        };
        let mut past = vec![(since, current)];
        for (point, payload) in &entry.record.history {
            let value = match self.engine.load(cell, Some(payload), self.deadline).await? {
                Loaded::Value(value) => Some(value),
                Loaded::Absent => None,
                // It was trimmed since the record was read, and so was all that is older.
                Loaded::Gone(..) => break,
            };
            past.push((point, value));
        }
        Ok(past)
    }

    /// The entry of a key that was seen, if the ref exists. The commit then protects what was found.
    pub(crate) fn seen_alive(&self, key: &Key) -> Option<Entry> {
        let mut attempt = self.attempt();
        let touched = attempt.keys.entry(key);
        touched.read = true;
        let seen = touched.seen.as_ref()?;
        seen.entry.clone().filter(|_| seen.is_alive())
    }

    /// Refuses a cell that another client made.
    pub(crate) fn check_own(&self, cell: &Cell) -> Result<()> {
        if cell.client == self.engine.client {
            return Ok(());
        }
        let message = "this ref was opened with another client: open it with the one that runs the transaction";
        Err(Error::new(ErrorKind::Misuse, message).at(&cell.key))
    }
}
