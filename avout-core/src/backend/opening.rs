use std::time::Duration;

use tokio::time::Instant;

use super::time::sleep;
use crate::error::{ErrorKind, Result};

/// Pauses between attempts: each is up to twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// Opens a store that may be out of reach for a moment: retries for this long while it is
/// [`Unavailable`](ErrorKind::Unavailable). All other errors are returned at once, since they do not pass.
///
/// # Errors
/// The last error of `open`. An attempt that has begun in time is waited for, so that it tells why it failed.
///
/// # Cancel safety
/// As `open`.
pub async fn open_patiently<T, Fut>(patience: Duration, open: impl Fn() -> Fut) -> Result<T>
where
    Fut: Future<Output = Result<T>>,
{
    let until = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match open().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => error,
            done => return done,
        };
        // Clients that were cut off together should not all come back at the same time.
        let wait = pause.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        if Instant::now() + wait >= until {
            return Err(error);
        }
        tracing::debug!(%error, ?wait, "the store cannot be opened yet, trying again");
        sleep(wait).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::Error;

    /// Only errors that may pass are retried, and no longer than was asked for.
    #[tokio::test(start_paused = true)]
    async fn only_outages_are_waited_for() {
        let tries = Cell::new(0);
        let failing = |kind: ErrorKind, times: u32| {
            tries.set(0);
            let tries = &tries;
            open_patiently(Duration::from_secs(10), move || async move {
                tries.set(tries.get() + 1);
                if tries.get() <= times { Err(Error::new(kind, "no")) } else { Ok(tries.get()) }
            })
        };
        assert_eq!(failing(ErrorKind::Unavailable, 5).await.ok(), Some(6));
        for kind in [ErrorKind::InvalidInput, ErrorKind::Denied, ErrorKind::Mismatch, ErrorKind::StoreLost] {
            assert_eq!((failing(kind, 5).await.map_err(|error| error.kind()), tries.get()), (Err(kind), 1));
        }
        let begun = Instant::now();
        let error = failing(ErrorKind::Unavailable, u32::MAX).await.expect_err("it never opens");
        let elapsed = begun.elapsed();
        assert!(error.kind() == ErrorKind::Unavailable && tries.get() > 10, "{} tries", tries.get());
        assert!((Duration::from_secs(8)..=Duration::from_secs(10)).contains(&elapsed), "{elapsed:?}");
    }
}
