use std::fmt::Write as _;

use super::{History, Operation, Outcome, Transaction};

/// Each transaction gives two events: its call, and its end where it has one.
pub(super) fn write(history: &History) -> String {
    let mut events: Vec<(u64, bool, &Transaction)> = Vec::new();
    let last = history.transactions.iter().filter_map(|transaction| transaction.completed).max().unwrap_or(0);
    for transaction in &history.transactions {
        if !transaction.operations.iter().any(is_list) {
            continue;
        }
        events.push((transaction.invoked, false, transaction));
        events.push((transaction.completed.unwrap_or(last + 1), true, transaction));
    }
    events.sort_by_key(|(time, is_end, _)| (*time, *is_end));
    let mut out = String::new();
    for (index, (time, is_end, transaction)) in events.into_iter().enumerate() {
        let kind = match (is_end, transaction.outcome) {
            (false, _) => "invoke",
            (true, Outcome::Committed) => "ok",
            (true, Outcome::Aborted) => "fail",
            (true, Outcome::Unknown) => "info",
        };
        let shows_reads = kind == "ok";
        let value: Vec<String> = transaction
            .operations
            .iter()
            .filter_map(|operation| match operation {
                Operation::Append { key, element } => Some(format!("[:append {key:?} {element}]")),
                Operation::ReadList { key, elements } if shows_reads => {
                    let elements: Vec<String> = elements.iter().map(u64::to_string).collect();
                    Some(format!("[:r {key:?} [{}]]", elements.join(" ")))
                }
                Operation::ReadList { key, .. } => Some(format!("[:r {key:?} nil]")),
                Operation::Write { .. } | Operation::Read { .. } => None,
            })
            .collect();
        let process = transaction.process;
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "{{:type :{kind}, :process {process}, :f :txn, :value [{}], :index {index}, :time {time}}}",
            value.join(" ")
        );
    }
    out
}

fn is_list(operation: &Operation) -> bool {
    matches!(operation, Operation::Append { .. } | Operation::ReadList { .. })
}
