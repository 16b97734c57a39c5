//! What clients saw, in a file for each process, and all of it as one history.

use std::collections::HashMap;
use std::path::Path;

use avout_simulate::history::{Attempt, History, Operation, Transaction};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The system's clock that only grows, the same for all processes, in nanoseconds.
pub(crate) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Line {
    Invoke(Invoke),
    End(End),
}

/// Something is called.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Invoke {
    pub(crate) id: u64,
    pub(crate) process: u64,
    pub(crate) at: u64,
    /// What it will append, whatever it reads.
    pub(crate) appends: Vec<(String, u64)>,
}

/// It has returned.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) id: u64,
    pub(crate) at: u64,
    pub(crate) outcome: Outcome,
    /// What each attempt saw, and when it last did.
    pub(crate) attempts: Vec<(u64, Vec<Seen>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Committed,
    Aborted,
    Unknown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Seen {
    Read(String, Vec<u64>),
    Append(String, u64),
}

fn operations(seen: Vec<Seen>) -> Vec<Operation> {
    let operation = |seen| match seen {
        Seen::Read(key, elements) => Operation::read_list(key, elements),
        Seen::Append(key, element) => Operation::append(key, element),
    };
    seen.into_iter().map(operation).collect()
}

/// Adds what one process has written down. What did not end is of unknown outcome.
pub(crate) fn add(history: &mut History, file: &Path) -> std::io::Result<()> {
    let text = std::fs::read_to_string(file)?;
    let (mut open, mut lines) = (HashMap::new(), text.split_inclusive('\n').peekable());
    while let Some(line) = lines.next() {
        let line = match serde_json::from_str(line) {
            Ok(line) => line,
            // It was killed while it wrote this.
            Err(_) if lines.peek().is_none() && !line.ends_with('\n') => break,
            Err(error) => panic!("{}: {error}: {line}", file.display()),
        };
        match line {
            Line::Invoke(invoke) => {
                open.insert(invoke.id, invoke);
            }
            Line::End(end) => {
                let invoke = open.remove(&end.id).expect("what ends was called");
                history.push(ended(&invoke, end));
            }
        }
    }
    for invoke in open.into_values() {
        history.push(Transaction::unknown(invoke.process, invoke.at).with(appends(&invoke)));
    }
    Ok(())
}

fn appends(invoke: &Invoke) -> Vec<Operation> {
    invoke.appends.iter().map(|(key, element)| Operation::append(key, *element)).collect()
}

fn ended(invoke: &Invoke, mut end: End) -> Transaction {
    let last = end.attempts.pop();
    let mut transaction = match end.outcome {
        Outcome::Committed => Transaction::committed(invoke.process, invoke.at, end.at),
        Outcome::Aborted => Transaction::aborted(invoke.process, invoke.at, end.at),
        Outcome::Unknown => Transaction::unknown(invoke.process, invoke.at),
    };
    let seen = last.clone().map(|(_, seen)| operations(seen)).unwrap_or_default();
    if end.outcome == Outcome::Committed {
        transaction.operations = seen;
    } else {
        // All that it would have written must not be there, however far the last attempt came.
        transaction.operations = appends(invoke);
        end.attempts.extend(last);
    }
    for (ended, seen) in end.attempts {
        transaction = transaction.with_attempt(Attempt { ended, operations: operations(seen) });
    }
    transaction
}
