//! Faults by moments, with client processes on ZooKeeper, Redis, MongoDB and SQLite. Memory is of one process, and left out.
//!
//! A few cells are chosen at random. `AVOUT_TEST_SEED` chooses the same again, `AVOUT_MATRIX=all` runs all of them, another text
//! those whose names have it, and `AVOUT_MATRIX_SECONDS` goes on for as long. `AVOUT_MATRIX_TRANSACTIONS` says how many come
//! before the sweep, and `AVOUT_HISTORY_DIR` where histories are written as EDN, as Jepsen's Elle reads them.
#![cfg(unix)]

mod cells;
mod client;
mod failpoints;
mod record;
mod world;

use std::time::{Duration, Instant};

use avout_conformance::servers::{ServerTest, run_tests};
use failpoints::Failpoint;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;
use world::{Failure, Group, PATIENCE, PLACES, World, orphans};

/// How many cells are run where nothing is said.
const SAMPLE: usize = 8;

fn main() {
    if client::run() {
        return;
    }
    if text("AVOUT_MATRIX").is_some() || number("AVOUT_MATRIX_SECONDS").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
        return runtime.block_on(faults_at_any_moment()).expect("no fault that does harm");
    }
    run_tests([
        ServerTest::new("faults_at_any_moment", faults_at_any_moment),
        ServerTest::new("one_sweep_beside_eight_clients_leaves_no_orphan", one_sweep_beside_eight_clients),
    ])
}

fn text(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn number(name: &str) -> Option<u64> {
    text(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn seed() -> u64 {
    let seed = number("AVOUT_TEST_SEED").unwrap_or_else(rand::random);
    eprintln!("AVOUT_TEST_SEED={seed}");
    seed
}

/// Whatever fails, in whatever way and at whatever moment: what clients see is strictly serializable, nothing acknowledged is lost
/// or done twice, afterwards all goes on, and a sweep leaves no orphan.
async fn faults_at_any_moment() -> Result<(), Failure> {
    let (begun, seed) = (Instant::now(), seed());
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::new().await?;
    let time = number("AVOUT_MATRIX_SECONDS").map(Duration::from_secs);
    let chosen = text("AVOUT_MATRIX");
    loop {
        let mut cells = cells::all();
        cells.shuffle(&mut rng);
        match chosen.as_deref() {
            Some("all") => {}
            Some(name) => cells.retain(|cell| cell.to_string().contains(name)),
            None if time.is_some() => {}
            None => cells.truncate(SAMPLE),
        }
        assert!(!cells.is_empty(), "AVOUT_MATRIX names no cell");
        for cell in cells {
            if time.is_some_and(|time| begun.elapsed() > time) {
                return Ok(());
            }
            cell.run(&world, rng.random()).await?;
        }
        if time.is_none() {
            return Ok(());
        }
    }
}

/// After many transactions of eight processes that are killed at random, one sweep leaves no value that no record points at, in any
/// store, while eight go on committing; one that was stopped before its commit, and goes on after the sweep, does no harm.
async fn one_sweep_beside_eight_clients() -> Result<(), Failure> {
    let seed = seed();
    let mut rng = StdRng::seed_from_u64(seed);
    let transactions = number("AVOUT_MATRIX_TRANSACTIONS").unwrap_or(500);
    let transactions = usize::try_from(transactions)?;
    let world = World::new().await?;
    let coordinator = rng.random_range(0..PLACES.len());
    let mut group = Group::new(&world, coordinator, 1 + transactions / 500, seed).await?;
    group.task.deaths = Failpoint::ALL.map(|point| (point, 0.005)).to_vec();
    group.task.deaths.push((Failpoint::BetweenValueWriteAndCommit, 0.015));
    let (mut processes, mut done, mut deaths) = (Vec::new(), 0, 0);
    for _ in 0..8 {
        processes.push(group.start(None).await?);
    }
    while done + processes.iter().map(|process| process.committed()).sum::<usize>() < transactions {
        for process in &mut processes {
            if process.was_killed()? {
                (deaths, done) = (deaths + 1, done + process.committed());
                *process = group.start(None).await?;
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
    group.task.deaths.clear();
    for process in &mut processes {
        process.kill().await?;
        *process = group.start(None).await?;
    }
    for process in &mut processes {
        process.says("ready").await?;
    }
    // The ninth is about to commit.
    let mut sleeper = group.start(None).await?;
    sleeper.says("ready").await?;
    sleeper.order("arm between-value-write-and-commit stop").await?;
    sleeper.says("at ").await?;
    sleeper.stopped().await?;

    let keeper = group.keeper().await?;
    let report = keeper.stm.sweep().await?;
    assert!(report.skipped.is_empty(), "{report:?}");
    eprintln!("{} coordinates: {deaths} deaths, {} values swept", PLACES[coordinator], report.all_values());
    let begun = Instant::now();
    // Values that the eight replaced meanwhile are theirs to delete, which takes them a moment.
    loop {
        let left = orphans(&keeper, report.epoch).await?;
        if left.is_empty() {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "one sweep left {left:?}: {report:?}");
        sleep(Duration::from_millis(50)).await;
    }
    let before: usize = processes.iter().map(|process| process.committed()).sum();
    sleeper.go_on()?;
    while processes.iter().map(|process| process.committed()).sum::<usize>() < before + 20 {
        assert!(begun.elapsed() < PATIENCE * 2, "the eight do not go on");
        sleep(Duration::from_millis(20)).await;
    }
    sleeper.end().await?;
    for process in processes {
        process.end().await?;
    }
    keeper.stm.close().await;
    group.check("one sweep beside eight clients").await
}
