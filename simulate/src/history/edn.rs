use std::fmt::Write as _;

use super::{History, Operation, Outcome, Transaction};

/// Which of a history's operations are written: Elle checks one kind at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Lists,
    Registers,
}

/// Each transaction gives two events: its call, and its end where it has one.
pub(super) fn write(history: &History, kind: Kind) -> String {
    let mut events: Vec<(u64, bool, &Transaction)> = Vec::new();
    let last = history.transactions().iter().filter_map(|transaction| transaction.completed).max().unwrap_or(0);
    for transaction in history.transactions() {
        if !transaction.operations.iter().any(|operation| is_of(operation, kind)) {
            continue;
        }
        events.push((transaction.invoked, false, transaction));
        events.push((transaction.completed.unwrap_or(last + 1), true, transaction));
    }
    events.sort_by_key(|(time, is_end, _)| (*time, *is_end));
    let mut out = String::new();
    for (index, (time, is_end, transaction)) in events.into_iter().enumerate() {
        let event = match (is_end, transaction.outcome) {
            (false, _) => "invoke",
            (true, Outcome::Committed) => "ok",
            (true, Outcome::Aborted) => "fail",
            (true, Outcome::Unknown) => "info",
        };
        let shows_reads = event == "ok";
        let value: Vec<String> = transaction
            .operations
            .iter()
            .filter(|operation| is_of(operation, kind))
            .map(|operation| match operation {
                Operation::Append { key, element } => format!("[:append {key:?} {element}]"),
                Operation::ReadList { key, elements } if shows_reads => {
                    let elements: Vec<String> = elements.iter().map(u64::to_string).collect();
                    format!("[:r {key:?} [{}]]", elements.join(" "))
                }
                Operation::Write { key, value } => format!("[:w {key:?} {}]", value_or_nil(*value)),
                Operation::Read { key, value } if shows_reads => format!("[:r {key:?} {}]", value_or_nil(*value)),
                Operation::ReadList { key, .. } | Operation::Read { key, .. } => format!("[:r {key:?} nil]"),
            })
            .collect();
        let process = transaction.process;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{{:type :{event}, :process {process}, :f :txn, :value [{}], :index {index}, :time {time}}}",
            value.join(" ")
        );
    }
    out
}

fn value_or_nil(value: Option<u64>) -> String {
    value.map_or_else(|| "nil".to_owned(), |value| value.to_string())
}

fn is_of(operation: &Operation, kind: Kind) -> bool {
    let of = match operation {
        Operation::Append { .. } | Operation::ReadList { .. } => Kind::Lists,
        Operation::Write { .. } | Operation::Read { .. } => Kind::Registers,
    };
    of == kind
}
