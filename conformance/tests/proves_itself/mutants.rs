//! The laws that see mistakes of the engine: `mutants/*.patch` says which.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use avout_conformance::run_law;

use crate::broken::{Broken, Fault};
use crate::prove::run_all;

/// All laws that a mutant breaks.
pub(crate) fn laws() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mutants");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut laws = BTreeSet::new();
    for file in files {
        let patch = std::fs::read_to_string(file.expect("a file of the folder").path()).expect("a patch is text");
        let header = patch.split("\ndiff --git").next().unwrap_or_default();
        laws.extend(header.lines().filter_map(|line| line.strip_prefix("Law: ")).map(str::to_owned));
    }
    laws
}

/// Runs the laws that `AVOUT_LAWS` names, with a comma between two, and says of each whether it saw something wrong. A law may take
/// `AVOUT_LIMIT` seconds.
#[test]
#[ignore = "run by scripts/mutants"]
fn judge() {
    let names = std::env::var("AVOUT_LAWS").expect("AVOUT_LAWS names laws");
    let limit = std::env::var("AVOUT_LIMIT").expect("AVOUT_LIMIT is a number of seconds");
    let limit = Duration::from_secs(limit.parse().expect("AVOUT_LIMIT is a number of seconds"));
    let names: Vec<&str> = names.split(',').collect();
    let judged = run_all(&names, |law| run_law(Broken::new(Fault::Nothing).within(limit), law), |_| true);
    for (law, verdict) in judged {
        println!("judged {law} {}", if verdict.failure().is_some() { "broken" } else { "held" });
    }
}
