use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use crate::backend::time::timeout_at;

/// Whatever takes longer has no end: clocks cannot add much more.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// How long after the deadline a commit in flight is still waited for, and after that its outcome is looked for.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The deadline that lies this far ahead; `None` if there is none, or none that a clock could tell.
pub(crate) fn deadline(from: Instant, after: Option<Duration>) -> Option<Instant> {
    after.filter(|after| *after < FOREVER).map(|after| from + after)
}

/// The last of several deadlines; `None` if one of them is no deadline.
pub(crate) fn latest(deadlines: impl IntoIterator<Item = Option<Instant>>) -> Option<Instant> {
    deadlines.into_iter().reduce(|one, other| Some(one?.max(other?))).flatten()
}

/// Waits for `future` until the deadline. A timer is made only if there is something to wait for: in memory there is
/// not, and the timer would cost more than the rest.
///
/// The future stays where its caller has it: one that is handed over is moved, and has room twice.
pub(crate) async fn with_deadline<F: Future + ?Sized>(
    deadline: Option<Instant>,
    mut future: Pin<&mut F>,
) -> Result<F::Output, Elapsed> {
    let Some(deadline) = deadline else {
        return Ok(future.await);
    };
    let first = poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => Poll::Ready(None),
    });
    match first.await {
        Some(output) => Ok(output),
        None => timeout_at(deadline, future).await,
    }
}
