//! Operations of their own inside the body of a transaction, which are refused.

use crate::error::{Error, ErrorKind, Result};

tokio::task_local! {
    /// Set while the body of a transaction is polled.
    static IN_BODY: ();
}

/// Polls the body of a transaction.
pub(super) fn in_body<F: Future>(body: F) -> impl Future<Output = F::Output> {
    IN_BODY.scope((), body)
}

/// Refuses an operation of its own inside the body of a transaction: it would neither see the
/// transaction's writes nor be undone with them.
pub(super) fn refuse_nested(operation: &'static str) -> Result<()> {
    if IN_BODY.try_with(|()| ()).is_err() {
        return Ok(());
    }
    let message = "called inside the body of a transaction: use the Tx that the body was given";
    Err(Error::new(ErrorKind::Nested, message).during(operation))
}
