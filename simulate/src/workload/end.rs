//! What must hold when a schedule is over.

use std::collections::{BTreeMap, BTreeSet};

use avout_core::protocol::{Floor, Resolution, Turn, Version};
use avout_core::{Isolation, Key, Payload, Point, Result, Stm};

use super::test::{Test, Watch, lock};
use crate::history::{History, Level, Operation, Outcome};

/// How many values may be left over for each fault.
const LEFT_BY_A_FAULT: usize = 8;

impl Test {
    pub(super) async fn check(&self, sure: &Stm) -> Result<()> {
        for (handle, receipt) in self.recorder.receipts() {
            match sure.resolve(&receipt).await {
                Ok(Resolution::Committed(point)) => self.recorder.resolved(handle, Some(point.number())),
                Ok(Resolution::NotCommitted) => self.recorder.resolved(handle, None),
                Err(error) => self.world.tell(|| format!("{handle} stays unknown: {:?}", error.kind())),
            }
        }
        let last = self.read_all(sure).await?;
        sure.close().await;
        let uncommitted = self.recorder.uncommitted();
        let history = self.recorder.history();
        let strict = self.setting.isolation == Isolation::Serializable || self.setting.ensures_all;
        let level = if strict { Level::StrictSerializable } else { Level::Snapshot };
        for anomaly in history.check(level) {
            self.world.violation(anomaly.to_string());
        }
        for watch in lock(&self.watches).iter() {
            if let Err(what) = self.check_watch(watch, &history, &last) {
                self.world.violation(format!("watch: {what}"));
            }
        }
        self.check_values(self.world.troubles() + uncommitted)?;
        let sweeper = self.world.stm();
        let report = sweeper.sweep().await?;
        self.check_values(0)?;
        // Slots are retired that were not used since the sweep before.
        for skipped in report.skipped.iter().chain(&sweeper.sweep().await?.skipped) {
            self.world.violation(format!("leftovers: a sweep without faults skips {}: {}", skipped.what, skipped.why));
        }
        self.check_records()
    }

    /// No record is left that nobody needs.
    fn check_records(&self) -> Result<()> {
        let records = self.world.records();
        let keys = records.keys(&Key::prefix("/")?);
        let kept = [Floor::key(), Turn::key()];
        for (key, entry) in keys.iter().zip(records.read(&keys, None)?.entries) {
            let deleted = entry.is_some_and(|entry| matches!(entry.record.payload, Payload::Deleted));
            if deleted || (key.is_reserved() && !kept.contains(key)) {
                self.world.violation(format!("leftovers: the record of {key} is still there after two sweeps"));
            }
        }
        Ok(())
    }

    /// Reads everything in one transaction, but for the atom.
    async fn read_all(&self, sure: &Stm) -> Result<BTreeMap<Key, Vec<u64>>> {
        let recorder = &self.recorder;
        let (mut lists, mut registers) = (Vec::new(), Vec::new());
        for list in 0..self.setting.lists {
            lists.push(sure.open_ref::<Vec<u64>>(format!("/l{list}")).await?);
        }
        for register in 0..self.setting.registers {
            registers.push(sure.open_ref::<u64>(format!("/r{register}")).await?);
        }
        let handle = recorder.invoke(0);
        let last = sure.dosync(async |tx| {
            let mut last = BTreeMap::new();
            recorder.begin(handle);
            for list in &lists {
                let elements = tx.get(list).await?;
                last.insert(list.key().clone(), elements.clone());
                recorder.push(handle, [Operation::read_list(list.key().as_str(), elements)]);
            }
            for register in &registers {
                let value = Some(tx.get(register).await?).filter(|value| *value != 0);
                recorder.push(handle, [Operation::read(register.key().as_str(), value)]);
            }
            Ok(last)
        });
        let last = last.await?;
        recorder.committed(handle);
        if self.setting.atom {
            let handle = recorder.invoke(0);
            recorder.begin(handle);
            let elements = sure.open_atom::<Vec<u64>>("/a").await?.get().await?;
            recorder.push(handle, [Operation::read_list("/a", elements)]);
            recorder.committed(handle);
        }
        Ok(last)
    }

    fn check_watch(&self, watch: &Watch, history: &History, last: &BTreeMap<Key, Vec<u64>>) -> Result<(), String> {
        let Watch { key, since, told, to_the_end } = watch;
        let last = &last[key];
        let points = self.world.records().points(key);
        let mut before: Option<(&[u64], Point)> = None;
        for step in told {
            let (Some(old), Some(new), Some(point)) = (&step.old, &step.new, step.point) else {
                return Err(format!("it told that {key} was destroyed"));
            };
            if before.is_some_and(|(value, _)| value != old) {
                return Err(format!("it told {old:?} as old after {before:?} as new"));
            }
            if !new.starts_with(old) || new.len() == old.len() {
                return Err(format!("it told a change from {old:?} to {new:?}"));
            }
            if !last.starts_with(new) {
                return Err(format!("it told {new:?}, which was never committed: {key} is {last:?}"));
            }
            if !points.contains(&point) {
                return Err(format!("it told {new:?} at point {point}, where nothing of {key} was committed"));
            }
            if let Some(committed) = new.last().and_then(|element| point_of(history, key, *element))
                && committed != point.number()
            {
                return Err(format!("it told {new:?} at point {point}, and it was committed at {committed}"));
            }
            if let Some((_, earlier)) = before {
                if earlier >= point {
                    return Err(format!("it told point {point} after {earlier}"));
                }
                let between = points.iter().any(|other| *other > earlier && *other < point);
                if between && !step.skipped {
                    return Err(format!(
                        "it told point {point} right after {earlier}, and did not say that it skipped"
                    ));
                }
            }
            before = Some((new, point));
        }
        match before {
            Some((value, _)) if *to_the_end && value != last => {
                Err(format!("it told {value:?} last, and {key} is {last:?}"))
            }
            None if *to_the_end && points.last() > since.as_ref() => {
                Err(format!("it told nothing, and {key} is {last:?}"))
            }
            _ => Ok(()),
        }
    }

    /// Every value that a record points at is there, and not many more are than so many troubles explain.
    fn check_values(&self, troubles: usize) -> Result<()> {
        let records = self.world.records();
        let keys = records.keys(&Key::prefix("/")?);
        let mut pointed: BTreeSet<(u128, Key, Version)> = BTreeSet::new();
        let snapshot = records.read(&keys, None)?;
        for (key, entry) in keys.iter().zip(&snapshot.entries) {
            let stored = entry.iter().flat_map(|entry| entry.record.stored());
            pointed.extend(stored.map(|(realm, version)| (realm.number(), key.clone(), version)));
        }
        let mut left = Vec::new();
        for store in self.world.stores() {
            let values = store.versions();
            for (key, version) in values {
                if !pointed.remove(&(store.realm().number(), key.clone(), version)) {
                    left.push(format!("{key} {version}"));
                }
            }
        }
        if let Some((realm, key, _)) = pointed.first() {
            self.world.violation(format!("dangling: a record of {key} points at what store {realm} does not have"));
        }
        if left.len() > troubles * LEFT_BY_A_FAULT {
            self.world.violation(format!("leftovers: nothing points at {left:?}, after {troubles} troubles"));
        }
        Ok(())
    }
}

/// The point at which an element was appended, where that is known.
fn point_of(history: &History, key: &Key, element: u64) -> Option<u64> {
    let append = Operation::append(key.as_str(), element);
    let mut committed = history.transactions().iter().filter(|transaction| transaction.outcome == Outcome::Committed);
    committed.find(|transaction| transaction.operations.contains(&append))?.point
}
