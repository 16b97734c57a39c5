//! Taking times: meters in the loops that are measured, and rounds made of them.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// What anything here can fail with.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How one round is to be run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) time: Duration,
    /// Every how many operations one is timed. Reading the clock takes about 25 ns, which counts where an operation
    /// takes 200 ns.
    pub(crate) stride: u32,
    /// Whether a task gives way to others before a timed operation. An operation on `local`, or one that only reads, may never
    /// wait, so without this the first tasks would run alone.
    pub(crate) fair: bool,
}

/// Counts and times the operations of one task or thread.
pub(crate) struct Meter {
    histogram: Histogram<u64>,
    end: Instant,
    stride: u32,
    fair: bool,
    until_timed: u32,
    /// Operations that ended in time, a part of one if it went on after the end.
    count: f64,
    timed: Option<Instant>,
    /// When operations were last counted.
    counted: Instant,
    begun: bool,
}

/// Nanoseconds, to 1 %.
fn histogram() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are within the limits of the histogram")
}

impl Meter {
    fn new(begin: Instant, pace: Pace) -> Self {
        Self {
            histogram: histogram(),
            end: begin + pace.time,
            stride: pace.stride,
            fair: pace.fair,
            until_timed: 0,
            count: 0.0,
            timed: None,
            counted: begin,
            begun: false,
        }
    }

    /// Called before each operation: whether there is time for it.
    pub(crate) fn go(&mut self) -> bool {
        let ended = self.timed.take().map(|begun| self.record(begun));
        if self.until_timed == 0 {
            let now = ended.unwrap_or_else(Instant::now);
            self.count_until(now);
            if now >= self.end {
                return false;
            }
            self.timed = Some(now);
            self.until_timed = self.stride;
        }
        self.until_timed -= 1;
        true
    }

    /// The same in a task.
    pub(crate) async fn go_in_turn(&mut self) -> bool {
        if self.fair && self.until_timed == 0 {
            if let Some(begun) = self.timed.take() {
                self.record(begun);
            }
            tokio::task::yield_now().await;
        }
        self.go()
    }

    /// Counts the operations since the last time.
    fn count_until(&mut self, now: Instant) {
        let all = (now - self.counted).as_secs_f64();
        let in_time = (self.end.min(now).saturating_duration_since(self.counted)).as_secs_f64();
        if self.begun && all > 0.0 {
            self.count += f64::from(self.stride) * in_time / all;
        }
        self.begun = true;
        self.counted = now;
    }

    fn record(&mut self, begun: Instant) -> Instant {
        let now = Instant::now();
        let taken = u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX);
        self.histogram.record(taken.max(1)).expect("the histogram grows");
        now
    }
}

/// What came out of one round of one contender.
#[derive(Debug)]
pub(crate) struct Round {
    /// How long operations took, those included that ended after the round's time.
    pub(crate) histogram: Histogram<u64>,
    /// How many ended within that time.
    pub(crate) count: f64,
    pub(crate) time: Duration,
    /// What the client's statistics say, if there is a client.
    pub(crate) effort: Option<Effort>,
    /// Operations in a second that go on beside the measured ones.
    pub(crate) beside: Option<f64>,
}

/// Requests and attempts for each commit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) attempts: f64,
    pub(crate) worst: Option<u32>,
    pub(crate) requests: Option<f64>,
}

/// Runs one round.
pub(crate) type Run = Box<dyn FnMut(Pace) -> Result<Round, Failure>>;

impl Round {
    fn new(meters: impl IntoIterator<Item = Meter>, time: Duration) -> Self {
        let mut round = Self { histogram: histogram(), count: 0.0, time, effort: None, beside: None };
        for meter in meters {
            round.histogram.add(&meter.histogram).expect("the histogram grows");
            round.count += meter.count;
        }
        round
    }

    /// A round of another process, from its counts of times.
    pub(crate) fn from_counts(counts: &[(u64, u64)], count: f64, time: Duration) -> Self {
        let mut histogram = histogram();
        for (value, times) in counts {
            histogram.record_n(*value, *times).expect("the histogram grows");
        }
        Self { histogram, count, time, effort: None, beside: None }
    }

    /// The times that were recorded, each with how often.
    pub(crate) fn counts(&self) -> Vec<(u64, u64)> {
        self.histogram.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value())).collect()
    }

    /// Both rounds as one: they ran at the same time.
    pub(crate) fn beside(mut self, other: &Self) -> Self {
        self.histogram.add(&other.histogram).expect("the histogram grows");
        self.count += other.count;
        self
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.count / self.time.as_secs_f64()
    }

    pub(crate) fn quantile(&self, quantile: f64) -> f64 {
        self.histogram.value_at_quantile(quantile) as f64
    }
}

/// Measures a loop on the thread of the caller.
pub(crate) fn alone(pace: Pace, run: impl FnOnce(&mut Meter) -> Result<(), Failure>) -> Result<Round, Failure> {
    let mut meter = Meter::new(Instant::now(), pace);
    run(&mut meter)?;
    Ok(Round::new([meter], pace.time))
}

/// Measures a loop in each of `count` tasks.
pub(crate) async fn tasks<Fut>(count: usize, pace: Pace, run: impl Fn(usize, Meter) -> Fut) -> Result<Round, Failure>
where
    Fut: Future<Output = Result<Meter, Failure>> + Send + 'static,
{
    let begin = Instant::now();
    let mut running = JoinSet::new();
    for index in 0..count {
        running.spawn(run(index, Meter::new(begin, pace)));
    }
    let mut meters = Vec::with_capacity(count);
    while let Some(meter) = running.join_next().await {
        meters.push(meter??);
    }
    Ok(Round::new(meters, pace.time))
}

/// Measures a loop in each of `count` threads.
pub(crate) fn threads(count: usize, pace: Pace, run: impl Fn(usize, &mut Meter) + Sync) -> Round {
    let begin = Instant::now();
    let run = &run;
    let meters: Vec<Meter> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..count)
            .map(|index| {
                scope.spawn(move || {
                    let mut meter = Meter::new(begin, pace);
                    run(index, &mut meter);
                    meter
                })
            })
            .collect();
        running.into_iter().map(|thread| thread.join().expect("a measured loop does not panic")).collect()
    });
    Round::new(meters, pace.time)
}
