use std::collections::HashMap;

use super::{Anomaly, History, Operation, Outcome, Phenomenon};

/// What was read of a key from outside the transaction itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    List(&'a [u64]),
    Register(Option<u64>),
}

/// Somebody who saw something: a transaction, or an attempt of one that did not commit.
pub(super) struct Node<'a> {
    /// Its transaction's place in the history.
    pub(super) transaction: usize,
    pub(super) is_attempt: bool,
    pub(super) began: u64,
    /// `None`: it has no end that others could come after.
    pub(super) ended: Option<u64>,
    /// The first read of each key from outside.
    pub(super) reads: Vec<(&'a str, Found<'a>)>,
}

/// All that a transaction wrote to one key, in order.
#[derive(Default)]
pub(super) struct Writes<'a> {
    pub(super) elements: HashMap<&'a str, Vec<u64>>,
    pub(super) registers: HashMap<&'a str, Vec<Option<u64>>>,
}

/// A history, sorted out for the checker: nodes with their external reads, and who wrote what.
pub(super) struct View<'a> {
    pub(super) history: &'a History,
    pub(super) nodes: Vec<Node<'a>>,
    /// The writes of each transaction.
    pub(super) writes: Vec<Writes<'a>>,
    /// Who appended an element, or wrote a value, to a key.
    pub(super) writer: HashMap<(&'a str, u64), usize>,
    /// Whether the transaction took effect: it committed, or its outcome is unknown and it was seen.
    pub(super) in_effect: Vec<bool>,
    /// The node of each transaction that took effect.
    pub(super) node_of: Vec<Option<usize>>,
    pub(super) anomalies: Vec<Anomaly>,
}

impl<'a> View<'a> {
    pub(super) fn of(history: &'a History) -> Self {
        let count = history.transactions().len();
        let mut view = Self {
            history,
            nodes: Vec::with_capacity(count),
            writes: Vec::with_capacity(count),
            writer: HashMap::new(),
            in_effect: vec![false; count],
            node_of: vec![None; count],
            anomalies: Vec::new(),
        };
        for (place, transaction) in history.transactions().iter().enumerate() {
            view.take_writes(place, &transaction.operations);
            view.in_effect[place] = transaction.outcome == Outcome::Committed;
            for attempt in &transaction.attempts {
                view.add_node(place, true, (transaction.invoked, Some(attempt.ended)), &attempt.operations);
            }
            match transaction.outcome {
                Outcome::Committed => {
                    view.node_of[place] = Some(view.nodes.len());
                    view.add_node(place, false, (transaction.invoked, transaction.completed), &transaction.operations);
                }
                // What its last attempt saw was one moment, whatever became of it.
                Outcome::Aborted | Outcome::Unknown => {
                    view.add_node(place, true, (transaction.invoked, transaction.completed), &transaction.operations);
                }
            }
        }
        view.find_effects();
        view
    }

    fn take_writes(&mut self, place: usize, operations: &'a [Operation]) {
        let mut writes = Writes::default();
        for operation in operations {
            match operation {
                Operation::Append { key, element } => {
                    writes.elements.entry(key).or_default().push(*element);
                    self.writer.insert((key, *element), place);
                }
                Operation::Write { key, value } => {
                    writes.registers.entry(key).or_default().push(*value);
                    if let Some(value) = value {
                        self.writer.insert((key, *value), place);
                    }
                }
                Operation::ReadList { .. } | Operation::Read { .. } => {}
            }
        }
        self.writes.push(writes);
    }

    /// Takes the external reads out of a body's operations, and checks those of its own writes.
    fn add_node(
        &mut self,
        transaction: usize,
        is_attempt: bool,
        (began, ended): (u64, Option<u64>),
        operations: &'a [Operation],
    ) {
        let mut reads: Vec<(&'a str, Found<'a>)> = Vec::new();
        let mut appended: HashMap<&str, Vec<u64>> = HashMap::new();
        let mut written: HashMap<&str, Option<u64>> = HashMap::new();
        let mut wrong = None;
        for operation in operations {
            let (key, found) = match operation {
                Operation::Append { key, element } => {
                    appended.entry(key).or_default().push(*element);
                    continue;
                }
                Operation::Write { key, value } => {
                    written.insert(key, *value);
                    continue;
                }
                Operation::ReadList { key, elements } => {
                    let own = appended.get(key.as_str()).map_or(&[][..], Vec::as_slice);
                    let Some(outside) = elements.strip_suffix(own) else {
                        wrong = Some(format!("{key} was read as {elements:?} after {own:?} were appended to it"));
                        continue;
                    };
                    (key.as_str(), Found::List(outside))
                }
                Operation::Read { key, value } => match written.get(key.as_str()) {
                    Some(own) if own == value => continue,
                    Some(own) => {
                        wrong = Some(format!("{key} was read as {value:?} after {own:?} was written to it"));
                        continue;
                    }
                    None => (key.as_str(), Found::Register(*value)),
                },
            };
            match reads.iter().find(|(other, _)| *other == key) {
                None => reads.push((key, found)),
                Some((_, first)) if *first == found => {}
                Some((_, first)) => wrong = Some(format!("{key} was read as {first:?} and then as {found:?}")),
            }
        }
        if let Some(text) = wrong {
            let anomaly = Anomaly::new(Phenomenon::Internal, [transaction], text);
            self.anomalies.push(Anomaly { in_attempt: is_attempt, ..anomaly });
        }
        self.nodes.push(Node { transaction, is_attempt, began, ended, reads });
    }

    /// Finds the transactions of unknown outcome that somebody saw.
    fn find_effects(&mut self) {
        let transactions = self.history.transactions();
        let mut seen = Vec::new();
        for node in &self.nodes {
            let mut see = |key: &'a str, value: u64| {
                if let Some(&writer) = self.writer.get(&(key, value))
                    && transactions[writer].outcome == Outcome::Unknown
                    && writer != node.transaction
                {
                    seen.push(writer);
                }
            };
            for (key, found) in &node.reads {
                match found {
                    Found::List(elements) => elements.iter().for_each(|element| see(key, *element)),
                    Found::Register(value) => value.iter().for_each(|value| see(key, *value)),
                }
            }
        }
        for place in seen {
            if self.in_effect[place] {
                continue;
            }
            self.in_effect[place] = true;
            // Its last attempt was taken in as one that did not commit; it did.
            let node = self.nodes.iter().rposition(|node| node.transaction == place);
            let node = node.expect("each transaction has a node");
            self.nodes[node].is_attempt = false;
            self.nodes[node].ended = None;
            self.node_of[place] = Some(node);
        }
    }

    /// How a node is told of.
    pub(super) fn name(&self, node: usize) -> String {
        let node = &self.nodes[node];
        let process = self.history.transactions()[node.transaction].process;
        let attempt = if node.is_attempt { " (an attempt)" } else { "" };
        format!("transaction {} of client {process}{attempt}", node.transaction)
    }
}
