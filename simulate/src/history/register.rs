//! The order of a register's values, as far as a history shows it.

use std::collections::BTreeMap;

use super::view::{Found, View};
use super::{Anomaly, Phenomenon};

/// What is known of one register.
#[derive(Default)]
pub(super) struct Register {
    /// Transactions that took effect and left a value in it.
    pub(super) writers: Vec<usize>,
    /// Nodes that read it, with whose value they found; `None`: the first one, from before all writes.
    pub(super) readers: Vec<(usize, Option<usize>)>,
    /// It was taken away at some time, so that a read of nothing does not tell when that was.
    pub(super) vanished: bool,
}

pub(super) fn registers<'a>(view: &View<'a>) -> BTreeMap<&'a str, Register> {
    let mut registers: BTreeMap<&'a str, Register> = BTreeMap::new();
    for (place, writes) in view.writes.iter().enumerate() {
        for (key, values) in &writes.registers {
            let register = registers.entry(key).or_default();
            register.vanished |= values.contains(&None);
            if view.in_effect[place] && matches!(values.last(), Some(Some(_))) {
                register.writers.push(place);
            }
        }
    }
    for (node, seen) in view.nodes.iter().enumerate() {
        for (key, found) in &seen.reads {
            let Found::Register(value) = found else {
                continue;
            };
            let register = registers.entry(key).or_default();
            match value.map(|value| view.writer.get(&(*key, value))) {
                None => register.readers.push((node, None)),
                Some(Some(&writer)) if view.in_effect[writer] => register.readers.push((node, Some(writer))),
                // Reported by itself.
                Some(_) => {}
            }
        }
    }
    registers
}

impl Register {
    /// Finds two transactions that both wrote over the value that both had read.
    pub(super) fn check_lost_updates(&self, view: &View<'_>, key: &str, found: &mut Vec<Anomaly>) {
        let mut updates: BTreeMap<Option<usize>, usize> = BTreeMap::new();
        for &(reader, read) in &self.readers {
            let updater = view.nodes[reader].transaction;
            let overwrites = !view.nodes[reader].is_attempt && self.writers.contains(&updater);
            if !overwrites || (read.is_none() && self.vanished) {
                continue;
            }
            if let Some(other) = updates.insert(read, updater) {
                let text = format!("transactions {other} and {updater} both read the same value of {key} and wrote it");
                found.push(Anomaly::new(Phenomenon::LostUpdate, [other, updater], text));
                return;
            }
        }
    }

    /// Pairs of transactions of which the second one surely overwrote the first one's value: it had read it, or began after
    /// the first one had ended.
    pub(super) fn successions(&self, view: &View<'_>) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for &(reader, writer) in &self.readers {
            let reader = &view.nodes[reader];
            if let Some(writer) = writer
                && !reader.is_attempt
                && writer != reader.transaction
                && self.writers.contains(&reader.transaction)
            {
                pairs.push((writer, reader.transaction));
            }
        }
        let node = |transaction: usize| &view.nodes[view.node_of[transaction].expect("writers took effect")];
        for &first in &self.writers {
            for &second in &self.writers {
                if node(first).ended.is_some_and(|ended| ended < node(second).began) {
                    pairs.push((first, second));
                }
            }
        }
        pairs
    }
}
