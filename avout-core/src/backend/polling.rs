use std::time::Duration;

use async_trait::async_trait;

use super::time::sleep;
use super::{Wake, Watcher};
use crate::error::Result;
use crate::protocol::Revision;

/// A watcher for a store that does not report changes: it looks at the current revision, 10 ms after a change and then
/// less and less often, down to once a second.
///
/// # Examples
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use avout_core::Revision;
/// use avout_core::backend::{Polling, Wake, Watcher as _};
///
/// # futures_executor::block_on(async {
/// static ROW: AtomicU64 = AtomicU64::new(1);
/// let look = || async { Ok(Some(Revision::number(ROW.load(Ordering::SeqCst).into()))) };
/// let mut watcher = Polling::begin(look).await?;
/// ROW.store(2, Ordering::SeqCst);
/// assert_eq!(watcher.changed().await?, Wake::Changed);
/// # avout_core::Result::<()>::Ok(()) }).unwrap();
/// ```
pub struct Polling<L> {
    look: L,
    seen: Option<Revision>,
    pause: Duration,
}

/// The pause before the first look after a change, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl<L, F> Polling<L>
where
    L: Fn() -> F + Send,
    F: Future<Output = Result<Option<Revision>>> + Send,
{
    /// Looks for the first time: later changes wake. `look` reads the current revision, `None` where there is no state.
    ///
    /// # Errors
    /// The error of the look. Errors of later looks come from [`changed`](Watcher::changed), and the caller may wait
    /// again.
    pub async fn begin(look: L) -> Result<Self> {
        let seen = look().await?;
        Ok(Self { look, seen, pause: FIRST_PAUSE })
    }
}

#[async_trait]
impl<L, F> Watcher for Polling<L>
where
    L: Fn() -> F + Send,
    F: Future<Output = Result<Option<Revision>>> + Send,
{
    async fn changed(&mut self) -> Result<Wake> {
        loop {
            sleep(self.pause).await;
            let now = (self.look)().await?;
            if now != self.seen {
                (self.seen, self.pause) = (now, FIRST_PAUSE);
                return Ok(Wake::Changed);
            }
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }
}

impl<L> std::fmt::Debug for Polling<L> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Polling").field("seen", &self.seen).field("pause", &self.pause).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::time::Instant;

    use super::*;
    use crate::error::{Error, ErrorKind};

    /// Looks become rare, and are frequent again after a change. Neither an error nor a dropped wait loses a change.
    #[tokio::test(start_paused = true)]
    async fn looks_become_rare_and_lose_nothing() {
        let (now, looks) = (AtomicU64::new(0), AtomicU64::new(0));
        let look = || async {
            looks.fetch_add(1, Ordering::SeqCst);
            match now.load(Ordering::SeqCst) {
                0 => Ok(None),
                u64::MAX => Err(Error::new(ErrorKind::Unavailable, "not now")),
                number => Ok(Some(Revision::number(number.into()))),
            }
        };
        let mut watcher = Polling::begin(look).await.expect("a first look");
        for _ in 0..5 {
            tokio::time::timeout(Duration::from_secs(60), watcher.changed()).await.expect_err("nothing changes");
        }
        let seen = looks.load(Ordering::SeqCst);
        assert!((250..320).contains(&seen), "{seen} looks in 300 seconds");
        now.store(u64::MAX, Ordering::SeqCst);
        watcher.changed().await.expect_err("an error");
        for (number, longest) in [(1, LONGEST_PAUSE), (2, FIRST_PAUSE), (0, FIRST_PAUSE)] {
            now.store(number, Ordering::SeqCst);
            let begun = Instant::now();
            assert_eq!(watcher.changed().await.expect("a change"), Wake::Changed);
            assert!(begun.elapsed() <= longest + Duration::from_millis(1), "{:?}", begun.elapsed());
        }
    }
}
