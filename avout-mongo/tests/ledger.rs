//! The example `ledger` on a replica set whose primary is killed in the middle.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use avout_conformance::servers::Mongo;
use avout_core::backend::Coordinator as _;
use avout_core::protocol::Key;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

const LINES: &str = "2000";
const PATIENCE: Duration = Duration::from_secs(200);

/// The example's program, which belongs to another package of the workspace.
async fn build() -> Result<PathBuf, Box<dyn Error>> {
    let arguments = ["build", "--quiet", "--package", "avout", "--features", "mongo", "--example", "ledger"];
    let built = Command::new(env!("CARGO")).args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).status().await?;
    assert!(built.success(), "the example cannot be built");
    let test = std::env::current_exe()?;
    let profile = test.ancestors().nth(2).ok_or("target/<profile>/deps/<test>")?;
    let program = profile.join("examples/ledger");
    // A test of another profile than the example's finds none; it is the same program.
    let fallback = profile.with_file_name("debug").join("examples/ledger");
    Ok(if program.exists() { program } else { fallback })
}

fn ledger(program: &Path, input: &Path, url: &str, options: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true).arg("--input").arg(input).args(["--url", url, "--json"]).args(options);
    command
}

async fn output(command: &mut Command) -> Result<Output, Box<dyn Error>> {
    let output = timeout(PATIENCE, command.output()).await??;
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

/// The report, without what depends on who did the work.
fn totals(output: &Output) -> Result<Value, Box<dyn Error>> {
    let mut report: Value = serde_json::from_slice(&output.stdout)?;
    for name in ["decided_now", "conflicts", "seconds"] {
        report.as_object_mut().ok_or("an object")?.remove(name).ok_or(name)?;
    }
    Ok(report)
}

/// The primary of three is killed while four processes work: nothing is lost, done twice or overdrawn.
async fn a_killed_primary_keeps_every_promise() -> Result<(), Box<dyn Error>> {
    let program = build().await?;
    let folder = TempDir::new()?;
    let input = folder.path().join("transfers.csv");
    let generated = output(Command::new(&program).args(["--generate", LINES, "--seed", "5"])).await?;
    std::fs::write(&input, generated.stdout)?;
    let expected = totals(&output(&mut ledger(&program, &input, "mem:", &[])).await?)?;

    let mongo = Mongo::replica_set(3).await?;
    let url = format!("{}&timeout=3s", mongo.url("ledger"));
    let mut work = ledger(&program, &input, &url, &["--processes", "4", "--workers", "4"]);
    let work = work.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let coordinator = avout_mongo::connect(&url).await?.coordinator;
    // The accounts are made first. Then it takes some hundred commits until the points have grown by as many.
    let accounts = Key::new("/ledger/accounts")?;
    while coordinator.list(&accounts).await?.len() < 100 {
        sleep(Duration::from_millis(10)).await;
    }
    let begun = coordinator.read(&[], None).await?.point;
    let seconds = |point: avout_core::Point| point.number() >> 32;
    while seconds(coordinator.read(&[], None).await?.point) < seconds(begun) + 2 {
        sleep(Duration::from_millis(10)).await;
    }
    let primary = mongo.primary().await?;
    mongo.node(primary).kill().await?;
    let done = timeout(PATIENCE, work.wait_with_output()).await??;
    assert!(done.status.success(), "{}: {}", done.status, String::from_utf8_lossy(&done.stderr));
    assert_eq!(totals(&done)?, expected);
    // What is decided is found again by a process that was not there.
    let again = output(&mut ledger(&program, &input, &url, &[])).await?;
    assert_eq!(totals(&again)?, expected);
    assert_eq!(serde_json::from_slice::<Value>(&again.stdout)?["decided_now"], 0);
    Ok(())
}

avout_conformance::server_tests![a_killed_primary_keeps_every_promise];
