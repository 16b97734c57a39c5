use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};

/// Waits for `future` until the deadline. A timer is made only if there is something to wait for: in memory there is
/// not, and the timer would cost more than the rest.
pub(super) async fn by<F: Future>(deadline: Option<Instant>, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
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
