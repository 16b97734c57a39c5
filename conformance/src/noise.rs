use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::law::{Ctx, Failure};
use crate::stm::bench::client;

/// How often the store is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often something is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(25);

/// Measures how slow the machine and the store are just now, so that a law of time fails for no other's load.
pub(crate) struct Noise {
    times: Arc<Mutex<Times>>,
    task: JoinHandle<()>,
}

struct Times {
    longest: Duration,
    /// When the request under way was due.
    due: Instant,
}

impl Times {
    fn answered(&mut self, every: Duration) {
        self.longest = self.longest.max(self.due.elapsed());
        self.due = Instant::now() + every;
    }
}

impl Noise {
    /// Begins to look at the store again and again.
    pub(crate) async fn new(ctx: &Ctx) -> Result<Self, Failure> {
        let coordinator = ctx.coordinator().await?;
        let look = move || {
            let coordinator = Arc::clone(&coordinator);
            async move { drop(coordinator.read(&[], None).await) }
        };
        Ok(Self::of(LOOK_EVERY, look))
    }

    /// Begins to commit again and again, which takes longer than a look where disks and other servers take part.
    pub(crate) async fn of_commits(ctx: &Ctx) -> Result<Self, Failure> {
        let noise = client(ctx).await?.create_ref("/noise", 0_u8).await?;
        let commit = move || {
            let noise = noise.clone();
            async move { drop(noise.set(0).await) }
        };
        Ok(Self::of(COMMIT_EVERY, commit))
    }

    fn of<F>(every: Duration, request: impl Fn() -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send,
    {
        let times = Arc::new(Mutex::new(Times { longest: Duration::ZERO, due: Instant::now() }));
        let task = tokio::spawn({
            let times = Arc::clone(&times);
            async move {
                loop {
                    request().await;
                    lock(&times).answered(every);
                    tokio::time::sleep(every).await;
                }
            }
        });
        Self { times, task }
    }

    /// The longest time that a request has taken, the one under way among them.
    pub(crate) fn longest(&self) -> Duration {
        let times = lock(&self.times);
        times.longest.max(times.due.elapsed())
    }

    /// How much later than it should something may be that takes some requests: at most so much.
    pub(crate) fn allowance(&self) -> Duration {
        (self.longest() + LOOK_EVERY) * 8
    }
}

fn lock(times: &Mutex<Times>) -> MutexGuard<'_, Times> {
    times.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Noise {
    fn drop(&mut self) {
        self.task.abort();
    }
}
