use std::collections::{BTreeMap, HashMap, HashSet};

use super::register::registers;
use super::view::{Found, View};
use super::{Anomaly, Outcome, Phenomenon};

/// The order of each list's elements, from its longest read.
pub(super) struct Versions<'a> {
    pub(super) lists: BTreeMap<&'a str, &'a [u64]>,
    /// Transactions that took effect and appended to a list what no read shows.
    pub(super) unseen: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Versions<'a> {
    /// Finds the orders, and what is wrong with reads by themselves.
    pub(super) fn of(view: &View<'a>, found: &mut Vec<Anomaly>) -> Self {
        let mut lists: BTreeMap<&'a str, &'a [u64]> = BTreeMap::new();
        for (key, elements) in list_reads(view).map(|(_, key, elements)| (key, elements)) {
            let longest = lists.entry(key).or_default();
            if elements.len() > longest.len() {
                *longest = elements;
            }
        }
        for (key, elements) in &lists {
            check_duplicates(view, key, elements, found);
        }
        for (node, key, elements) in list_reads(view) {
            check_list(view, node, key, elements, lists[key], found);
        }
        check_registers(view, found);
        for (key, register) in registers(view) {
            register.check_lost_updates(view, key, found);
        }
        let versions = Self { unseen: unseen(view, &lists), lists };
        versions.check_lost(view, found);
        versions
    }

    /// Finds elements that were acknowledged before a read began that does not show them.
    fn check_lost(&self, view: &View<'_>, found: &mut Vec<Anomaly>) {
        let mut told = HashSet::new();
        for (node, key, elements) in list_reads(view) {
            for &writer in self.unseen.get(key).into_iter().flatten() {
                let lost = view.nodes[view.node_of[writer].expect("it took effect")].ended;
                if lost.is_some_and(|ended| ended < view.nodes[node].began) && told.insert((key, writer)) {
                    let text = format!(
                        "transaction {writer} appended to {key}, and {} then read {elements:?}",
                        view.name(node)
                    );
                    found.push(Anomaly::new(Phenomenon::LostWrite, [writer, view.nodes[node].transaction], text));
                }
            }
        }
    }
}

/// All reads of lists from outside, with the node that made them.
pub(super) fn list_reads<'a, 'v>(view: &'v View<'a>) -> impl Iterator<Item = (usize, &'a str, &'a [u64])> + 'v {
    view.nodes.iter().enumerate().flat_map(|(node, seen)| {
        seen.reads.iter().filter_map(move |(key, found)| match found {
            Found::List(elements) => Some((node, *key, *elements)),
            Found::Register(_) => None,
        })
    })
}

fn unseen<'a>(view: &View<'a>, lists: &BTreeMap<&'a str, &'a [u64]>) -> HashMap<&'a str, Vec<usize>> {
    let seen: HashSet<(&str, u64)> =
        lists.iter().flat_map(|(key, elements)| elements.iter().map(|element| (*key, *element))).collect();
    let mut unseen: HashMap<&str, Vec<usize>> = HashMap::new();
    for (place, writes) in view.writes.iter().enumerate().filter(|(place, _)| view.in_effect[*place]) {
        for (key, elements) in &writes.elements {
            if elements.iter().any(|element| !seen.contains(&(*key, *element))) {
                unseen.entry(key).or_default().push(place);
            }
        }
    }
    unseen
}

fn check_duplicates(view: &View<'_>, key: &str, elements: &[u64], found: &mut Vec<Anomaly>) {
    let mut once = HashSet::new();
    for element in elements {
        if !once.insert(element) {
            let writer = view.writer.get(&(key, *element)).copied();
            let text = format!("{element} is in {key} twice: {elements:?}");
            found.push(Anomaly::new(Phenomenon::Duplicate, Vec::from_iter(writer), text));
        }
    }
}

fn check_list(view: &View<'_>, node: usize, key: &str, elements: &[u64], longest: &[u64], found: &mut Vec<Anomaly>) {
    let (transaction, in_attempt) = (view.nodes[node].transaction, view.nodes[node].is_attempt);
    let mut push = |phenomenon, transactions: Vec<usize>, text| {
        found.push(Anomaly { in_attempt, ..Anomaly::new(phenomenon, transactions, text) });
    };
    if !longest.starts_with(elements) {
        let text = format!("{key} was read as {longest:?}, and by {} as {elements:?}", view.name(node));
        push(Phenomenon::IncompatibleOrder, vec![transaction], text);
    }
    for element in elements {
        check_value(view, node, key, *element, &mut push);
    }
    if let Some(last) = elements.last()
        && let Some(&writer) = view.writer.get(&(key, *last))
        && view.writes[writer].elements[key].last() != Some(last)
    {
        let text = format!(
            "{} read {key} up to {last}, and transaction {writer} appended {:?}",
            view.name(node),
            view.writes[writer].elements[key]
        );
        push(Phenomenon::G1b, vec![writer, transaction], text);
    }
}

fn check_value(
    view: &View<'_>,
    node: usize,
    key: &str,
    value: u64,
    push: &mut impl FnMut(Phenomenon, Vec<usize>, String),
) {
    let transaction = view.nodes[node].transaction;
    match view.writer.get(&(key, value)) {
        None => {
            let text = format!("{} read {value} in {key}, which nobody wrote", view.name(node));
            push(Phenomenon::Unwritten, vec![transaction], text);
        }
        Some(&writer) if writer == transaction => {
            let text = format!("{} read {value} in {key} before it wrote it", view.name(node));
            push(Phenomenon::Duplicate, vec![transaction], text);
        }
        Some(&writer) if view.history.transactions()[writer].outcome == Outcome::Aborted => {
            let text = format!("{} read {value} in {key}, of transaction {writer}", view.name(node));
            push(Phenomenon::G1a, vec![writer, transaction], text);
        }
        Some(_) => {}
    }
}

fn check_registers(view: &View<'_>, found: &mut Vec<Anomaly>) {
    for (node, seen) in view.nodes.iter().enumerate() {
        let mut push = |phenomenon, transactions: Vec<usize>, text| {
            found.push(Anomaly { in_attempt: seen.is_attempt, ..Anomaly::new(phenomenon, transactions, text) });
        };
        for (key, read) in &seen.reads {
            let Found::Register(Some(value)) = read else {
                continue;
            };
            check_value(view, node, key, *value, &mut push);
            if let Some(&writer) = view.writer.get(&(*key, *value))
                && writer != seen.transaction
                && view.writes[writer].registers[key].last() != Some(&Some(*value))
            {
                let text = format!(
                    "{} read {value} in {key}, and transaction {writer} wrote {:?}",
                    view.name(node),
                    view.writes[writer].registers[key]
                );
                push(Phenomenon::G1b, vec![writer, seen.transaction], text);
            }
        }
    }
}
