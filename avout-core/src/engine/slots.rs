//! Slots: how a lost reply is decided. See `docs/protocol.md#lost-replies`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::protocol::{ClientId, Delete, Key, Put, Receipt, Revision, SlotState};

/// A client's slots. A commit holds one from before its request until its outcome is known, so a
/// client has as many as it ever had commits in flight at once.
#[derive(Default)]
pub(super) struct Slots {
    free: Mutex<Vec<Slot>>,
    next: AtomicU32,
}

pub(super) struct Slot {
    pub(super) number: u32,
    pub(super) key: Key,
    /// The slot record's revision; `None`: never written.
    pub(super) revision: Option<Revision>,
    /// The number of the last commit that used it.
    pub(super) sequence: u64,
    /// The epoch of all its commits.
    pub(super) epoch: u64,
    /// The epoch of a commit whose outcome nobody waited for, so that `revision` may be out of date.
    pub(super) open: Option<u64>,
    /// The reply to one of its commits was lost, so that the request may still be on its way.
    pub(super) doubted: bool,
    /// How many losses the coordinator had had when it was first used.
    pub(super) history: u64,
}

/// A slot held by one commit. Dropped in flight, it goes back marked, and whoever takes it next settles it first.
pub(super) struct Lease<'a> {
    slots: &'a Slots,
    slot: Option<Slot>,
}

impl Slots {
    pub(super) fn take(&self) -> Lease<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let slot = free.unwrap_or_else(|| {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            // The key is filled in by the engine, which knows the client.
            Slot {
                number,
                key: Key::root(),
                revision: None,
                sequence: 0,
                epoch: 0,
                open: None,
                doubted: false,
                history: 0,
            }
        });
        Lease { slots: self, slot: Some(slot) }
    }

    /// Takes out the free slots whose commits were all answered.
    pub(super) fn take_answered(&self) -> Vec<Delete> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let (answered, other) = free.drain(..).partition(|slot| slot.open.is_none() && !slot.doubted);
        *free = other;
        let answered: Vec<Slot> = answered;
        answered.into_iter().filter_map(|slot| Some(Delete { key: slot.key, revision: slot.revision? })).collect()
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.slots.free.lock().unwrap_or_else(PoisonError::into_inner).push(slot);
        }
    }
}

impl Lease<'_> {
    pub(super) fn slot(&self) -> &Slot {
        self.slot.as_ref().expect("a lease has its slot until it is dropped or abandoned")
    }

    pub(super) fn slot_mut(&mut self) -> &mut Slot {
        self.slot.as_mut().expect("a lease has its slot until it is dropped or abandoned")
    }

    pub(super) fn number(&self) -> u32 {
        self.slot().number
    }

    pub(super) fn key(&self) -> &Key {
        &self.slot().key
    }

    /// Whether its record was never written.
    pub(super) fn is_new(&self) -> bool {
        self.slot().revision.is_none()
    }

    /// A new sequence number for a commit that is about to be made.
    pub(super) fn next_sequence(&mut self) -> u64 {
        let slot = self.slot_mut();
        slot.sequence += 1;
        slot.sequence
    }

    /// The put that the commit adds.
    pub(super) fn put(&self) -> Put {
        let slot = self.slot();
        let state = SlotState { sequence: slot.sequence, committed: true };
        Put { key: slot.key.clone(), revision: slot.revision.clone(), record: state.to_record().into() }
    }

    /// The commit's request is about to be sent.
    pub(super) fn sent(&mut self, epoch: u64) {
        self.slot_mut().open = Some(epoch);
    }

    /// The commit took effect; `revision` is the slot's new one.
    pub(super) fn committed(&mut self, revision: Revision) {
        let slot = self.slot_mut();
        slot.revision = Some(revision);
        slot.open = None;
    }

    /// The commit surely did not take effect and left the slot as it was.
    pub(super) fn untouched(&mut self) {
        self.slot_mut().open = None;
    }

    /// What finds out the outcome of the commit that was sent.
    pub(super) fn receipt(&self, client: ClientId, epoch: u64) -> Receipt {
        let slot = self.slot();
        Receipt::Slot { client, slot: slot.number, sequence: slot.sequence, epoch }
    }

    /// Never uses the slot again: somebody has a receipt for it, or it is no longer ours.
    pub(super) fn abandon(mut self) {
        self.slot = None;
    }
}
