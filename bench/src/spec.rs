//! What is measured: workloads with their parameters.

/// Where avout keeps its refs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Local,
    Sql,
    Zk,
    Redis,
    Mongo,
}

impl Store {
    pub(crate) const ALL: [Self; 5] = [Self::Local, Self::Sql, Self::Zk, Self::Redis, Self::Mongo];

    /// Those that are files or memory of this machine.
    pub(crate) const EMBEDDED: [Self; 2] = [Self::Local, Self::Sql];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Sql => "sql",
            Self::Zk => "zk",
            Self::Redis => "redis",
            Self::Mongo => "mongo",
        }
    }

    /// Whose time or throughput a row's ratio is to.
    pub(crate) fn floor(self) -> &'static str {
        match self {
            Self::Local => "fast-stm",
            Self::Sql => "rusqlite",
            Self::Zk => "by hand",
            Self::Redis => "a script",
            Self::Mongo => "the driver",
        }
    }

    pub(crate) fn stride(self) -> u32 {
        match self {
            Self::Local => 8,
            Self::Sql | Self::Zk | Self::Redis | Self::Mongo => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// One task changes two refs, which it reads together.
    Hello,
    /// The same, one ref after the other.
    HelloByAlter,
    /// One task changes one ref.
    OneRef,
    /// Tasks change two refs each, each its own.
    Disjoint,
    /// Tasks change the same two refs.
    Contended,
    /// One task reads ten refs.
    ReadOnly,
    /// Fifteen tasks read ten refs, while another changes two of them.
    ReadMostly,
    /// The same with nobody who writes.
    ReadMostlyQuiet,
    /// Tasks change one atom.
    Swap,
    /// Tasks add to one ref by `commute`.
    Commute,
    /// A task changes fifty refs, while eight others change two of them at a time.
    Long,
    /// Processes of eight tasks, which change two refs each, each task its own.
    Processes,
    /// Tasks acquire and release one lock.
    Lock,
    /// Processes of one task do.
    LockProcesses,
    /// One task changes a ref in each store, and beside it what that is made of.
    Mixed,
}

impl Workload {
    /// Its name on the command line.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Hello | Self::HelloByAlter => "hello",
            Self::OneRef => "one-ref",
            Self::Disjoint => "disjoint",
            Self::Contended => "contended",
            Self::ReadOnly => "read-only",
            Self::ReadMostly | Self::ReadMostlyQuiet => "read-mostly",
            Self::Swap => "swap",
            Self::Commute => "commute",
            Self::Long => "long",
            Self::Processes => "processes",
            Self::Lock | Self::LockProcesses => "lock",
            Self::Mixed => "mixed",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HelloByAlter => "hello, by alter",
            Self::ReadMostlyQuiet => "read-mostly, no writer",
            Self::LockProcesses => "lock, processes",
            other => other.family(),
        }
    }
}

/// One workload with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) store: Store,
    pub(crate) workload: Workload,
    /// Tasks or threads; for [`Workload::Processes`] and [`Workload::LockProcesses`] processes.
    pub(crate) tasks: usize,
    /// Bytes of a value.
    pub(crate) size: usize,
}

impl Spec {
    /// Whether an operation may end without its task having waited for anything, so that others would not have their turn.
    pub(crate) fn gives_way(&self) -> bool {
        let only_reads = matches!(self.workload, Workload::ReadMostly | Workload::ReadMostlyQuiet);
        self.tasks > 1 && (self.store == Store::Local || only_reads)
    }
}
