use std::sync::atomic::{AtomicU64, Ordering};

/// What a client has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions that committed, read-only ones among them.
    pub committed: u64,
    /// Runs of a transaction's body.
    pub attempts: u64,
    /// Attempts that were lost to other transactions.
    pub conflicts: u64,
    /// Commits repeated with commuted functions applied again, without running the body.
    pub reapplied: u64,
    /// Read requests to the coordinator.
    pub reads: u64,
    /// Commit requests to the coordinator.
    pub commits: u64,
    /// Replies that were lost and then found out.
    pub resolved: u64,
    /// Values read from stores, not counting those found in memory.
    pub values_read: u64,
    /// Values written to stores.
    pub values_written: u64,
}

macro_rules! counters {
    ($($field:ident: $method:ident),* $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Counters { $($field: AtomicU64),* }

        impl Counters {
            $(pub(crate) fn $method(&self) { self.$field.fetch_add(1, Ordering::Relaxed); })*

            pub(crate) fn get(&self) -> Stats {
                Stats { $($field: self.$field.load(Ordering::Relaxed)),* }
            }
        }
    };
}

counters! {
    committed: committed,
    attempts: attempt,
    conflicts: conflict,
    reapplied: reapplied,
    reads: read,
    commits: commit,
    resolved: resolved,
    values_read: value_read,
    values_written: value_written,
}
