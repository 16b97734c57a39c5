use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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

/// Threads count in cells of their own: one that all of them write would be handed from core to core with each
/// transaction.
const SHARDS: usize = 16;

thread_local! {
    /// This thread's shard.
    static SHARD: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS
    };
}

macro_rules! counters {
    ($($field:ident: $method:ident),* $(,)?) => {
        #[derive(Default)]
        pub(crate) struct Counters([Shard; SHARDS]);

        /// As large as what processors fetch together.
        #[derive(Default)]
        #[repr(align(128))]
        struct Shard { $($field: AtomicU64),* }

        impl Counters {
            $(pub(crate) fn $method(&self) { self.shard().$field.fetch_add(1, Ordering::Relaxed); })*

            fn shard(&self) -> &Shard {
                &self.0[SHARD.with(|shard| *shard)]
            }

            pub(crate) fn get(&self) -> Stats {
                let mut stats = Stats::default();
                for shard in &self.0 {
                    $(stats.$field += shard.$field.load(Ordering::Relaxed);)*
                }
                stats
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
