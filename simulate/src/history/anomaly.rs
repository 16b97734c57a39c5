use std::fmt;

/// What a history is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// As if transactions ran one after the other, in an order that agrees with real time.
    StrictSerializable,
    /// Each transaction reads one moment after it was called, and of two that write the same key one comes wholly before
    /// the other. What is only read may change before the commit (write skew).
    Snapshot,
}

/// What is wrong with a history. The order is from the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Phenomenon {
    /// A value was read that nobody wrote.
    Unwritten,
    /// An element is in a list twice: a write took effect twice.
    Duplicate,
    /// An acknowledged write is missing from a read that began after it.
    LostWrite,
    /// Two reads of one list of which neither is the beginning of the other.
    IncompatibleOrder,
    /// Two transactions read the same value of a register and both wrote over it.
    LostUpdate,
    /// A transaction does not see its own writes, or sees one key with two values.
    Internal,
    /// Aborted read: a value was read of a transaction that did not commit.
    G1a,
    /// Intermediate read: a value was read that its transaction wrote over.
    G1b,
    /// Dirty write: a cycle of writes.
    G0,
    /// Circular information flow: a cycle of writes and reads of them.
    G1c,
    /// A cycle with one read that a later write overtook: read skew, lost update, stale read.
    GSingle,
    /// A cycle with several such reads, no two of them next to each other: what snapshot isolation does not allow.
    GNonadjacent,
    /// A cycle with several such reads: write skew.
    G2,
    /// The points at which transactions say that they took effect are in another order than their effects.
    PointOrder,
}

/// Something in a history that its level does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is.
    pub phenomenon: Phenomenon,
    /// For cycles: it is one only because a transaction began after another one had ended.
    pub real_time: bool,
    /// It takes what a body saw in an attempt that did not commit.
    pub in_attempt: bool,
    /// The transactions in it, by their place in the history. For cycles, in their order.
    pub transactions: Vec<usize>,
    /// What was seen.
    pub text: String,
}

impl Anomaly {
    pub(super) fn new(phenomenon: Phenomenon, transactions: impl Into<Vec<usize>>, text: String) -> Self {
        Self { phenomenon, real_time: false, in_attempt: false, transactions: transactions.into(), text }
    }
}

impl fmt::Display for Phenomenon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unwritten => "unwritten value",
            Self::Duplicate => "duplicate element",
            Self::LostWrite => "lost write",
            Self::IncompatibleOrder => "incompatible order",
            Self::LostUpdate => "lost update",
            Self::Internal => "internal inconsistency",
            Self::G1a => "G1a (aborted read)",
            Self::G1b => "G1b (intermediate read)",
            Self::G0 => "G0 (dirty write)",
            Self::G1c => "G1c (circular information flow)",
            Self::GSingle => "G-single",
            Self::GNonadjacent => "G-nonadjacent",
            Self::G2 => "G2 (write skew)",
            Self::PointOrder => "points out of order",
        })
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.phenomenon)?;
        if self.real_time {
            f.write_str(" with real time")?;
        }
        if self.in_attempt {
            f.write_str(" in an attempt that did not commit")?;
        }
        write!(f, ": {}", self.text)
    }
}
