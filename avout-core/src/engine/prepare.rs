use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::janitor::Garbage;
use super::plan::{Plan, Planned};
use super::{Action, Cell, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Commit, Key, Payload, Put, Record, Shared, State, Succession, Version};

/// A commit that is ready to be sent but for its values in stores.
pub(super) struct Prepared {
    pub(super) puts: Vec<Put>,
    pub(super) values: Vec<Value>,
    /// Values that nothing points at once this is committed.
    pub(super) trimmed: Vec<Garbage>,
}

/// A value that goes to a store.
pub(super) struct Value {
    cell: Arc<Cell>,
    version: Version,
    state: State,
    /// Another client has written this version: the value there is not ours to delete.
    taken: AtomicBool,
}

/// Values in stores that nothing points at yet. They are deleted when this is dropped, unless their
/// commit is under way or done.
pub(super) struct Prewritten<'a> {
    engine: &'a Engine,
    values: Vec<Value>,
    kept: bool,
}

impl<'a> Prewritten<'a> {
    pub(super) fn none(engine: &'a Engine) -> Self {
        Self { engine, values: Vec::new(), kept: true }
    }

    /// The commit is about to be sent: from now on a record may point at the values.
    pub(super) fn keep(&mut self) {
        self.kept = true;
    }

    /// The commit surely did not take effect.
    pub(super) fn discard(mut self) {
        self.kept = false;
    }

    /// The commit took effect: what was written is now good to read from memory.
    pub(super) fn committed(self) {
        for value in &self.values {
            self.engine.cache.put(&value.cell.key, &value.version, value.state.clone());
        }
    }
}

impl Drop for Prewritten<'_> {
    fn drop(&mut self) {
        if !self.kept && !self.values.is_empty() {
            let own = self.values.drain(..).filter(|value| !value.taken.load(Ordering::Relaxed));
            let garbage = own.map(|value| Garbage {
                store: Arc::clone(&value.cell.store),
                key: value.cell.key.clone(),
                version: value.version,
            });
            self.engine.janitor.delete(&self.engine.config.tasks, garbage.collect());
        }
    }
}

impl Engine {
    /// Turns values into records: encodes, decides where each value goes, and checks the limits. `version`
    /// names the values that go to stores.
    pub(super) fn prepare(&self, plan: &Plan, version: &mut dyn FnMut() -> Version) -> Result<Prepared> {
        let mut prepared =
            Prepared { puts: Vec::with_capacity(plan.writes.len() + 1), values: Vec::new(), trimmed: Vec::new() };
        for planned in &plan.writes {
            let cell = &planned.write.cell;
            let payload = match &planned.computed {
                None => Payload::Deleted,
                Some(value) => match self.inline(cell, value)? {
                    Ok(payload) => payload,
                    Err(state) => {
                        let version = version();
                        prepared.values.push(Value {
                            cell: Arc::clone(cell),
                            version,
                            state,
                            taken: AtomicBool::new(false),
                        });
                        Payload::Stored { realm: cell.meta.realm, version }
                    }
                },
            };
            let Succession { record, trimmed } = succeed(planned, payload);
            self.check_record(&cell.key, &record)?;
            prepared.trimmed.extend(trimmed.into_iter().filter_map(|(realm, version)| {
                Some(Garbage { store: self.store(realm)?, key: cell.key.clone(), version })
            }));
            let revision = planned.base().map(|entry| entry.revision.clone());
            prepared.puts.push(Put { key: cell.key.clone(), revision, record: Arc::new(record) });
        }
        Ok(prepared)
    }

    /// The value as the record's payload, or else as what goes to the store.
    fn inline(&self, cell: &Cell, value: &Shared) -> Result<Result<Payload, State>> {
        if !cell.inline {
            return cell.encode_for_store(value).map(Err);
        }
        if self.capabilities.in_process {
            return Ok(Ok(Payload::Shared(Arc::clone(value))));
        }
        let bytes = cell.encode(value)?;
        if bytes.len() <= self.capabilities.max_inline {
            return Ok(Ok(Payload::Inline(bytes)));
        }
        let capabilities = cell.store.capabilities();
        if capabilities.in_process {
            return Ok(Err(State::Shared(Arc::clone(value))));
        }
        cell.check_size(bytes.len(), capabilities.max_value)?;
        Ok(Err(State::Bytes(bytes)))
    }

    fn check_record(&self, key: &Key, record: &Record) -> Result<()> {
        if self.capabilities.in_process || self.capabilities.max_record == usize::MAX {
            return Ok(());
        }
        let (size, limit) = (record.encoded_size(), self.capabilities.max_record);
        if size <= limit {
            return Ok(());
        }
        let message =
            format!("its record would have {size} bytes, and the coordinator takes at most {limit}: keep less history");
        Err(Error::new(ErrorKind::TooLarge, message).at(key))
    }

    /// Checks a whole commit against the coordinator's limits.
    pub(super) fn check_commit(&self, commit: &Commit) -> Result<()> {
        let limits = &self.capabilities;
        if commit.len() > limits.max_keys {
            let message = format!(
                "the transaction touches {} keys, and the coordinator takes at most {}",
                commit.len(),
                limits.max_keys
            );
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        if limits.in_process || limits.max_commit == usize::MAX {
            return Ok(());
        }
        let keys: usize = commit.expectations().map(|(key, _)| key.as_str().len()).sum();
        let size = keys + commit.puts.iter().map(|put| put.record.encoded_size()).sum::<usize>();
        if size > limits.max_commit {
            let message =
                format!("the transaction has {size} bytes, and the coordinator takes at most {}", limits.max_commit);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        Ok(())
    }

    /// Writes values to their stores, all at once. If one fails, those that were written are deleted.
    /// [`AlreadyExists`](ErrorKind::AlreadyExists): another client has our id, as in a copy of a virtual machine.
    pub(super) async fn write_values(&self, values: Vec<Value>, deadline: Option<Instant>) -> Result<Prewritten<'_>> {
        let prewritten = Prewritten { engine: self, values, kept: false };
        let write = async |value: &Value| {
            let container = value.cell.store.versioned_state(&value.cell.key);
            self.until(deadline, || async {
                self.stats.value_written();
                container.set_state_at(&value.version, value.state.clone()).await
            })
            .await
            .map_err(|error| {
                value.taken.store(error.kind() == ErrorKind::AlreadyExists, Ordering::Relaxed);
                error.at(&value.cell.key)
            })
        };
        try_join_all(prewritten.values.iter().map(write)).await?;
        Ok(prewritten)
    }
}

/// The record that follows a planned write's base.
fn succeed(planned: &Planned, payload: Payload) -> Succession {
    let meta = Arc::clone(&planned.write.cell.meta);
    let Some(entry) = planned.base() else {
        return Succession { record: Record::first(meta, payload), trimmed: Vec::new() };
    };
    let (earlier, later) = (&*entry.record.meta, &*meta);
    let same = || (earlier.realm, earlier.codec, &earlier.type_tag) == (later.realm, later.codec, &later.type_tag);
    // The values of a ref that is there were checked to be readable, so another tag is the same type under a new name.
    let is_there = !matches!(entry.record.payload, Payload::Deleted);
    if std::ptr::eq(earlier, later) || same() || is_there {
        return entry.record.succeed(entry.point, meta, payload);
    }
    // Made again as something else after it was destroyed: its earlier values are of no use to
    // readers of the new type, but a read point in between sees that it was gone.
    let history = vec![(entry.record.since(entry.point), Payload::Deleted)].into();
    Succession { record: Record { history, ..Record::first(meta, payload) }, trimmed: entry.record.stored().collect() }
}

/// Checks every new value with its ref's validator.
pub(super) fn validate(plan: &Plan) -> Result<()> {
    for planned in &plan.writes {
        if let Some(value) = &planned.computed {
            planned.write.cell.validate(value)?;
        }
    }
    Ok(())
}

/// Applies commuted functions to the current value.
pub(super) fn apply(action: &Action, current: &Shared) -> Result<Shared> {
    let Action::Commute { functions, .. } = action else {
        return Ok(Arc::clone(current));
    };
    functions.iter().try_fold(Arc::clone(current), |value, function| function(&value))
}

pub(super) fn unknown_outcome(key: Option<&Key>) -> Error {
    let error = Error::new(
        ErrorKind::OutcomeUnknown,
        "the commit was sent and its reply lost, and the store stayed out of reach: it may have taken effect, ask with the receipt",
    );
    match key {
        Some(key) => error.at(key),
        None => error,
    }
}
