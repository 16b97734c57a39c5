//! The suite proves itself: each broken backend breaks the laws that are named for it, and each law is broken by something. So are the
//! mistakes that authors of backends make, over real backends. Mistakes of the engine are `mutants/*.patch`, for `scripts/mutants`.

mod backends;
mod broken;
mod engine;
mod locks;
mod mistakes;
mod mutants;
mod not_shown;
mod promises;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use avout_conformance::{Verdict, laws, run_law};
use broken::{Broken, Fault};

/// How many laws are run at once: most of those that fail wait for what does not come.
const AT_ONCE: usize = 8;

/// Runs each case, many at once, and gives those for which `wrong` says so, with how they ended.
fn run_all<C: Copy + Sync + Send>(
    cases: &[C],
    run: impl Fn(C) -> Verdict + Sync,
    wrong: impl Fn(&Verdict) -> bool + Sync,
) -> Vec<(C, Verdict)> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = run(*case);
                    if wrong(&verdict) {
                        found.lock().expect("no panic under the lock").push((*case, verdict));
                    }
                }
            });
        }
    });
    found.into_inner().expect("no panic under the lock")
}

/// Each case breaks its law.
#[track_caller]
fn assert_all_broken<C: Copy + Debug + Sync + Send>(cases: &[C], run: impl Fn(C) -> Verdict + Sync) {
    let kept = run_all(cases, run, |verdict| verdict.failure().is_none());
    assert!(kept.is_empty(), "laws that saw nothing: {kept:#?}");
}

/// Runs a law over a backend with this fault.
fn run((fault, law): (Fault, &str)) -> Verdict {
    run_law(Broken::new(fault), law)
}

/// Each of these breaks its law.
#[track_caller]
fn assert_broken(cases: &[(Fault, &str)]) {
    assert_all_broken(cases, run);
}

/// The wrapper without a fault keeps all laws: what breaks one is the fault.
#[test]
fn no_fault_breaks_no_law() {
    let names: Vec<String> = laws().map(|law| law.name()).collect();
    let cases: Vec<_> = names.iter().map(|name| (Fault::Nothing, &**name)).collect();
    let broken = run_all(&cases, run, |verdict| matches!(verdict, Verdict::Failed(_)));
    assert!(broken.is_empty(), "{broken:#?}");
}

/// A law that nothing breaks proves nothing. Those of which it is not shown yet are named, and no others are among them.
#[test]
fn each_law_is_broken_by_something() {
    let cases = backends::cases().chain(promises::cases()).chain(engine::cases()).map(|case| case.1);
    let shown: BTreeSet<String> = cases.chain(mistakes::names()).map(str::to_owned).chain(mutants::laws()).collect();
    let names: BTreeSet<String> = laws().map(|law| law.name()).collect();
    let unknown: Vec<_> = shown.difference(&names).collect();
    assert!(unknown.is_empty(), "no laws: {unknown:?}");
    let idle: BTreeSet<&str> = names.difference(&shown).map(|name| &**name).collect();
    assert_eq!(idle, not_shown::NOT_SHOWN.iter().copied().collect(), "what nothing breaks, and what is named as that");
}
