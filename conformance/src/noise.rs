use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::law::{Ctx, Failure};

/// How often the store is looked at.
const EVERY: Duration = Duration::from_millis(5);

/// Measures how slow the machine and the store are just now, so that a law of time fails for no other's load.
pub(crate) struct Noise {
    longest: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Noise {
    /// Begins to look at the store again and again.
    pub(crate) async fn new(ctx: &Ctx) -> Result<Self, Failure> {
        let coordinator = ctx.coordinator().await?;
        let longest = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn({
            let longest = Arc::clone(&longest);
            async move {
                loop {
                    let begun = Instant::now();
                    tokio::time::sleep(EVERY).await;
                    let _ = coordinator.read(&[], None).await;
                    let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
                    longest.fetch_max(took, Ordering::Relaxed);
                }
            }
        });
        Ok(Self { longest, task })
    }

    /// The longest time that a look has taken.
    pub(crate) fn longest(&self) -> Duration {
        Duration::from_micros(self.longest.load(Ordering::Relaxed))
    }

    /// How much later than it should something may be that takes some requests: at most so much.
    pub(crate) fn allowance(&self) -> Duration {
        self.longest() * 8
    }
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.task.abort();
    }
}
