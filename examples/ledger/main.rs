//! Applies a file of transfers between accounts, each exactly once, with any number of tasks in any number of
//! processes.
//!
//! ```text
//! cargo run --release --example ledger                                   # one process, one worker
//! cargo run --release --example ledger -- --processes 4 --workers 8      # the same totals
//! cargo run --release --example ledger -- --help
//! ```
//!
//! # Why the totals do not depend on who does the work
//! Whether a transfer overdraws its account depends on what came before it, so the order matters, and here it is the
//! file's: **the transfers of one account are decided in the order of their lines**. Transfers that have no account in
//! common are free to go side by side.
//!
//! An account is one ref, which holds the balance and the decisions on the account's transfers so far: `true` for
//! applied, `false` for refused. The number of decisions is thus the account's place in the file. A transfer's turn has
//! come when it is the next one of both its accounts; until then its worker waits with `retry`. Of the transfers that
//! are left, the one of the lowest line is next in both its accounts, so somebody can always go on and there is no
//! deadlock.
//!
//! # Why each transfer is decided exactly once
//! One transaction changes both balances and adds the decision to both accounts. Whoever comes second, because it raced
//! or because it was started again after a crash, finds the decision there and does nothing. A process that is killed
//! leaves either the whole of it or nothing, and no locks.
//!
//! A process does its share of the lines first, so that processes seldom meet, and then whatever is left. It does not
//! wait for ever for the turn of a transfer: if the process before it is dead, it does that one's work as well.
//!
//! # How fast it is
//! A transfer is one read and one commit. A worker waits for the disk at each, so one worker is as fast as the disk
//! flushes; the commits of several share a flush. `--url 'sqlite:ledger.db?synchronous=normal'` does not wait: then the
//! last transfers may be lost with the power, and are decided again.
//!
//! # The rules
//! A line is `id,from,to,amount`. Lines with another number of columns, bad numbers, bytes that are not UTF-8, an
//! amount that is not positive, or twice the same account are malformed: they are reported and skipped. Of the
//! well-formed lines of one id only the first counts. A transfer from or to an account that the bank does not have is
//! refused, and so is an overdraft. Empty lines are nothing at all.
//!
//! The file here was made by `cargo run --example ledger -- --generate 20000 --seed 7 > examples/ledger/transfers.csv`.

mod args;
mod crew;
mod failure;
mod generate;
mod ledger;
mod plan;
mod report;

use std::process::ExitCode;
use std::sync::Arc;

use args::Args;
use failure::Failure;
use ledger::Ledger;
use plan::Plan;

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("ledger: {failure}");
            let mut cause = failure.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let Some(args) = Args::parse(std::env::args().skip(1))? else {
        println!("{}", args::HELP);
        return Ok(());
    };
    if let Some(lines) = args.generate {
        return generate::generate(lines, args.seed, args.accounts);
    }

    let plan = Arc::new(Plan::read(&args.input, args.accounts, args.opening)?);
    if let Some(child) = args.child {
        let ledger = Arc::new(Ledger::open(&args.url, Arc::clone(&plan)).await?);
        let done = crew::work(&ledger, child, &args).await?;
        println!("{}", serde_json::to_string(&done)?);
        return Ok(());
    }

    if !args.quiet {
        for (line, reason) in &plan.malformed {
            eprintln!("line {line}: {reason}: skipped");
        }
    }
    let ledger = Arc::new(Ledger::open(&args.url, Arc::clone(&plan)).await?);
    let (done, elapsed) = crew::run(&ledger, &args).await?;
    let report = report::Report::new(&plan, &ledger.read().await?, done, elapsed)?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    Ok(())
}
