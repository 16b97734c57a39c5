//! The suite proves itself: each broken backend, and each mistake that is planted in the engine, breaks the laws that are named
//! for it, and each law is broken by something. So are the mistakes that authors of backends make, over real backends.

mod backends;
mod broken;
mod engine;
mod locks;
mod mistakes;
mod promises;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use avout_conformance::{Verdict, laws, run_law};
use avout_core::Bug;
use broken::{Broken, Fault};

/// What is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Break {
    /// The backend, in this way.
    Backend(Fault),
    /// The engine, in this way.
    Engine(Bug),
}

impl Break {
    fn fixture(self) -> Broken {
        match self {
            Self::Backend(fault) => Broken::new(fault),
            Self::Engine(bug) => Broken::new(Fault::Nothing).planted(bug),
        }
    }
}

/// How many laws are run at once: most of those that fail wait for what does not come.
const AT_ONCE: usize = 8;

/// What a law that fails prints is expected here.
fn silence_laws() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
            print(panic);
        }
    }));
}

/// Runs each of these laws over what is broken; gives those for which `wrong` says so, and how they ended.
fn run_all(
    cases: &[(Break, &str)],
    limit: Option<Duration>,
    wrong: impl Fn(&Verdict) -> bool + Sync,
) -> Vec<(Break, String, Verdict)> {
    silence_laws();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((broken, law)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let fixture = broken.fixture();
                    let verdict = run_law(limit.into_iter().fold(fixture, Broken::limited), law);
                    if wrong(&verdict) {
                        found.lock().expect("no panic under the lock").push((*broken, (*law).to_owned(), verdict));
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic under the lock")
}

/// Each of these breaks its law.
#[track_caller]
fn assert_broken(cases: &[(Break, &str)]) {
    let kept = run_all(cases, None, |verdict| verdict.failure().is_none());
    assert!(kept.is_empty(), "laws that saw nothing: {kept:#?}");
}

/// The wrapper without a fault keeps all laws: what breaks one is the fault.
#[test]
fn no_fault_breaks_no_law() {
    let names: Vec<String> = laws().map(|law| law.name()).collect();
    let cases: Vec<_> = names.iter().map(|name| (Break::Backend(Fault::Nothing), &**name)).collect();
    let broken = run_all(&cases, None, |verdict| matches!(verdict, Verdict::Failed(_)));
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A law that nothing breaks proves nothing. Those of which it is not shown yet are named, and no others are among them.
#[test]
fn each_law_is_broken_by_something() {
    let cases = backends::cases().chain(promises::cases()).chain(engine::cases()).map(|case| case.1);
    let shown: BTreeSet<&str> = cases.chain(mistakes::names()).collect();
    let names: BTreeSet<String> = laws().map(|law| law.name()).collect();
    let idle: BTreeSet<&str> = names.iter().map(|name| &**name).filter(|name| !shown.contains(name)).collect();
    assert_eq!(idle, engine::NOT_SHOWN.iter().copied().collect(), "what nothing breaks, and what is named as that");
}
