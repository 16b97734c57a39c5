//! A queue of jobs: producers wait while it is full, workers wait while it is empty, and each job is done exactly once.
//!
//! `cargo run --example job_queue [URL]`
//!
//! A job's result is written by the transaction that takes the job from the queue, so a worker that dies has done
//! either both or nothing, and another one finds the job where it was.

use std::collections::VecDeque;

use avout::{Ref, Result, Stm};
use tokio::task::JoinSet;

const PRODUCERS: u64 = 3;
const WORKERS: u64 = 4;
const JOBS: u64 = 100;
/// How many jobs may wait.
const ROOM: usize = 10;

#[derive(Clone)]
struct Queue {
    stm: Stm,
    waiting: Ref<VecDeque<u64>>,
    /// How many producers have not finished.
    producing: Ref<u64>,
    /// Each job with its result.
    done: Ref<Vec<(u64, u64)>>,
}

impl Queue {
    /// Opens the queue, and empties it of what an earlier run has left.
    async fn open(url: &str) -> Result<Self> {
        let stm = avout::connect(url).await?;
        let waiting = stm.create_or_open_ref("/jobs/waiting", VecDeque::new()).await?;
        let producing = stm.create_or_open_ref("/jobs/producing", 0).await?;
        let done = stm.create_or_open_ref("/jobs/done", Vec::new()).await?;
        let queue = Self { stm, waiting, producing, done };
        queue
            .stm
            .dosync(async |tx| {
                tx.set(&queue.waiting, VecDeque::new()).await?;
                tx.set(&queue.producing, PRODUCERS).await?;
                tx.set(&queue.done, Vec::new()).await
            })
            .await?;
        Ok(queue)
    }

    /// Puts every third job into the queue, while there is room.
    async fn produce(self, producer: u64) -> Result<()> {
        for job in (0..JOBS).filter(|job| job % PRODUCERS == producer) {
            let put = self.stm.transaction().no_deadline().dosync(async |tx| {
                let mut waiting = tx.get(&self.waiting).await?;
                if waiting.len() >= ROOM {
                    return Err(tx.retry());
                }
                waiting.push_back(job);
                tx.set(&self.waiting, waiting).await
            });
            put.await?;
        }
        self.producing.alter(|producing| producing - 1).await?;
        Ok(())
    }

    /// Does jobs until there are no more and none will come; gives how many.
    async fn work(self) -> Result<u64> {
        let mut count = 0;
        while self.do_one().await? {
            count += 1;
        }
        Ok(count)
    }

    async fn do_one(&self) -> Result<bool> {
        let transaction = self.stm.transaction().no_deadline();
        transaction
            .dosync(async |tx| {
                let (mut waiting, producing) = tx.get_many((&self.waiting, &self.producing)).await?;
                let Some(job) = waiting.pop_front() else {
                    return if producing == 0 { Ok(false) } else { Err(tx.retry()) };
                };
                tx.set(&self.waiting, waiting).await?;
                // The order of results does not matter, so they need not wait for each other.
                tx.commute(&self.done, move |mut done| {
                    done.push((job, job * job));
                    done
                })
                .await?;
                Ok(true)
            })
            .await
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "mem:".to_owned());
    let queue = Queue::open(&url).await?;

    let mut workers = JoinSet::new();
    for _ in 0..WORKERS {
        workers.spawn(queue.clone().work());
    }
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        producers.spawn(queue.clone().produce(producer));
    }
    while let Some(ended) = producers.join_next().await {
        ended??;
    }
    let mut counts = Vec::new();
    while let Some(ended) = workers.join_next().await {
        counts.push(ended??);
    }

    let mut done = queue.done.get().await?;
    done.sort_unstable();
    let expected: Vec<_> = (0..JOBS).map(|job| (job, job * job)).collect();
    println!("{} jobs done, by the workers: {counts:?}", done.len());
    if done != expected || counts.iter().sum::<u64>() != JOBS {
        return Err("not every job was done exactly once".into());
    }
    println!("each exactly once");
    Ok(())
}
