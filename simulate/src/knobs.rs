use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// What is the same all through one schedule: drawn from its seed.
#[derive(Clone, Debug)]
pub(crate) struct Knobs {
    /// The longest way of a request or a reply.
    pub(crate) latency: Duration,
    /// How often a process that could go on lets others go first.
    pub(crate) yields: f64,
    /// How often a request meets a fault.
    pub(crate) faults: f64,
    /// How often a process stops for a while where it could go on.
    pub(crate) pauses: f64,
    /// How often a client is killed, each time it is started.
    pub(crate) crashes: f64,
    /// How often a watch loses its connection.
    pub(crate) lost_watches: f64,
    /// When nothing answers: from and until, since the beginning.
    pub(crate) outages: Vec<(Duration, Duration)>,
    /// How long a client's operations may take.
    pub(crate) deadline: Option<Duration>,
    pub(crate) cache_bytes: u64,
    pub(crate) session_ttl: Duration,
    /// How often a client's clock runs ahead, each time it is started.
    pub(crate) clocks_ahead: f64,
    pub(crate) coordinator: CoordinatorKnobs,
}

/// What kind of a coordinator it is.
#[derive(Clone, Debug)]
pub(crate) struct CoordinatorKnobs {
    pub(crate) in_process: bool,
    pub(crate) max_inline: usize,
    pub(crate) definite_replies: bool,
    pub(crate) unique_revisions: bool,
    pub(crate) native_snapshots: bool,
    /// How often a conflict carries fresh entries.
    pub(crate) fresh: f64,
    /// It has a way of its own to tell who is alive: how many times their time to live sessions last.
    pub(crate) sessions: Option<f64>,
}

fn pick<T: Clone>(rng: &mut StdRng, of: &[T]) -> T {
    of[rng.random_range(0..of.len())].clone()
}

fn millis(rng: &mut StdRng, upto: u64) -> Duration {
    Duration::from_millis(rng.random_range(0..=upto))
}

impl Knobs {
    /// Whether nothing goes wrong, and requests are so quick that no session is late.
    pub(crate) fn are_calm(&self) -> bool {
        let rates = [self.faults, self.pauses, self.crashes, self.lost_watches, self.clocks_ahead];
        let quick = self.latency * 100 <= self.session_ttl;
        self.outages.is_empty() && rates.iter().all(|rate| *rate == 0.0) && quick
    }

    pub(crate) fn draw(rng: &mut StdRng) -> Self {
        let calm = rng.random_bool(0.15);
        let mut some = |of: &[f64]| if calm { 0.0 } else { pick(rng, of) };
        let faults = some(&[0.0, 0.02, 0.05, 0.15]);
        let (pauses, crashes) = (some(&[0.0, 0.0, 0.002, 0.02]), some(&[0.0, 0.3, 0.6]));
        let lost_watches = some(&[0.0, 0.1, 0.4]);
        let mut outages = Vec::new();
        while !calm && outages.len() < 2 && rng.random_bool(0.2) {
            let from = millis(rng, 300);
            outages.push((from, from + millis(rng, 4000)));
        }
        let latency = pick(rng, &[0, 1, 3, 10, 40]);
        Self {
            latency: Duration::from_millis(latency),
            yields: pick(rng, &[0.0, 0.1, 0.4]),
            faults,
            pauses,
            crashes,
            lost_watches,
            outages,
            deadline: pick(rng, &[None, Some(Duration::from_millis(700)), Some(Duration::from_secs(10))]),
            cache_bytes: pick(rng, &[0, 1 << 20]),
            coordinator: CoordinatorKnobs {
                in_process: rng.random_bool(0.1),
                max_inline: pick(rng, &[0, 24, 40, 16 * 1024]),
                definite_replies: rng.random_bool(0.35),
                unique_revisions: rng.random_bool(0.5),
                native_snapshots: rng.random_bool(0.2),
                fresh: pick(rng, &[0.0, 0.5, 1.0]),
                sessions: rng.random_bool(0.3).then(|| pick(rng, &[1.0, 1.9])),
            },
            // One that is shorter than some requests take would be lost again and again.
            session_ttl: Duration::from_millis(pick(rng, &[400, 1000, 3000, 10_000]).max(latency * 25)),
            clocks_ahead: if calm { 0.0 } else { pick(rng, &[0.0, 0.0, 0.0, 0.3]) },
        }
    }
}
