//! The one error type.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
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
/// Messages hold no values and no credentials. Where the cause says what to mend, its first line ends the message: why a value cannot be
/// encoded or decoded, what the operating system said. [`StdError::source`] then goes on behind that cause, so that a chain of
/// errors shows each text once. All other causes are left to it, since they may hold anything.
/// [`downcast_ref`](Error::downcast_ref) finds them all.
///
/// A copy shares its source with the original: requests that fail together each get one.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    message: Cow<'static, str>,
    key: Option<Key>,
    /// What the key is of, if it is no ref or atom.
    owner: Option<&'static str>,
    effort: Option<(u32, Duration)>,
    receipt: Option<Receipt>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`. `message` says what was expected and what to do, in lowercase.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: "",
            message: message.into(),
            key: None,
            owner: None,
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

    /// Names the key, unless one nearer to the cause is named already. In the place of a key of the library's own it names the queue, lock
    /// or the like whose it is.
    #[must_use]
    pub fn at(mut self, key: &Key) -> Self {
        if self.0.key.is_none() {
            let (owner, key) = key.owner().map_or_else(|| (None, key.clone()), |(owner, key)| (Some(owner), key));
            (self.0.owner, self.0.key) = (owner, Some(key));
        }
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
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

    /// The cause, if its text is a part of the message.
    fn told(&self) -> Option<&(dyn StdError + 'static)> {
        let source = self.0.source.as_deref()?;
        (self.0.kind == ErrorKind::Codec || source.is::<std::io::Error>())
            .then_some(source as &(dyn StdError + 'static))
    }

    /// The first error of type `E` in the chain of sources.
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next = self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static));
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
            match inner.owner {
                Some(owner) => write!(f, "{owner} {key}: ")?,
                None => write!(f, "{key}: ")?,
            }
        }
        f.write_str(&inner.message)?;
        if let Some((attempts, elapsed)) = inner.effort {
            write!(f, " ({attempts} attempts in {elapsed:.1?})")?;
        }
        if let Some(cause) = self.told() {
            let cause = cause.to_string();
            let line = cause.lines().next().unwrap_or_default();
            match inner.kind {
                ErrorKind::Codec => write!(f, ": {}", without_values(line))?,
                _ => write!(f, ": {line}")?,
            }
        }
        Ok(())
    }
}

/// What serde says of a value that cannot be decoded, without the value: names of fields and types stay, what was found in their place
/// does not.
fn without_values(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['"', '`']) {
        let (before, quoted) = rest.split_at(at);
        let mark = quoted.as_bytes()[0];
        let mut escaped = false;
        let end = quoted.bytes().skip(1).position(|byte| {
            let ends = byte == mark && !escaped;
            escaped = byte == b'\\' && !escaped && mark == b'"';
            ends
        });
        let Some(end) = end else {
            shown.push_str(before);
            shown.push('…');
            return shown;
        };
        let (quoted, after) = quoted.split_at(end + 2);
        shown.push_str(before);
        let is_value =
            ["integer ", "floating point ", "boolean ", "character "].iter().any(|what| before.ends_with(what));
        match mark == b'"' || is_value {
            true => shown.push('…'),
            false => shown.push_str(quoted),
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
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
        match self.told() {
            Some(cause) => cause.source(),
            None => self.0.source.as_deref().map(|source| source as _),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// All that a program prints of a chain of errors.
    fn chain(error: &Error) -> String {
        let mut text = error.to_string();
        let mut next = StdError::source(error);
        while let Some(source) = next {
            text += &format!(": {source}");
            next = source.source();
        }
        text
    }

    /// What serde misses is in the message, once in a chain, and can be found as the error that it is.
    #[test]
    fn a_message_says_what_serde_misses() {
        #[derive(Debug, serde::Deserialize)]
        struct Price {
            #[expect(dead_code, reason = "it is only to be missing")]
            currency: String,
        }
        let cause = serde_json::from_str::<Price>("{}").expect_err("a field is missing");
        let error = Error::new(ErrorKind::Codec, "the bytes are not a value of type Price").with_source(cause);
        let text = error.to_string();
        assert!(text.contains("missing field `currency`"), "{text}");
        assert_eq!(chain(&error).matches("missing field").count(), 1, "{}", chain(&error));
        assert!(error.downcast_ref::<serde_json::Error>().is_some());
    }

    /// What serde found in the place of a value is not shown.
    #[test]
    fn a_message_shows_no_value() {
        let cases = [
            (serde_json::from_str::<u8>("\"can\\\"ary\"").map(drop), "invalid type: string …, expected u8"),
            (serde_json::from_str::<u8>("70000").map(drop), "integer …, expected u8"),
            (serde_json::from_str::<bool>("1.5").map(drop), "floating point …, expected a boolean"),
            (serde_json::from_str::<String>("true").map(drop), "boolean …, expected a string"),
        ];
        for (decoded, says) in cases {
            let error = Error::new(ErrorKind::Codec, "no").with_source(decoded.expect_err(says));
            let text = error.to_string();
            assert!(text.contains(says) && !text.contains("ary") && !text.contains("70000"), "{text}");
        }
        assert_eq!(without_values("unknown variant `a\"b`, expected \"x"), "unknown variant `a\"b`, expected …");
    }

    /// What the operating system said is told; the reason of a body, which may hold a value, and of a driver is left to the chain.
    #[test]
    fn a_message_gives_the_reason() {
        let aborted = Error::abort("sold out");
        assert!(
            !aborted.to_string().contains("sold out") && chain(&aborted).ends_with(": sold out"),
            "{}",
            chain(&aborted)
        );
        let file = Error::new(ErrorKind::InvalidInput, "the file cannot be read");
        let file = file.with_source(io::Error::new(io::ErrorKind::NotFound, "no such file"));
        assert_eq!(chain(&file), "the file cannot be read: no such file");
        let driver = Error::new(ErrorKind::Unavailable, "no answer").with_source("driver");
        assert_eq!((driver.to_string(), chain(&driver)), ("no answer".to_owned(), "no answer: driver".to_owned()));
    }

    /// A copy says the same, and has the same source.
    #[test]
    fn a_copy_keeps_the_source() {
        let error = Error::new(ErrorKind::Full, "no room").during("commit");
        let copy = error.with_source(io::Error::from(io::ErrorKind::StorageFull)).clone();
        assert_eq!((copy.kind(), copy.operation()), (ErrorKind::Full, "commit"));
        assert!(copy.downcast_ref::<io::Error>().is_some_and(|source| source.kind() == io::ErrorKind::StorageFull));
    }

    /// Of a record of the library's own an error names the thing that its user knows.
    #[test]
    fn names_what_the_user_knows() {
        for (key, shown) in [
            ("/.avout/queues/head/jobs/a", "queue /jobs/a: no"),
            ("/.avout/queues/17/jobs", "queue /jobs: no"),
            ("/.avout/locks/held/l", "lock /l: no"),
            ("/.avout/conditions/full/l", "condition of the lock /l: no"),
            ("/jobs", "/jobs: no"),
            ("/.avout/floor", "/.avout/floor: no"),
        ] {
            let error = Error::new(ErrorKind::Corrupt, "no").at(&Key::from_stored(key).expect("a key"));
            assert_eq!(error.to_string(), shown);
        }
    }
}
