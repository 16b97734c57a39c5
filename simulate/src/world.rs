use std::collections::BTreeSet;
use std::fmt;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use avout_core::StmBuilder;
use avout_core::backend::Coordinator;
use avout_core::protocol::Realm;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::knobs::Knobs;
use crate::records::Records;
use crate::sessions::Alive;
use crate::values::Values;

/// How long faults go on while clients still run.
const FAULTY: Duration = Duration::from_secs(30);
/// How long clients may take after the last fault.
const HEALED: Duration = Duration::from_secs(600);

pub(crate) type Configure = Arc<dyn Fn(StmBuilder) -> StmBuilder + Send + Sync>;
/// What a test changes of the clients and of their way to the coordinator.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    pub(crate) configure: Option<Configure>,
    pub(crate) clocks_ahead: bool,
    pub(crate) wrap: Option<Wrap>,
}

pub(crate) type Wrap = Arc<dyn Fn(Arc<dyn Coordinator>) -> Arc<dyn Coordinator> + Send + Sync>;

/// What of a schedule is left out, to find the shortest one that still fails.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    pub(crate) parts_off: BTreeSet<usize>,
    pub(crate) faults_off: BTreeSet<usize>,
    /// Faults from this one on are left out.
    pub(crate) fault_limit: Option<usize>,
}

/// One simulated world: a coordinator, two stores, a network that loses and delays, and clients that
/// are killed and stopped. Its seed decides everything that happens in it.
///
/// It is a cheap handle.
#[derive(Clone)]
pub struct World(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    seed: u64,
    pub(crate) knobs: Knobs,
    limits: Limits,
    begun: Instant,
    healed: AtomicBool,
    ids: AtomicU64,
    pub(crate) clients: AtomicUsize,
    troubles: AtomicUsize,
    chance: Mutex<Chance>,
    pub(crate) records: Arc<Records>,
    pub(crate) stores: [Arc<Values>; 2],
    pub(crate) sessions: Arc<Alive>,
    pub(crate) changes: Changes,
    /// What ends the clients that run ahead of time.
    pub(crate) ahead: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    pub(crate) tasks: Mutex<JoinSet<()>>,
    late: Mutex<JoinSet<()>>,
}

/// What is drawn and told as the schedule goes.
struct Chance {
    rng: StdRng,
    faults: usize,
    parts: usize,
    outages: Vec<(Duration, Duration)>,
    violations: Vec<String>,
    story: Option<Vec<String>>,
}

/// What a schedule had, once it is over.
#[derive(Default)]
pub(crate) struct Course {
    pub(crate) faults: usize,
    pub(crate) parts: usize,
    pub(crate) violations: Vec<String>,
    pub(crate) story: Vec<String>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl World {
    /// A new world. It belongs to the runtime that this is called in, whose time is paused.
    pub(crate) fn new(seed: u64, limits: Limits, telling: bool, changes: Changes) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let knobs = Knobs::draw(&mut rng);
        let records = Arc::new(Records::new(knobs.coordinator.unique_revisions));
        let chance = Chance {
            rng,
            faults: 0,
            parts: 0,
            outages: Vec::new(),
            violations: Vec::new(),
            story: telling.then(Vec::new),
        };
        let world = Self(Arc::new(Inner {
            seed,
            limits,
            begun: Instant::now(),
            healed: AtomicBool::new(false),
            ids: AtomicU64::new(1),
            clients: AtomicUsize::new(0),
            troubles: AtomicUsize::new(0),
            chance: Mutex::new(chance),
            records,
            stores: [1, 2].map(|number| Arc::new(Values::new(Realm::new(number)))),
            sessions: Arc::default(),
            changes,
            ahead: Mutex::default(),
            tasks: Mutex::default(),
            late: Mutex::default(),
            knobs,
        }));
        world.tell(|| format!("{:?}", world.0.knobs));
        for (from, until) in world.0.knobs.outages.clone() {
            if world.count_fault() {
                world.tell(|| format!("an outage will last from {from:?} to {until:?}"));
                lock(&world.0.chance).outages.push((from, until));
            }
        }
        world
    }

    /// The seed that decides everything.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A number drawn from the schedule's seed, from 0 and below `limit`.
    ///
    /// # Panics
    /// If `limit` is 0.
    pub fn draw(&self, limit: u64) -> u64 {
        lock(&self.0.chance).rng.random_range(0..limit)
    }

    /// Whether something of this probability happens.
    pub fn chance(&self, probability: f64) -> bool {
        probability > 0.0 && lock(&self.0.chance).rng.random_bool(probability)
    }

    /// Asks whether the next part of the test is to be done. It is, but for when the shortest failing schedule is sought. A
    /// test that asks before each transaction gets a shorter story.
    pub fn wants_part(&self) -> bool {
        let mut chance = lock(&self.0.chance);
        chance.parts += 1;
        !self.0.limits.parts_off.contains(&(chance.parts - 1))
    }

    /// Adds a line to the story that a failure prints.
    pub fn note(&self, line: impl fmt::Display) {
        self.tell(|| line.to_string());
    }

    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        if lock(&self.0.chance).story.is_none() {
            return;
        }
        let line = format!("{:>6} ms  {}", self.now().as_millis(), line());
        lock(&self.0.chance).story.iter_mut().for_each(|story| story.push(line.clone()));
    }

    /// Reports something that must never happen. The schedule fails with the first one.
    pub(crate) fn violation(&self, what: String) {
        lock(&self.0.chance).violations.push(what);
    }

    /// The time since the beginning.
    pub fn now(&self) -> Duration {
        self.0.begun.elapsed()
    }

    /// Whether a client's clock may have run ahead of those of the others.
    pub(crate) fn has_clocks_ahead(&self) -> bool {
        self.0.changes.clocks_ahead && self.0.knobs.clocks_ahead > 0.0
    }

    /// Whether faults are over.
    pub fn is_healed(&self) -> bool {
        self.0.healed.load(Ordering::Relaxed)
    }

    /// Ends all faults: from now on requests arrive and are answered, and no client is killed. What is under way and late
    /// still is.
    pub fn heal(&self) {
        if !self.0.healed.swap(true, Ordering::Relaxed) {
            self.tell(|| "all faults are over".to_owned());
            for end in std::mem::take(&mut *lock(&self.0.ahead)) {
                end();
            }
        }
    }

    /// Waits until all clients have ended, ending all faults after half a minute of the simulated time, and until no
    /// request is on its way any more.
    ///
    /// # Panics
    /// If a client panicked, or if one has not ended long after the last fault: it is stuck.
    pub async fn finish(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.0.tasks));
        let healed = Instant::now() + FAULTY;
        join(&mut tasks, healed).await;
        self.heal();
        join(&mut tasks, Instant::now() + HEALED).await;
        assert!(tasks.is_empty(), "{} clients are stuck", tasks.len());
        self.settle().await;
    }

    /// Waits until no request is on its way any more.
    pub(crate) async fn settle(&self) {
        loop {
            let mut late = std::mem::take(&mut *lock(&self.0.late));
            if late.is_empty() {
                return;
            }
            while late.join_next().await.is_some() {}
        }
    }

    /// Something that happens later, whoever asked for it.
    pub(crate) fn later(&self, after: Duration, what: impl FnOnce() + Send + 'static) {
        if tokio::runtime::Handle::try_current().is_ok() {
            lock(&self.0.late).spawn(async move {
                tokio::time::sleep(after).await;
                what();
            });
        }
    }

    pub(crate) fn knobs(&self) -> &Knobs {
        &self.0.knobs
    }

    pub(crate) fn records(&self) -> &Arc<Records> {
        &self.0.records
    }

    pub(crate) fn stores(&self) -> &[Arc<Values>; 2] {
        &self.0.stores
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.0.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Draws whether a fault of this probability happens now.
    pub(crate) fn fault(&self, probability: f64) -> bool {
        !self.is_healed() && self.chance(probability) && self.count_fault()
    }

    /// Numbers a fault, and says whether it is to happen.
    pub(crate) fn count_fault(&self) -> bool {
        let limits = &self.0.limits;
        let mut chance = lock(&self.0.chance);
        let number = chance.faults;
        chance.faults += 1;
        limits.fault_limit.is_none_or(|limit| number < limit) && !limits.faults_off.contains(&number)
    }

    /// Counts a request that went wrong, a client that was killed or a transaction that was given up.
    pub(crate) fn count_trouble(&self) {
        self.0.troubles.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn troubles(&self) -> usize {
        self.0.troubles.load(Ordering::Relaxed)
    }

    /// When the outage ends that there is now.
    pub(crate) fn outage(&self) -> Option<Duration> {
        if self.is_healed() {
            return None;
        }
        let now = self.now();
        let chance = lock(&self.0.chance);
        chance
            .outages
            .iter()
            .filter(|(from, until)| (*from..*until).contains(&now))
            .map(|(_, until)| *until - now)
            .max()
    }

    /// A duration in whole milliseconds, below one more than `longest`.
    pub(crate) fn draw_delay(&self, longest: Duration) -> Duration {
        match u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) {
            0 => Duration::ZERO,
            longest => Duration::from_millis(self.draw(longest + 1)),
        }
    }

    pub(crate) fn course(&self) -> Course {
        let mut chance = lock(&self.0.chance);
        Course {
            faults: chance.faults,
            parts: chance.parts,
            violations: std::mem::take(&mut chance.violations),
            story: chance.story.take().unwrap_or_default(),
        }
    }
}

async fn join(tasks: &mut JoinSet<()>, deadline: Instant) {
    while let Ok(Some(ended)) = timeout_at(deadline, tasks.join_next()).await {
        if let Err(error) = ended
            && let Ok(panic) = error.try_into_panic()
        {
            resume_unwind(panic);
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("seed", &self.0.seed).finish_non_exhaustive()
    }
}
