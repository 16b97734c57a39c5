//! Whether a namespace grows with the number of its transactions, and not with what it holds.

use std::path::Path;
use std::time::Instant;

use avout::{Ref, Stm};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::env::{Env, workers};
use crate::library;
use crate::measure::Failure;
use crate::processes::{Process, serve};
use crate::spec::Store;
use crate::values::{Sample, Small};

/// The name of this among workloads, and the second argument of the child.
pub(crate) const GROWTH: &str = "growth";

const REFS: usize = 10;

/// What a namespace takes after so many transactions.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) store: String,
    pub(crate) transactions: u64,
    /// Bytes of the database file; 0 in memory.
    pub(crate) file: u64,
    /// Bytes of its write-ahead log.
    pub(crate) log: u64,
    /// Resident bytes of the process.
    pub(crate) memory: u64,
    pub(crate) seconds: f64,
}

/// Runs transactions on ten refs in a process of its own, and measures it at these numbers of transactions.
pub(crate) fn measure(env: &Env, store: Store, steps: &[u64]) -> Result<Vec<Size>, Failure> {
    let path = env.new_file();
    let mut process = Process::start(&[GROWTH, &path.display().to_string(), store.name()])?;
    steps
        .iter()
        .map(|step| {
            process.tell(&step.to_string())?;
            Ok(serde_json::from_str(&process.hear()?)?)
        })
        .collect()
}

/// What the child does: goes on to the number of transactions that a line says, and answers with the sizes.
pub(crate) fn child(path: &Path, store: &str) -> Result<(), Failure> {
    let runtime = workers()?;
    let url = match store {
        "local" => "mem:".to_owned(),
        // Sizes do not depend on how often it waits for the disk.
        _ => format!("{}?synchronous=normal", library::url(path)),
    };
    let begun = Instant::now();
    let stm = runtime.block_on(avout::connect(url))?;
    let refs = runtime.block_on(library::refs::<Small>(&stm, "", REFS, 16))?;
    let mut done = 0;
    serve(|line| {
        let goal: u64 = line.parse()?;
        runtime.block_on(alter(&stm, &refs, goal - done))?;
        done = goal;
        let file = |suffix| std::fs::metadata(format!("{}{suffix}", path.display())).map_or(0, |file| file.len());
        Ok(Size {
            store: store.to_owned(),
            transactions: goal,
            file: file(""),
            log: file("-wal"),
            memory: resident()?,
            seconds: begun.elapsed().as_secs_f64(),
        })
    })
}

async fn alter(stm: &Stm, refs: &[Ref<Small>], transactions: u64) -> Result<(), Failure> {
    let mut running = JoinSet::new();
    for r in refs {
        let (stm, r) = (stm.clone(), r.clone());
        running.spawn(async move {
            for _ in 0..transactions / REFS as u64 {
                stm.dosync(async |tx| tx.alter(&r, Small::bump).await).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(())
}

/// The resident bytes of this process, from `/proc`; 0 where there is none.
fn resident() -> Result<u64, Failure> {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else {
        return Ok(0);
    };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in the process's status")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse::<u64>()? * 1024)
}
