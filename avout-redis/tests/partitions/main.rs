//! Redis with sentinels and in clusters, in network namespaces, so that a master can be cut off from the other servers and not from its
//! clients.
//!
//! Some trials are tests. `AVOUT_PARTITIONS` names those to run instead, by words that are all in their names, and prints a table:
//!
//! ```sh
//! AVOUT_PARTITIONS=all cargo test -p avout-redis --test partitions               # about an hour
//! AVOUT_PARTITIONS="cluster cut" AVOUT_PARTITIONS_JOBS=2 cargo test -p avout-redis --test partitions
//! ```
//!
//! It needs root, or user namespaces, and `ip` and `unshare`. Each trial is a process of its own in namespaces of its own, and leaves
//! nothing behind.

mod case;
mod clients;
mod crowd;
mod judge;
mod log;
mod net;
mod raw;
mod record;
mod scout;
mod servers;
mod trial;

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::io::Read as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

use avout_conformance::servers::{Error, ServerTest, Spec, run_tests};
use case::{Case, Length};
use tokio::task::LocalSet;

/// Set in the process of a trial: the folder for its servers, its length and its case.
const INSIDE: &str = "AVOUT_PARTITIONS_INSIDE";

type Outcome<T = ()> = Result<T, Box<dyn StdError>>;

/// One fault of each kind, and each shape and mode.
const TESTS: [(&str, &str); 5] = [
    ("a_master_that_is_killed_is_left", "sentinel kill plain"),
    ("a_master_that_stands_still_for_a_moment_is_left_or_kept", "cluster stop3 plain"),
    ("a_master_cut_from_its_peers_is_left_and_nothing_is_lost_or_late", "sentinel cut all"),
    ("a_failover_by_command_loses_nothing_that_a_majority_has", "cluster failover majority"),
    ("a_slot_that_moves_takes_its_clients_along", "cluster migrate plain"),
];

fn main() -> ExitCode {
    if let Ok(inside) = std::env::var(INSIDE) {
        return inside_of(&inside);
    }
    match std::env::var("AVOUT_PARTITIONS") {
        Ok(words) => long(&words),
        Err(_) => run_tests(TESTS.map(|(name, case)| ServerTest::new(name, move || short(case)))),
    }
}

/// The process of one trial.
fn inside_of(inside: &str) -> ExitCode {
    let folder = inside.split(' ').next().unwrap_or_default().to_owned();
    // It ends with the process that began it, and all servers with it.
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = std::fs::remove_dir_all(folder);
        std::process::exit(3);
    });
    let run = || {
        let (folder, rest) = inside.split_once(' ').ok_or("a folder")?;
        let (length, case) = rest.split_once(' ').ok_or("a length and a case")?;
        let case: Case = case.parse()?;
        let length = if length == "short" { Length::Short } else { Length::Long };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let evidence = LocalSet::new().block_on(&runtime, trial::run(case, length, Path::new(folder)))?;
        let verdict = evidence.judge();
        println!("{}\n{}", evidence.row(&verdict), evidence.details(&verdict));
        Ok::<_, Box<dyn StdError>>(verdict.is_good())
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(2),
        Err(error) => {
            println!("| {inside} | it could not be tried: {error} |");
            ExitCode::FAILURE
        }
    }
}

/// Runs a trial in a process and namespaces of its own. Gives what it printed, and whether all was well.
fn try_case(case: Case, length: &str) -> Outcome<(String, bool)> {
    let folder = tempfile::Builder::new().prefix("avout-partitions-").tempdir()?;
    let mut child = net::unshare()
        .arg(std::env::current_exe()?)
        .env(INSIDE, format!("{} {length} {case}", folder.path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    // While this is open the trial goes on.
    let input = child.stdin.take();
    let mut printed = String::new();
    child.stdout.take().ok_or("no output")?.read_to_string(&mut printed)?;
    let ended = child.wait()?;
    drop(input);
    Ok((printed, ended.success()))
}

/// A trial as a test.
async fn short(case: &str) -> Outcome {
    let case: Case = case.parse()?;
    Spec::find("redis", "AVOUT_REDIS_SERVER", "redis-server", "`apt-get install redis-server` brings it")?;
    let how = "they need root, or user namespaces, and the programs `ip` and `unshare`";
    net::works().map_err(|why| Error::missing("netns", format!("no network namespaces: {why}"), how))?;
    let tried = tokio::task::spawn_blocking(move || try_case(case, "short").map_err(|error| error.to_string())).await?;
    let (printed, is_good) = tried?;
    if is_good { Ok(()) } else { Err(printed.into()) }
}

/// Runs all trials that have these words in their names.
fn long(words: &str) -> ExitCode {
    if let Err(why) = net::works() {
        println!("no network namespaces: {why}");
        return ExitCode::FAILURE;
    }
    let jobs = std::env::var("AVOUT_PARTITIONS_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let is_meant = |case: &Case| {
        let name = case.to_string();
        words
            .split_whitespace()
            .all(|word| word == "all" && !words.contains(' ') || name.split(' ').any(|part| part == word))
    };
    let left = Mutex::new(Case::all().filter(is_meant).collect::<VecDeque<_>>());
    let tried = Mutex::new(Vec::new());
    println!("{}", judge::HEADING);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(case) = next else { return };
                    let (printed, is_good) =
                        try_case(case, "long").unwrap_or_else(|error| (format!("| {case} | {error} |"), false));
                    println!("{}", printed.lines().next().unwrap_or_default());
                    tried.lock().unwrap_or_else(PoisonError::into_inner).push((printed, is_good));
                }
            });
        }
    });
    let tried = tried.into_inner().unwrap_or_else(PoisonError::into_inner);
    let bad = tried.iter().filter(|(_, is_good)| !is_good).count();
    println!("\n{} trials, {bad} bad\n", tried.len());
    tried.iter().for_each(|(printed, _)| println!("{printed}"));
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
