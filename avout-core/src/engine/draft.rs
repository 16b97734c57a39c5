//! What a plan becomes on its way: records, and the request with its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::cell::Cell;
use super::client::Engine;
use super::floor::KnownFloor;
use super::janitor::Garbage;
use super::plan::{CommitPlan, Planned};
use super::slots::Lease;
use super::values::Value;
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::{Check, Commit, Floor, Key, Payload, Put, Record, Shared, State, Succession, Version};

/// A commit that is ready to be sent but for its values in stores.
pub(super) struct Draft {
    pub(super) commit: Commit,
    /// Values that its records point at.
    pub(super) values: Vec<Value>,
    /// Values that nothing points at once this is committed.
    pub(super) trimmed: Vec<Garbage>,
}

impl Engine {
    /// Makes the request of a plan's commit, and checks the coordinator's limits.
    pub(super) fn draft(&self, plan: &CommitPlan, floor: &KnownFloor, lease: &mut Option<Lease<'_>>) -> Result<Draft> {
        let commit = Commit {
            checks: plan.checks(),
            puts: Vec::with_capacity(plan.writes.len() + usize::from(lease.is_some())),
            deletes: Vec::new(),
        };
        let mut draft = Draft { commit, values: Vec::new(), trimmed: Vec::new() };
        let mut version = None;
        for planned in &plan.writes {
            let mut name = || *version.get_or_insert_with(|| self.version(lease, floor));
            let payload = self.payload(planned, &mut name, &mut draft.values)?;
            self.put(planned, payload, &mut draft)?;
        }
        if let (None, Some(lease)) = (version, &mut *lease) {
            lease.next_sequence();
        }
        // Of a slot that was never written only the floor tells that it was not retired meanwhile.
        let new_slot = lease.as_ref().is_some_and(Lease::is_new);
        if version.is_some() || new_slot || !self.capabilities.unique_revisions {
            draft.commit.checks.push(Check { key: Floor::key(), revision: floor.revision.clone() });
        }
        draft.commit.puts.extend(lease.as_ref().map(Lease::put));
        self.check_commit(&draft.commit)?;
        Ok(draft)
    }

    /// A name for the values of one request.
    fn version(&self, lease: &mut Option<Lease<'_>>, floor: &KnownFloor) -> Version {
        let (slot, sequence) = match lease {
            Some(lease) => (lease.number(), lease.next_sequence()),
            None => (0, self.sequence.fetch_add(1, Ordering::Relaxed)),
        };
        Version { epoch: floor.epoch, client: self.client, slot, sequence }
    }

    /// The payload of a write's new record. A value that does not go into it is added to `values`, under the `name`.
    fn payload(
        &self,
        planned: &Planned,
        name: &mut impl FnMut() -> Version,
        values: &mut Vec<Value>,
    ) -> Result<Payload> {
        let cell = &planned.write.cell;
        let Some(value) = &planned.computed else { return Ok(Payload::Deleted) };
        let state = match self.inline(cell, value)? {
            Ok(payload) => return Ok(payload),
            Err(state) => state,
        };
        let version = name();
        values.push(Value { cell: Arc::clone(cell), version, state, taken: AtomicBool::new(false) });
        Ok(Payload::Stored { realm: cell.meta.realm, version })
    }

    /// Adds the record of a write.
    fn put(&self, planned: &Planned, payload: Payload, draft: &mut Draft) -> Result<()> {
        let key = &planned.write.cell.key;
        let Succession { record, trimmed } = succeed(planned, payload);
        self.check_record(key, &record)?;
        draft.trimmed.extend(
            trimmed
                .into_iter()
                .filter_map(|(realm, version)| Some(Garbage { store: self.store(realm)?, key: key.clone(), version })),
        );
        let revision = planned.base().map(|entry| entry.revision.clone());
        draft.commit.puts.push(Put { key: key.clone(), revision, record: Arc::new(record) });
        Ok(())
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
