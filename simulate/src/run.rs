use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use avout_core::backend::Coordinator;
use avout_core::{Result, StmBuilder};
use futures_util::FutureExt as _;

use crate::World;
use crate::shrink::shrink;
use crate::world::{Changes, Course, Limits};

/// How long a schedule may take, in simulated time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Many schedules of one test.
///
/// # Examples
/// ```
/// use avout_simulate::{Simulation, workload};
///
/// Simulation::new(100).threads(2).configure(|stm| stm.max_attempts(50)).run(workload);
/// ```
#[derive(Clone)]
#[must_use = "a simulation does nothing until it is run"]
pub struct Simulation {
    first: u64,
    schedules: u64,
    threads: usize,
    only: Option<String>,
    changes: Changes,
}

/// The first schedule that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What went wrong in it.
    pub message: String,
    /// What went wrong in the shortest schedule of this seed that was found to fail.
    pub shortest: String,
    /// The requests and faults of that one, in order.
    pub story: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "schedule {} failed: {}", self.seed, self.message)?;
        writeln!(f, "the shortest way to it:")?;
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "  {}", self.shortest)?;
        write!(f, "(AVOUT_SEED={} runs this schedule alone)", self.seed)
    }
}

impl Simulation {
    /// This many schedules, with the seeds from 0 on, or from [`first_seed`](Self::first_seed).
    pub fn new(schedules: u64) -> Self {
        Self { first: 0, schedules, threads: 1, only: None, changes: Changes::default() }
    }

    /// Begins with this seed.
    pub fn first_seed(mut self, seed: u64) -> Self {
        self.first = seed;
        self
    }

    /// Spreads the schedules over this many threads. Each schedule has one.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// Sets each client up as the test wants it.
    pub fn configure(mut self, f: impl Fn(StmBuilder) -> StmBuilder + Send + Sync + 'static) -> Self {
        self.changes.configure = Some(Arc::new(f));
        self
    }

    /// Has the clocks of some clients run ahead, in some schedules: they take the living for dead, as one does that sees others stand
    /// still. They end with the faults.
    pub fn clocks_ahead(mut self) -> Self {
        self.changes.clocks_ahead = true;
        self
    }

    /// Puts something of the test's own between each client and the simulated coordinator.
    ///
    /// It must follow no clock but tokio's and draw nothing by chance, or seeds will not repeat.
    pub fn wrap(mut self, f: impl Fn(Arc<dyn Coordinator>) -> Arc<dyn Coordinator> + Send + Sync + 'static) -> Self {
        self.changes.wrap = Some(Arc::new(f));
        self
    }

    /// Looks only for failures whose message begins like this.
    pub fn only(mut self, message: impl Into<String>) -> Self {
        self.only = Some(message.into());
        self
    }

    /// Runs the test. `AVOUT_SCHEDULES` overrides how many schedules there are, and `AVOUT_SEED` runs that one alone.
    ///
    /// # Panics
    /// With the [`Failure`], if a schedule fails.
    pub fn run<F, Fut>(mut self, test: F)
    where
        F: Fn(World) -> Fut + Send + Sync,
        Fut: Future<Output = Result<()>>,
    {
        if let Some(schedules) = from_env("AVOUT_SCHEDULES") {
            self.schedules = schedules;
        }
        let failed = match from_env("AVOUT_SEED") {
            Some(seed) => self.find_among(seed..seed + 1, &test),
            None => self.find(&test),
        };
        if let Some(failure) = failed {
            panic!("{failure}");
        }
    }

    /// Runs the test until a schedule fails, whatever the environment says. `None`: none did.
    pub fn find<F, Fut>(&self, test: F) -> Option<Failure>
    where
        F: Fn(World) -> Fut + Send + Sync,
        Fut: Future<Output = Result<()>>,
    {
        self.find_among(self.first..self.first + self.schedules, &test)
    }

    /// The story of one schedule, whether it fails or not.
    pub fn story<F, Fut>(&self, seed: u64, test: F) -> Vec<String>
    where
        F: Fn(World) -> Fut + Send + Sync,
        Fut: Future<Output = Result<()>>,
    {
        let (course, failed) = self.schedule(seed, &Limits::default(), true, &test);
        course.story.into_iter().chain(failed).collect()
    }

    fn find_among<F, Fut>(&self, seeds: std::ops::Range<u64>, test: &F) -> Option<Failure>
    where
        F: Fn(World) -> Fut + Send + Sync,
        Fut: Future<Output = Result<()>>,
    {
        let next = AtomicU64::new(seeds.start);
        let first: Mutex<Option<(u64, String)>> = Mutex::new(None);
        let failed = || first.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                scope.spawn(|| {
                    // Seeds are taken in order, so whatever is below a failed one is under way.
                    while failed().is_none() {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end {
                            return;
                        }
                        if let (_, Some(message)) = self.schedule(seed, &Limits::default(), false, test) {
                            let mut first = failed();
                            if first.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *first = Some((seed, message));
                            }
                        }
                    }
                });
            }
        });
        let (seed, message) = first.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        // A shorter schedule that fails in another way would be another story.
        let kind = message.split_inclusive(':').next().unwrap_or_default();
        let same = Self { only: Some(self.only.clone().unwrap_or_else(|| kind.to_owned())), ..self.clone() };
        let limits = shrink(|limits| same.schedule(seed, limits, false, test));
        let (course, shortest) = same.schedule(seed, &limits, true, test);
        let shortest = shortest.unwrap_or_else(|| "it did not fail again".to_owned());
        Some(Failure { seed, message, shortest, story: course.story })
    }

    /// Runs one schedule, and says what went wrong.
    fn schedule<F, Fut>(&self, seed: u64, limits: &Limits, telling: bool, test: &F) -> (Course, Option<String>)
    where
        F: Fn(World) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime with no input or output needs nothing of the system");
        let (course, ended) = runtime.block_on(async {
            let world = World::new(seed, limits.clone(), telling, self.changes.clone());
            let test = async { test(world.clone()).await };
            let ended = tokio::time::timeout(LONGEST, AssertUnwindSafe(test).catch_unwind()).await;
            (world.course(), ended)
        });
        let ended = match ended {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(format!("unexpected error: {:?}: {}", error.kind(), told(&error))),
            Ok(Err(panic)) => Some(text_of(&*panic)),
            Err(_) => Some("stuck: the test waits for what does not happen".to_owned()),
        };
        let wanted = |message: &&String| self.only.as_ref().is_none_or(|only| message.starts_with(only));
        let failed = ended.iter().chain(&course.violations).find(wanted).cloned();
        (course, failed)
    }
}

impl fmt::Debug for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("schedules", &self.schedules).field("threads", &self.threads).finish()
    }
}

fn from_env(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, and not {value:?}")))
}

/// An error with its sources.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    text
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => "a panic with no text".to_owned(),
    }
}
