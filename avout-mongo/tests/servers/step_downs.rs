//! Primaries that change again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use avout_conformance::servers::Mongo;
use mongodb::bson::{Document, doc};
use mongodb::options::WriteConcern;

use crate::support::{Outcome, client, driver, with};

const TASKS: usize = 4;
const ROUNDS: usize = 10;

/// What tasks did that wrote one after the other: how many writes, and the longest time without one of a task.
#[derive(Debug, Default)]
struct Pace {
    writes: u64,
    pause: Duration,
}

impl Pace {
    /// Counts what `write` does until it is told to stop.
    async fn of<E>(stop: &AtomicBool, mut write: impl AsyncFnMut() -> Result<(), E>) -> Result<Self, E> {
        let (mut pace, mut last) = (Self::default(), Instant::now());
        while !stop.load(Ordering::SeqCst) {
            write().await?;
            pace.pause = pace.pause.max(last.elapsed());
            last = Instant::now();
            pace.writes += 1;
        }
        Ok(pace)
    }

    fn and(self, other: Self) -> Self {
        Self { writes: self.writes + other.writes, pause: self.pause.max(other.pause) }
    }
}

/// While another member is made primary each second, commits go on as soon as inserts of the driver alone do.
pub(crate) async fn commits_are_as_quick_as_the_new_primary() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let url = with(&mongo.url("tests"), "namespace=stepped");
    let stop = Arc::new(AtomicBool::new(false));
    let stm = client(&url, 30).await?;
    let database = driver(&mongo.url("tests")).await?;
    let (mut commits, mut inserts) = (Vec::new(), Vec::new());
    for task in 0..TASKS {
        let r = stm.create_ref(format!("/own/{task}"), 0_i64).await?;
        let ours = Arc::clone(&stop);
        commits.push(tokio::spawn(async move {
            Pace::of(&ours, async || r.alter(|n| n + 1).await.map(drop)).await
        }));
        let (raw, theirs) = (database.collection::<Document>("raw"), Arc::clone(&stop));
        inserts.push(tokio::spawn(async move {
            let insert = async || {
                let insert = || raw.insert_one(doc! { "task": task as i64 }).write_concern(WriteConcern::majority());
                while insert().await.is_err() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Ok::<(), mongodb::error::Error>(())
            };
            Pace::of(&theirs, insert).await
        }));
    }
    for _ in 0..ROUNDS {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let next = (mongo.primary().await? + 1) % 3;
        // One that is not up to date yet is not elected. The next round tries another time.
        let _ = mongo.admin(next, "replSetStepUp", 1).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::SeqCst);
    let (mut ours, mut theirs) = (Pace::default(), Pace::default());
    for (commit, insert) in commits.into_iter().zip(inserts) {
        ours = ours.and(commit.await??);
        theirs = theirs.and(insert.await??);
    }
    println!("commits {ours:?}, inserts {theirs:?}");
    // A commit is three requests, and tells what was read.
    assert!(ours.writes * 10 > theirs.writes, "commits {ours:?}, inserts {theirs:?}");
    assert!(ours.pause < theirs.pause * 3 + Duration::from_secs(1), "commits {ours:?}, inserts {theirs:?}");
    Ok(())
}
