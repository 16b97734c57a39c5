//! Primaries that change again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use avout_conformance::servers::Mongo;
use avout_core::Ref;
use mongodb::Collection;
use mongodb::bson::{Document, doc};
use mongodb::options::WriteConcern;

use crate::support::{Outcome, client, driver, with};

const TASKS: usize = 4;
const ROUNDS: usize = 8;

/// What tasks did that wrote one after the other: how many writes, and the longest time without one of a task.
#[derive(Debug, Default)]
struct Pace {
    writes: u64,
    pause: Duration,
}

impl Pace {
    fn wrote(&mut self, last: &mut Instant) {
        self.pause = self.pause.max(last.elapsed());
        *last = Instant::now();
        self.writes += 1;
    }

    fn and(self, other: Self) -> Self {
        Self { writes: self.writes + other.writes, pause: self.pause.max(other.pause) }
    }
}

async fn commit(r: Ref<i64>, stop: Arc<AtomicBool>) -> avout_core::Result<Pace> {
    let (mut pace, mut last) = (Pace::default(), Instant::now());
    while !stop.load(Ordering::SeqCst) {
        r.alter(|n| n + 1).await?;
        pace.wrote(&mut last);
    }
    Ok(pace)
}

async fn insert(collection: Collection<Document>, stop: Arc<AtomicBool>) -> Pace {
    let (mut pace, mut last) = (Pace::default(), Instant::now());
    while !stop.load(Ordering::SeqCst) {
        match collection.insert_one(doc! { "n": 1 }).write_concern(WriteConcern::majority()).await {
            Ok(_) => pace.wrote(&mut last),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    pace
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
        commits.push(tokio::spawn(commit(r, Arc::clone(&stop))));
        inserts.push(tokio::spawn(insert(database.collection("raw"), Arc::clone(&stop))));
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
        theirs = theirs.and(insert.await?);
    }
    println!("commits {ours:?}, inserts {theirs:?}");
    // A commit is three requests, and tells what was read.
    assert!(ours.writes * 10 > theirs.writes, "commits {ours:?}, inserts {theirs:?}");
    assert!(ours.pause < theirs.pause * 3 + Duration::from_secs(1), "commits {ours:?}, inserts {theirs:?}");
    Ok(())
}
