//! A queue of a type that serde cannot write and read.

use avout_core::{Result, Stm};

#[derive(Clone)]
struct Job;

async fn push(stm: Stm) -> Result<()> {
    let jobs = stm.queue("/jobs", 10)?;
    jobs.push(Job).await
}

fn main() {}
