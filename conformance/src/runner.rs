use std::sync::{Arc, OnceLock};
use std::time::Duration;

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::law::{Ctx, Failure, Law, Outcome, elsewhere};
use crate::noise::Noise;
use crate::story::Story;
use crate::{Fixture, laws};

/// How many laws run side by side for each processor, unless the fixture says otherwise.
const AT_ONCE: usize = 4;

/// How often a timed law is tried.
const TRIES: u32 = 6;

/// A request that takes longer than this is no premise of a timed law: sessions in laws live for little more than a second.
const STALL: Duration = Duration::from_millis(100);

/// How a law ended for a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend keeps it.
    Passed,
    /// It does not apply to the backend, for this reason.
    Skipped(String),
    /// The backend breaks it, in this way.
    Failed(String),
}

impl Verdict {
    /// Whether the backend keeps the law.
    pub fn is_passed(&self) -> bool {
        matches!(self, Self::Passed)
    }

    /// How the backend breaks the law; `None` if it does not.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Failed(how) => Some(how),
            Self::Passed | Self::Skipped(_) => None,
        }
    }
}

/// Runs all laws on one backend, as the `main` of a test without the standard harness, and exits.
///
/// The arguments are those of any Rust test; each law is a test named `group::law`.
pub fn run(fixture: impl Fixture) -> ! {
    run_trials([("".to_owned(), Arc::new(fixture) as Arc<dyn Fixture>)], |_| true)
}

/// The same for several backends. The names of tests begin with the backend's: `zk::group::law`.
pub fn run_all(fixtures: Vec<Box<dyn Fixture>>) -> ! {
    run_trials(named(fixtures), |_| true)
}

/// The same for the laws of one group.
pub fn run_group(group: &str, fixtures: Vec<Box<dyn Fixture>>) -> ! {
    run_trials(named(fixtures), |law| law.group == group)
}

fn named(fixtures: Vec<Box<dyn Fixture>>) -> impl Iterator<Item = (String, Arc<dyn Fixture>)> {
    fixtures.into_iter().map(|fixture| (format!("{}::", fixture.name()), Arc::from(fixture)))
}

/// Runs one law, named as in `coordinator::absent_reads_as_none`. It blocks the thread, which must not belong to an async runtime.
///
/// # Panics
/// If there is no law of this name.
pub fn run_law(fixture: impl Fixture, name: &str) -> Verdict {
    let law = laws().find(|law| law.name() == name).unwrap_or_else(|| panic!("there is no law {name}"));
    try_law(&(Arc::new(fixture) as Arc<dyn Fixture>), law)
}

fn run_trials(fixtures: impl IntoIterator<Item = (String, Arc<dyn Fixture>)>, runs: impl Fn(&Law) -> bool) -> ! {
    let (mut trials, mut side_by_side, mut used) = (Vec::new(), None, Vec::new());
    for (prefix, fixture) in fixtures {
        used.push(Arc::clone(&fixture));
        side_by_side = side_by_side.max(fixture.side_by_side());
        let available = Arc::new(OnceLock::new());
        for law in laws().filter(|law| runs(law)) {
            let (fixture, available) = (Arc::clone(&fixture), Arc::clone(&available));
            trials.push(Trial::ignorable_test(format!("{prefix}{}", law.name()), move || {
                let verdict = match available.get_or_init(|| availability(&fixture)) {
                    Ok(()) => known_to_break(&*fixture, law).unwrap_or_else(|| try_law(&fixture, law)),
                    Err(why) => absent(fixture.name(), why, std::env::var("AVOUT_TEST_REQUIRE").ok().as_deref()),
                };
                match verdict {
                    Verdict::Passed => Ok(Completion::Completed),
                    Verdict::Skipped(why) => Ok(Completion::ignored_with(why)),
                    Verdict::Failed(how) => Err(Failed::from(how)),
                }
            }));
        }
    }
    let mut arguments = Arguments::from_args();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    arguments.test_threads = arguments.test_threads.or(side_by_side).or(Some(processors * AT_ONCE));
    let conclusion = libtest_mimic::run(&arguments, trials);
    finish(&used);
    conclusion.exit()
}

/// Ends what the fixtures have started.
fn finish(fixtures: &[Arc<dyn Fixture>]) {
    let runtime = runtime("around-laws");
    let all = async {
        for fixture in fixtures {
            fixture.finish().await;
        }
    };
    // Whoever runs the tests does not wait for a server that does not end.
    let _ = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), all).await });
    runtime.shutdown_background();
}

fn known_to_break(fixture: &dyn Fixture, law: &Law) -> Option<Verdict> {
    let (_, missing) = fixture.breaks().iter().find(|(name, _)| *name == law.name())?;
    Some(Verdict::Skipped(format!("known to be broken: {missing}")))
}

/// The verdict on each law where the backend cannot be tested: a failure if `required` names it, or what its name begins with up to
/// a hyphen.
pub(crate) fn absent(name: &str, why: &str, required: Option<&str>) -> Verdict {
    let why = format!("{name} is not available: {why}");
    let family = name.split('-').next().unwrap_or(name);
    let is_named = |names: &str| names.split(',').map(str::trim).any(|required| required == name || required == family);
    let required = required.is_some_and(is_named);
    if required { Verdict::Failed(format!("{why}, and AVOUT_TEST_REQUIRE names it")) } else { Verdict::Skipped(why) }
}

fn availability(fixture: &Arc<dyn Fixture>) -> Result<(), String> {
    let runtime = runtime("around-laws");
    let limit = Duration::from_secs(30);
    let answer = runtime.block_on(async { tokio::time::timeout(limit, fixture.available()).await });
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

/// A runtime of a law, or of what is done around laws, with this name for its threads.
pub(crate) fn runtime(threads: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(threads)
        .enable_all()
        .build()
        .expect("the operating system has two threads left")
}

/// The seed of what laws draw: `AVOUT_TEST_SEED`, or a random one.
fn seed() -> u64 {
    let given = std::env::var("AVOUT_TEST_SEED").ok();
    given.map_or_else(rand::random, |text| text.parse().expect("AVOUT_TEST_SEED is a number"))
}

/// Tries a law once, or a timed one again while the machine stands still: what breaks it then is no fault of the backend.
fn try_law(fixture: &Arc<dyn Fixture>, law: &Law) -> Verdict {
    for _ in 1..TRIES {
        let (verdict, longest) = try_once(fixture, law);
        if !law.timed || longest < STALL || verdict.failure().is_none() {
            return verdict;
        }
        eprintln!("{} is tried again: a request took {longest:?}", law.name());
        until_quiet(fixture);
    }
    try_once(fixture, law).0
}

/// Gives the verdict, and how long a request took at most meanwhile.
fn try_once(fixture: &Arc<dyn Fixture>, law: &Law) -> (Verdict, Duration) {
    let story = Story::begin();
    let runtime = runtime(story.threads());
    let ctx = fresh(fixture);
    let (namespace, seed) = (ctx.namespace.clone(), ctx.seed);
    let limit = fixture.time_limit();
    let (outcome, longest) = runtime.block_on(async {
        let noise = if law.timed { noise(&ctx).await } else { None };
        let mut task = tokio::spawn((law.test)(ctx));
        let outcome = match tokio::time::timeout(limit, &mut task).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(Failure::Broken(panic_message(error))),
            Err(_) => {
                task.abort();
                Err(Failure::Broken(format!("it hung: no end within {limit:?}")))
            }
        };
        (outcome, noise.map_or(Duration::ZERO, |noise| noise.longest()))
    });
    remove(&runtime, fixture, &namespace);
    runtime.shutdown_background();
    (verdict(outcome, story, seed), longest)
}

fn fresh(fixture: &Arc<dyn Fixture>) -> Ctx {
    let namespace = format!("avout_{:016x}", rand::random::<u64>());
    Ctx { fixture: Arc::clone(fixture), namespace, seed: seed() }
}

/// Commits beside a law, in another namespace than the law's own; `None` if it cannot be opened.
async fn noise(ctx: &Ctx) -> Option<Noise> {
    let elsewhere = Ctx { namespace: format!("{}_n", ctx.namespace), ..ctx.clone() };
    tokio::time::timeout(Duration::from_secs(10), Noise::of_commits(&elsewhere)).await.ok()?.ok()
}

/// Waits until no request stalls for a while, for half a minute at most.
fn until_quiet(fixture: &Arc<dyn Fixture>) {
    let runtime = runtime("around-laws");
    let ctx = fresh(fixture);
    runtime.block_on(async {
        for _ in 0..15 {
            let noise = noise(&ctx).await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            if noise.is_none_or(|noise| noise.longest() < STALL) {
                break;
            }
        }
    });
    remove(&runtime, fixture, &ctx.namespace);
    runtime.shutdown_background();
}

/// Removes a law's namespaces. One that cannot be removed is a nuisance and no broken law.
fn remove(runtime: &Runtime, fixture: &Arc<dyn Fixture>, namespace: &str) {
    let _ = runtime.block_on(async {
        let remove = async {
            fixture.remove(namespace).await;
            fixture.remove(&elsewhere(namespace)).await;
            fixture.remove(&format!("{namespace}_n")).await;
        };
        tokio::time::timeout(Duration::from_secs(20), remove).await
    });
}

fn verdict(outcome: Outcome, story: Story, seed: u64) -> Verdict {
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(Failure::Skipped(why)) => Verdict::Skipped(why),
        Err(Failure::Broken(how)) => Verdict::Failed(format!("{how}\n(AVOUT_TEST_SEED={seed}){}", story.told())),
    }
}

fn panic_message(error: tokio::task::JoinError) -> String {
    match error.try_into_panic() {
        Ok(panic) => match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => panic.downcast_ref::<&str>().map_or("a panic with no text", |text| text).to_owned(),
        },
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that is not there skips its laws, and breaks them where it is required.
    #[test]
    fn an_absent_server_is_a_failure_where_it_is_required() {
        for required in [None, Some(""), Some("zk2,redis")] {
            let Verdict::Skipped(why) = absent("zk", "no answer", required) else { panic!("{required:?}") };
            assert!(why.contains("no answer"), "{why}");
        }
        assert!(absent("zk", "no answer", Some("zk-ensemble")).failure().is_none());
        for required in ["zk", "redis, zk"] {
            assert!(absent("zk", "no answer", Some(required)).failure().is_some(), "{required}");
            assert!(absent("zk-ensemble", "no answer", Some(required)).failure().is_some(), "{required}");
        }
    }

    /// Every law has a name of its own.
    #[test]
    fn names_are_unique() {
        let mut names: Vec<String> = laws().map(Law::name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
