/// Transactions as their clients saw them.
#[derive(Clone, Debug, Default)]
pub struct History {
    transactions: Vec<Transaction>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Committed,
    /// It did not and never will.
    Aborted,
    /// It may have taken effect, or may do so later.
    Unknown,
}

/// One transaction.
///
/// Times are numbers of any unit that grow: what matters is which of two came first.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// The client. It does one thing after the other.
    pub process: u64,
    /// When it was called.
    pub invoked: u64,
    /// When it returned; `None`: it never did.
    pub completed: Option<u64>,
    /// How it ended.
    pub outcome: Outcome,
    /// The point at which it took effect, if the client was told.
    pub point: Option<u64>,
    /// What its body did, in order: in the last attempt, if there were several.
    pub operations: Vec<Operation>,
    /// What earlier attempts of its body saw. It took no effect, but must have been one moment too.
    pub attempts: Vec<Attempt>,
}

/// An attempt of a transaction's body that did not commit. What it saw was one moment between its transaction's call and its
/// own end.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// When it was over.
    pub ended: u64,
    /// What it did, in order.
    pub operations: Vec<Operation>,
}

/// One step of a transaction's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Appends an element to a list. No other operation of the history appends the same element to it.
    Append {
        /// The list.
        key: String,
        /// The element.
        element: u64,
    },
    /// Reads a list, with what the transaction itself appended before.
    ReadList {
        /// The list.
        key: String,
        /// All its elements.
        elements: Vec<u64>,
    },
    /// Writes a register. No other operation of the history writes the same value to it.
    Write {
        /// The register.
        key: String,
        /// The value; `None` takes it away, which may be done many times.
        value: Option<u64>,
    },
    /// Reads a register.
    Read {
        /// The register.
        key: String,
        /// The value; `None`: there was none.
        value: Option<u64>,
    },
}

impl Operation {
    /// Appends an element to a list.
    pub fn append(key: impl Into<String>, element: u64) -> Self {
        Self::Append { key: key.into(), element }
    }

    /// Reads a list.
    pub fn read_list(key: impl Into<String>, elements: impl Into<Vec<u64>>) -> Self {
        Self::ReadList { key: key.into(), elements: elements.into() }
    }

    /// Writes a register.
    pub fn write(key: impl Into<String>, value: impl Into<Option<u64>>) -> Self {
        Self::Write { key: key.into(), value: value.into() }
    }

    /// Reads a register.
    pub fn read(key: impl Into<String>, value: impl Into<Option<u64>>) -> Self {
        Self::Read { key: key.into(), value: value.into() }
    }

    /// What it reads or writes.
    pub fn key(&self) -> &str {
        match self {
            Self::Append { key, .. }
            | Self::ReadList { key, .. }
            | Self::Write { key, .. }
            | Self::Read { key, .. } => key,
        }
    }

    /// Whether it changes anything.
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::Write { .. })
    }
}

impl Transaction {
    fn ended(process: u64, invoked: u64, completed: Option<u64>, outcome: Outcome) -> Self {
        Self { process, invoked, completed, outcome, point: None, operations: Vec::new(), attempts: Vec::new() }
    }

    /// One that committed, called and returned at these times.
    pub fn committed(process: u64, invoked: u64, completed: u64) -> Self {
        Self::ended(process, invoked, Some(completed), Outcome::Committed)
    }

    /// One that surely did not commit.
    pub fn aborted(process: u64, invoked: u64, completed: u64) -> Self {
        Self::ended(process, invoked, Some(completed), Outcome::Aborted)
    }

    /// One that may have committed, or may yet.
    pub fn unknown(process: u64, invoked: u64) -> Self {
        Self::ended(process, invoked, None, Outcome::Unknown)
    }

    /// The same with these operations.
    #[must_use]
    pub fn with(mut self, operations: impl IntoIterator<Item = Operation>) -> Self {
        self.operations = operations.into_iter().collect();
        self
    }

    /// The same with an earlier attempt.
    #[must_use]
    pub fn with_attempt(mut self, attempt: Attempt) -> Self {
        self.attempts.push(attempt);
        self
    }

    /// The same with the point where it took effect.
    #[must_use]
    pub fn at(mut self, point: u64) -> Self {
        self.point = Some(point);
        self
    }
}

impl History {
    /// Adds a transaction. The order does not matter.
    pub fn push(&mut self, transaction: Transaction) {
        self.transactions.push(transaction);
    }

    /// The transactions, in the order in which they were added.
    pub fn transactions(&self) -> &[Transaction] {
        &self.transactions
    }

    /// The same, to be changed: for outcomes that were found out later.
    pub fn transactions_mut(&mut self) -> &mut [Transaction] {
        &mut self.transactions
    }
}

impl FromIterator<Transaction> for History {
    fn from_iter<I: IntoIterator<Item = Transaction>>(transactions: I) -> Self {
        Self { transactions: transactions.into_iter().collect() }
    }
}
