//! The template is what it says: a backend of which nothing is written yet, and laws that say so.

#[path = "../template/tests/support/mod.rs"]
mod support;

use std::sync::Mutex;

use avout_conformance::{Law, Verdict, laws, run_law};

/// Each law of the traits fails by its name and says that something is not written yet, or is skipped for a reason; none hangs,
/// and none passes.
#[test]
fn each_law_fails_that_is_not_written_yet() {
    let groups = ["coordinator::", "state_container::", "versioned_state_container::"];
    // What a default answers is right for a coordinator without receipts.
    let written = "coordinator::resolves_no_foreign_receipt";
    let names =
        laws().map(Law::name).filter(|name| name != written && groups.iter().any(|group| name.starts_with(group)));
    let (names, found) = (Mutex::new(names), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(name) = names.lock().expect("no panic under the lock").next() else { return };
                    let verdict = run_law(support::Shelf, &name);
                    found.lock().expect("no panic under the lock").push((name, verdict));
                }
            });
        }
    });
    let found = found.into_inner().expect("no panic under the lock");
    let failed = found.iter().filter(|(_, verdict)| verdict.failure().is_some()).count();
    assert!(failed > 60, "only {failed} of {} laws fail", found.len());
    for (name, verdict) in &found {
        match verdict {
            Verdict::Failed(how) => {
                // The realm is drawn anew as long as no namespace keeps it.
                let told = how.contains("not written yet") || how.contains("realm");
                assert!(told, "{name} does not say what is missing: {how}");
            }
            Verdict::Skipped(_) => {}
            Verdict::Passed => panic!("{name} passes, though nothing is written"),
        }
    }
}
