//! How it is shown that what is broken breaks a law.

use std::fmt::Debug;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use avout_conformance::{Verdict, run_law};

use crate::broken::{Broken, Fault};

/// How many laws are run at once: most of those that fail wait for what does not come.
const AT_ONCE: usize = 8;

/// Runs each case, many at once, and gives those for which `wrong` says so, with how they ended.
pub(crate) fn run_all<C: Copy + Sync + Send>(
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
pub(crate) fn assert_all_broken<C: Copy + Debug + Sync + Send>(cases: &[C], run: impl Fn(C) -> Verdict + Sync) {
    let kept = run_all(cases, run, |verdict| verdict.failure().is_none());
    assert!(kept.is_empty(), "laws that saw nothing: {kept:#?}");
}

/// Runs a law over a backend with this fault.
pub(crate) fn run((fault, law): (Fault, &str)) -> Verdict {
    run_law(Broken::new(fault), law)
}

/// Each of these breaks its law.
#[track_caller]
pub(crate) fn assert_broken(cases: &[(Fault, &str)]) {
    assert_all_broken(cases, run);
}
