//! The example `ledger` keeps its promises while servers and processes die.

#[path = "../../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use avout::Stm;
use avout_conformance::server_tests;
use avout_conformance::servers::ZooKeeper;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::{example, output};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const LINES: usize = 2000;
const ACCOUNTS: usize = 100;
const PROCESSES: usize = 4;

type Outcome = Result<(), Box<dyn Error>>;

fn ledger(input: &Path, url: &str, options: &[&str]) -> Command {
    let mut command = example("ledger");
    command.arg("--input").arg(input).args(["--url", url, "--json", "--quiet"]).args(options);
    command
}

/// The totals and balances that a run ends with; the program checks them itself.
async fn report(input: &Path, url: &str) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_slice(&output(&mut ledger(input, url, &[])).await.stdout)?)
}

fn child(input: &Path, url: &str, number: usize) -> Result<Child, Box<dyn Error>> {
    let (processes, number) = (PROCESSES.to_string(), number.to_string());
    let options = ["--processes", &processes, "--workers", "4", "--child", &number];
    Ok(ledger(input, url, &options).stdout(std::process::Stdio::null()).spawn()?)
}

/// An account as the example keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    balance: i64,
    decisions: Vec<bool>,
}

/// How many transfers are decided. At no moment is money lost or an account overdrawn.
async fn decided(stm: &Stm) -> avout::Result<usize> {
    let mut accounts = Vec::new();
    for key in stm.list("/ledger/accounts").await? {
        accounts.push(stm.open_ref::<Account>(key.as_str()).await?);
    }
    if accounts.len() < ACCOUNTS {
        return Ok(0);
    }
    let accounts: Vec<Account> = stm.dosync(async |tx| tx.get_many(&accounts).await).await?;
    assert_eq!(accounts.iter().map(|account| account.balance).sum::<i64>(), 1000 * ACCOUNTS as i64);
    assert!(accounts.iter().all(|account| account.balance >= 0));
    Ok(accounts.iter().map(|account| account.decisions.len()).sum::<usize>() / 2)
}

async fn until_decided(stm: &Stm, count: usize) -> avout::Result<()> {
    while decided(stm).await? < count {
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// The leader of three servers is killed in the middle, and a process as well: the result is that of one process in memory.
async fn zookeeper_loses_its_leader() -> Outcome {
    let zk = ZooKeeper::ensemble(3).await?;
    let folder = TempDir::new()?;
    let input = folder.path().join("transfers.csv");
    let lines = LINES.to_string();
    std::fs::write(&input, output(example("ledger").args(["--generate", &lines, "--seed", "5"])).await.stdout)?;
    let expected = report(&input, "mem:").await?;
    let all = usize::try_from(expected["decided_now"].as_u64().ok_or("a count")?)?;

    let url = zk.url("ledger");
    let mut children = (0..PROCESSES).map(|number| child(&input, &url, number)).collect::<Result<Vec<_>, _>>()?;
    let work = async {
        let stm = avout::connect(&url).await?;
        until_decided(&stm, all / 3).await?;
        let leader = zk.leader().await?;
        zk.node(leader).kill().await?;
        until_decided(&stm, all / 2).await?;
        children[1].kill().await?;
        zk.node(leader).start().await?;
        until_decided(&stm, all * 2 / 3).await?;
        children[1] = child(&input, &url, 1)?;
        for child in &mut children {
            assert!(child.wait().await?.success());
        }
        assert_eq!(decided(&stm).await?, all);
        Ok::<_, Box<dyn Error>>(())
    };
    timeout(Duration::from_secs(180), work).await??;

    let totals = |mut report: Value| {
        for name in ["decided_now", "conflicts", "seconds"] {
            report.as_object_mut().expect("an object").remove(name).expect(name);
        }
        report
    };
    let found = report(&input, &url).await?;
    assert_eq!(found["decided_now"], 0);
    assert_eq!(totals(found), totals(expected));
    Ok(())
}

server_tests![zookeeper_loses_its_leader];
