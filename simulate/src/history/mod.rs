//! Histories of transactions, and the checker that says whether they could have happened.
//!
//! A [`History`] is what clients saw: each transaction with its reads and writes, when it was called and returned, and whether it
//! committed. Lists that are only appended to, with elements that occur once, show the order of their writes in
//! every read; registers whose values occur once show less of it. [`History::check`] finds from that which transaction must
//! come before which, and looks for cycles, in the manner of Jepsen's Elle (Kingsbury and Alvaro, "Elle: Inferring Isolation
//! Anomalies from Experimental Observations", VLDB 2020). What it finds is named after Adya.
//!
//! # Examples
//! Two transactions that each read what the other one writes, and do not see it: write skew.
//! ```
//! use avout_simulate::history::{History, Level, Operation, Phenomenon, Transaction};
//!
//! let mut history = History::default();
//! history.push(
//!     Transaction::committed(0, 1, 4).with([Operation::read_list("/x", []), Operation::append("/y", 1)]),
//! );
//! history.push(
//!     Transaction::committed(1, 2, 3).with([Operation::read_list("/y", []), Operation::append("/x", 2)]),
//! );
//! history.push(
//!     Transaction::committed(0, 5, 6).with([Operation::read_list("/x", [2]), Operation::read_list("/y", [1])]),
//! );
//!
//! let found = history.check(Level::StrictSerializable);
//! assert_eq!(found[0].phenomenon, Phenomenon::G2);
//! assert!(history.check(Level::Snapshot).is_empty());
//! ```

mod anomaly;
mod check;
mod cycles;
mod edn;
mod graph;
mod register;
mod transactions;
mod versions;
mod view;

#[cfg(test)]
mod tests;

pub use anomaly::{Anomaly, Level, Phenomenon};
pub use transactions::{Attempt, History, Operation, Outcome, Transaction};
