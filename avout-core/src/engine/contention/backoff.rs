use std::hint;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Below this a pause is a yield: timers are no finer than a millisecond.
const FINEST: Duration = Duration::from_micros(500);
const LONGEST: Duration = Duration::from_secs(1);
/// How long a loser keeps out of the way at most, in memory: many commits' time, and no longer than a task may keep
/// its thread.
const ASIDE: Duration = Duration::from_micros(100);
/// The same for one that only reads, and so takes nothing away from those it races with: some commits' time.
const READER_ASIDE: Duration = Duration::from_micros(8);
/// How often the pause after a loss is doubled at most: that many commits' time is room for all who may contend.
const MOST_DOUBLINGS: u32 = 8;

/// How long to wait before the next try: exponential with full jitter (Brooker, "Exponential Backoff And
/// Jitter", 2015), scaled to the time that a commit takes.
pub(in crate::engine) struct Backoff {
    random: Mutex<StdRng>,
    /// A moving average, in nanoseconds.
    commit_time: AtomicU64,
    /// The longest pauses in an outage: the first one, and any.
    outage: (Duration, Duration),
}

impl Backoff {
    /// `in_process`: commits take about a microsecond, and are not measured where the coordinator answers at once.
    pub(crate) fn new(seed: Option<u64>, in_process: bool, outage: (Duration, Duration)) -> Self {
        let random = StdRng::seed_from_u64(seed.unwrap_or_else(rand::random));
        let commit_time = AtomicU64::new(if in_process { 1_000 } else { 100_000 });
        Self { random: Mutex::new(random), commit_time, outage }
    }

    /// Takes in how long a commit took.
    pub(crate) fn measured(&self, commit: Duration) {
        let new = u64::try_from(commit.as_nanos()).unwrap_or(u64::MAX);
        // A lost update among threads loses one sample of an average.
        let old = self.commit_time.load(Ordering::Relaxed);
        self.commit_time.store(old - old / 8 + new / 8, Ordering::Relaxed);
    }

    /// How long a commit takes, on average.
    pub(crate) fn commit_time(&self) -> Duration {
        Duration::from_nanos(self.commit_time.load(Ordering::Relaxed))
    }

    /// The pause after losing for the `lost`-th time; zero means to yield only.
    pub(crate) fn contention(&self, lost: u32) -> Duration {
        let pause = self.jitter(self.commit_time(), lost.min(MOST_DOUBLINGS), LONGEST);
        if pause < FINEST { Duration::ZERO } else { pause }
    }

    /// Keeps out of the way of who came first, where a commit takes about a microsecond: nothing but to spin is as
    /// short. Two who race lose to each other again and again otherwise, and what they change goes from one processor
    /// to the other each time; so each works by itself for some time.
    pub(crate) fn stand_aside(&self, wrote: bool) {
        let until = Instant::now() + self.jitter(if wrote { ASIDE } else { READER_ASIDE }, 0, LONGEST);
        while Instant::now() < until {
            hint::spin_loop();
        }
    }

    /// The pause after the store was unavailable for the `tries`-th time.
    pub(crate) fn outage(&self, tries: u32) -> Duration {
        let (first, longest) = self.outage;
        Duration::from_millis(1) + self.jitter(first, tries, longest)
    }

    /// A time of once to twice this.
    pub(crate) fn spread(&self, time: Duration) -> Duration {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        time.saturating_add(time.mul_f64(random.random::<f64>()))
    }

    fn jitter(&self, unit: Duration, doublings: u32, longest: Duration) -> Duration {
        let ceiling = unit.saturating_mul(1 << doublings.min(16)).min(longest);
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        ceiling.mul_f64(random.random::<f64>())
    }
}
