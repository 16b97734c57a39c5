use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument;

use super::Tx;
use crate::engine::{Engine, Isolation, Options, run};
use crate::error::{Error, Result};
use crate::protocol::Point;

/// A body for [`Stm::dosync`](crate::Stm::dosync): `async |tx| ..`, or `|tx| async move { .. }` with clones of what
/// that needs.
///
/// It is any function from a [`Tx`] to a future that can be called many times, since a body runs again when its attempt
/// was lost.
#[diagnostic::on_unimplemented(
    message = "this closure cannot be the body of a transaction, which may run many times",
    label = "write `async |tx| ..` without `move`: it borrows what it uses, also in a spawned task",
    note = "where a body must own what it uses, clone it for each run: `|tx| {{ let r = r.clone(); async move {{ .. }} }}`"
)]
pub trait Body<Fut>: Fn(Tx) -> Fut {}

#[diagnostic::do_not_recommend]
impl<F: Fn(Tx) -> Fut, Fut> Body<Fut> for F {}

/// A transaction with options, made by [`Stm::transaction`](crate::Stm::transaction).
///
/// # Examples
/// With an application's own error type, and a deadline:
/// ```
/// # use std::time::Duration;
/// # use avout_core::{Error, Stm};
/// #[derive(Debug)]
/// enum BankError {
///     Overdrawn { balance: i64 },
///     State(Error),
/// }
///
/// impl From<Error> for BankError {
///     fn from(error: Error) -> Self {
///         Self::State(error)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), BankError> {
/// # let local = avout_local::Local::new();
/// # let stm = Stm::new(local.coordinator(), local.store());
/// let account = stm.create_ref("/account", 100_i64).await?;
/// let withdraw = async |amount: i64| {
///     stm.transaction()
///         .deadline(Duration::from_secs(2))
///         .dosync(async |tx| match tx.get(&account).await? {
///             balance if balance < amount => Err(BankError::Overdrawn { balance }),
///             balance => Ok(tx.set(&account, balance - amount).await?),
///         })
///         .await
/// };
/// withdraw(70).await?;
/// assert!(matches!(withdraw(70).await, Err(BankError::Overdrawn { balance: 30 })));
/// # Ok(()) }
/// ```
#[must_use = "a transaction does nothing until dosync is called"]
pub struct Transaction<'a> {
    engine: &'a Arc<Engine>,
    options: Options,
}

impl<'a> Transaction<'a> {
    pub(super) fn new(engine: &'a Arc<Engine>) -> Self {
        Self { engine, options: Options::new(&engine.config) }
    }

    /// How it is protected from other transactions; [`Isolation::Serializable`] by default.
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.options.isolation = isolation;
        self
    }

    /// How long it may take in all, including waiting and running again. A hundred years and more: no limit.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.options.deadline = Some(deadline);
        self
    }

    /// Removes the time limit, as for a worker that waits for work.
    pub fn no_deadline(mut self) -> Self {
        self.options.deadline = None;
        self
    }

    /// How many attempts it may make.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.options.max_attempts = Some(attempts);
        self
    }

    /// A name for the `tracing` span.
    pub fn label(mut self, label: impl Into<Cow<'static, str>>) -> Self {
        self.options.label = label.into();
        self
    }

    /// Calls `f` once the transaction has committed, after the hooks of its last attempt.
    pub fn on_commit(mut self, f: impl FnOnce(Point) + Send + 'static) -> Self {
        self.options.on_commit.push(Box::new(f));
        self
    }

    /// Calls `f` if the transaction ends with an error, unless its outcome is unknown.
    pub fn on_abort(mut self, f: impl FnOnce() + Send + 'static) -> Self {
        self.options.on_abort.push(Box::new(f));
        self
    }

    /// Runs it, as [`Stm::dosync`](crate::Stm::dosync) does, with any error type that an [`Error`] can become.
    ///
    /// If the body returns an `Err` the transaction ends and nothing is written, unless the attempt was lost: then the
    /// body is run again.
    ///
    /// # Errors
    /// The body's own, and those of [`Stm::dosync`](crate::Stm::dosync).
    pub async fn dosync<T, E, F, Fut>(self, body: F) -> Result<T, E>
    where
        E: From<Error>,
        F: Body<Fut>,
        Fut: Future<Output = Result<T, E>>,
    {
        let span = tracing::debug_span!("dosync", label = %self.options.label);
        run(self.engine, self.options, |tx| body(Tx(tx))).instrument(span).await
    }
}

impl std::fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("isolation", &self.options.isolation)
            .field("deadline", &self.options.deadline)
            .field("max_attempts", &self.options.max_attempts)
            .field("label", &self.options.label)
            .finish_non_exhaustive()
    }
}
