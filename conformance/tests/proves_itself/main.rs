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
mod prove;

use std::collections::BTreeSet;

use avout_conformance::{Verdict, laws};
use broken::Fault;
use prove::{run, run_all};

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
