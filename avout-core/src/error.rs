//! The one error type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::protocol::{Key, Receipt};

/// The result of everything in avout.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, told by what the caller can do about it.
///
/// Only [`OutcomeUnknown`](ErrorKind::OutcomeUnknown) may have taken effect. After every other
/// kind nothing of the operation has happened and nothing of it will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument breaks a rule that the message names. Correct the call.
    InvalidInput,
    /// There is no such ref or atom, or it was destroyed. Create it.
    NotFound,
    /// There is one already. Open it instead.
    AlreadyExists,
    /// It was made with another type, codec or store than it is now opened with.
    Mismatch,
    /// A validator refused the new value, or panicked.
    Rejected,
    /// The body asked for an end, with [`Error::abort`].
    Aborted,
    /// The attempt cannot go on and will be run again: pass this error on out of the body. It is
    /// seen only inside a body.
    Restart,
    /// The attempts that the transaction was allowed were all lost to others. Try later, allow
    /// more, or put less into one transaction.
    Contended,
    /// The deadline passed before there was an outcome, and there will be none: nothing happened.
    Timeout,
    /// The lock, or whatever the guard stood for, was lost: the session ended before it was released. Others may have it.
    Lost,
    /// A transaction, or an operation of its own on a handle, inside the body of a transaction.
    /// Pass the `Tx` instead.
    Nested,
    /// A `Tx` used after its body ended, or with a ref of another client. A mistake in the program.
    Misuse,
    /// More than the store can take; the message names the limit. Nothing was sent.
    TooLarge,
    /// The point that was asked for is older than the history that is kept. Take a new snapshot.
    TooOld,
    /// What the store holds is not what was written: cut, changed, foreign, or of an unknown
    /// format. Other keys are not affected.
    Corrupt,
    /// A value could not be encoded, or its bytes are not a value of this type.
    Codec,
    /// The store did not answer, or asked to be left alone for now. Nothing happened; trying again
    /// later may work. Transactions try again themselves until their deadline.
    Unavailable,
    /// The store has no room. Nothing was written; reading goes on.
    Full,
    /// The store refuses this user, or is read-only.
    Denied,
    /// The store under this name is not the one it was: deleted, replaced or emptied. Writing to
    /// it would not last, so nothing is.
    StoreLost,
    /// A thing that this build, this store or this version cannot do.
    Unsupported,
    /// The client was closed.
    Closed,
    /// The request may have taken effect, or not: its reply was lost and the store stayed out of
    /// reach. [`Error::receipt`] lets it be found out later.
    OutcomeUnknown,
}

/// An error: its kind, the operation, the key it concerns, and its source.
///
/// Messages hold no values, no credentials and not the source's text, which [`StdError::source`]
/// gives.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    key: Option<Key>,
    effort: Option<(u32, Duration)>,
    receipt: Option<Receipt>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`. `message` says what was expected and what to do, in lowercase.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: "",
            message: message.into(),
            key: None,
            effort: None,
            receipt: None,
            source: None,
        }))
    }

    /// Ends a transaction from inside its body: nothing is written and `dosync` gives this error.
    ///
    /// `reason` is found again with [`downcast_ref`](Self::downcast_ref).
    pub fn abort(reason: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(ErrorKind::Aborted, "the transaction was ended by its body").with_source(reason)
    }

    /// Names the operation, unless one nearer to the cause is named already.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        if self.0.operation.is_empty() {
            self.0.operation = operation;
        }
        self
    }

    /// Names the key, unless one nearer to the cause is named already.
    #[must_use]
    pub fn at(mut self, key: &Key) -> Self {
        self.0.key.get_or_insert_with(|| key.clone());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Adds what [`resolve`](crate::Stm::resolve) needs to find out the outcome.
    #[must_use]
    pub fn with_receipt(mut self, receipt: Receipt) -> Self {
        self.0.receipt = Some(receipt);
        self
    }

    /// Adds how often and how long it was tried.
    #[must_use]
    pub(crate) fn with_effort(mut self, attempts: u32, elapsed: Duration) -> Self {
        self.0.effort = Some((attempts, elapsed));
        self
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed; empty where it is plain from the call.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The key that the error is about: for a lost transaction, the one it was last lost on.
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// How many attempts a transaction made before it gave up.
    pub fn attempts(&self) -> Option<u32> {
        self.0.effort.map(|(attempts, _)| attempts)
    }

    /// How long a transaction tried before it gave up.
    pub fn elapsed(&self) -> Option<Duration> {
        self.0.effort.map(|(_, elapsed)| elapsed)
    }

    /// With [`ErrorKind::OutcomeUnknown`]: what [`Stm::resolve`](crate::Stm::resolve) takes to
    /// find out later. `None` where the store has no way to tell.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.0.receipt.as_ref()
    }

    /// The first error of type `E` in the chain of sources.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next = self.source();
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<E>() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if !inner.operation.is_empty() {
            write!(f, "{}: ", inner.operation)?;
        }
        if let Some(key) = &inner.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(&inner.message)?;
        if let Some((attempts, elapsed)) = inner.effort {
            write!(f, " ({attempts} attempts in {elapsed:.1?})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("message", &format_args!("{self}"))
            .field("source", &inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
