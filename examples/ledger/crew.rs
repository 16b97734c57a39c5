//! Who does the work: tasks in this process, or in processes that it starts and starts again.

use std::iter::Sum;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use avout::ErrorKind;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::args::Args;
use crate::failure::Failure;
use crate::ledger::Ledger;
use crate::plan::Transfer;

/// How long a process waits for the turn of a transfer before it takes the ones before it for forsaken.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a process did.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    pub(crate) decided: u64,
    pub(crate) conflicts: u64,
}

impl Sum for Done {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |a, b| Self { decided: a.decided + b.decided, conflicts: a.conflicts + b.conflicts })
    }
}

/// Has all the work done, and shows how far it is.
pub(crate) async fn run(ledger: &Arc<Ledger>, args: &Args) -> Result<(Done, Duration), Failure> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} transfers, {per_sec}, {eta} left")?;
    // It is hidden where the standard error is no terminal.
    let bar = ProgressBar::new(ledger.plan.transfers.len() as u64).with_style(style);
    let before = ledger.decided().await?;
    let start = Instant::now();
    let work =
        async { if args.processes == 1 { work(ledger, 0, args).await } else { start_processes(args, &bar).await } };
    let done = tokio::select! {
        done = work => done?,
        error = show(ledger, &bar) => return Err(error),
    };
    let elapsed = start.elapsed();
    bar.finish_and_clear();
    // What a killed process did is in the accounts, though it did not live to tell.
    let decided = ledger.decided().await? - before;
    Ok((Done { decided: decided as u64, ..done }, elapsed))
}

/// Moves the bar until it is dropped.
async fn show(ledger: &Ledger, bar: &ProgressBar) -> Failure {
    if bar.is_hidden() {
        std::future::pending::<()>().await;
    }
    loop {
        match ledger.decided().await {
            Ok(decided) => bar.set_position(decided as u64),
            Err(error) => return error.into(),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The work of process `child`: its share of the lines, and then whatever is left.
pub(crate) async fn work(ledger: &Arc<Ledger>, child: usize, args: &Args) -> Result<Done, Failure> {
    let share = ledger.undecided().await?.filter(|(index, _)| index % args.processes == child);
    let share = share.map(|(_, transfer)| transfer).collect();
    let shared = settle_all(ledger, share, args.workers, Some(PATIENCE)).await?;
    let rest = ledger.undecided().await?.map(|(_, transfer)| transfer).collect();
    let rest = settle_all(ledger, rest, args.workers, None).await?;
    Ok(Done { decided: shared + rest, conflicts: ledger.stats().conflicts })
}

/// Has `workers` tasks settle these transfers, which are in the order of their lines, and counts those that they
/// decided. It gives up early if one waits in vain, for its turn or for the store.
async fn settle_all(
    ledger: &Arc<Ledger>,
    transfers: Vec<Transfer>,
    workers: usize,
    patience: Option<Duration>,
) -> Result<u64, Failure> {
    let transfers = Arc::new(transfers);
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        let (ledger, transfers, next) = (Arc::clone(ledger), Arc::clone(&transfers), Arc::clone(&next));
        tasks.spawn(async move {
            let mut decided = 0;
            while let Some(transfer) = transfers.get(next.fetch_add(1, Ordering::Relaxed)) {
                match ledger.settle(transfer, patience).await {
                    Ok(true) => decided += 1,
                    Ok(false) => {}
                    // Whatever became of it, the round without a deadline finds it decided, or decides it.
                    Err(error) if patience.is_some() && is_late(&error) => {
                        next.store(transfers.len(), Ordering::Relaxed);
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(decided)
        });
    }
    let mut decided = 0;
    while let Some(ended) = tasks.join_next().await {
        decided += ended??;
    }
    Ok(decided)
}

fn is_late(error: &avout::Error) -> bool {
    matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::OutcomeUnknown)
}

/// Starts this program once for each process, and again where it was killed.
async fn start_processes(args: &Args, bar: &ProgressBar) -> Result<Done, Failure> {
    let mut children = JoinSet::new();
    for child in 0..args.processes {
        children.spawn(run_process(child, bar.clone()));
    }
    let mut done = Vec::new();
    while let Some(ended) = children.join_next().await {
        done.push(ended??);
    }
    Ok(done.into_iter().sum())
}

async fn run_process(child: usize, bar: ProgressBar) -> Result<Done, Failure> {
    loop {
        let process = Command::new(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .args(["--child", &child.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = process.wait_with_output().await?;
        if output.status.success() {
            return Ok(serde_json::from_slice(&output.stdout)?);
        }
        if !was_killed(output.status) {
            return Err(format!("process {child} failed: {}", output.status).into());
        }
        bar.suspend(|| eprintln!("process {child} was killed ({}) and is started again", output.status));
    }
}

#[cfg(unix)]
fn was_killed(status: ExitStatus) -> bool {
    std::os::unix::process::ExitStatusExt::signal(&status).is_some()
}

#[cfg(not(unix))]
fn was_killed(status: ExitStatus) -> bool {
    status.code().is_none()
}
