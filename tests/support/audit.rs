//! The example `ledger` on a server that dies meanwhile, watched by an auditor.

use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use avout::Stm;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::support::{example, output};

/// How many processes share the work.
pub(crate) const PROCESSES: usize = 4;

const LINES: &str = "2000";
const ACCOUNTS: usize = 100;

type Failure = Box<dyn Error>;

/// Transfers, and what comes of them when nothing dies.
pub(crate) struct Ledger {
    input: PathBuf,
    expected: Value,
    _folder: TempDir,
}

/// An account as the example keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    balance: i64,
    decisions: Vec<bool>,
}

impl Ledger {
    pub(crate) async fn new() -> Result<Self, Failure> {
        let folder = TempDir::new()?;
        let input = folder.path().join("transfers.csv");
        std::fs::write(&input, output(example("ledger").args(["--generate", LINES, "--seed", "5"])).await.stdout)?;
        let mut ledger = Self { input, expected: Value::Null, _folder: folder };
        ledger.expected = ledger.report("mem:").await?;
        Ok(ledger)
    }

    fn program(&self, url: &str, options: &[&str]) -> Command {
        let mut command = example("ledger");
        command.arg("--input").arg(&self.input).args(["--url", url, "--json", "--quiet"]).args(options);
        command
    }

    /// One of the processes that share the work.
    pub(crate) fn child(&self, url: &str, number: usize) -> Result<Child, Failure> {
        let (processes, number) = (PROCESSES.to_string(), number.to_string());
        let options = ["--processes", &processes, "--workers", "4", "--child", &number];
        Ok(self.program(url, &options).stdout(Stdio::null()).spawn()?)
    }

    pub(crate) fn children(&self, url: &str) -> Result<Vec<Child>, Failure> {
        (0..PROCESSES).map(|number| self.child(url, number)).collect()
    }

    /// How many transfers there are to decide.
    pub(crate) fn all(&self) -> Result<usize, Failure> {
        Ok(usize::try_from(self.expected["decided_now"].as_u64().ok_or("a count")?)?)
    }

    /// Waits until so many are decided. At no moment is money lost or an account overdrawn.
    pub(crate) async fn until_decided(&self, stm: &Stm, count: usize) -> avout::Result<()> {
        while decided(stm).await? < count {
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits for the processes: each must end well, with all decided.
    pub(crate) async fn until_done(&self, stm: &Stm, children: &mut [Child]) -> Result<(), Failure> {
        for child in children {
            let status = child.wait().await?;
            assert!(status.success(), "{status}");
        }
        assert_eq!(decided(stm).await?, self.all()?);
        Ok(())
    }

    /// The totals and balances that a run ends with; the program checks them itself.
    async fn report(&self, url: &str) -> Result<Value, Failure> {
        Ok(serde_json::from_slice(&output(&mut self.program(url, &[])).await.stdout)?)
    }

    /// The result is that of one process in memory, and nothing is left to do.
    pub(crate) async fn check(&self, url: &str) -> Result<(), Failure> {
        let totals = |mut report: Value| {
            for name in ["decided_now", "conflicts", "seconds"] {
                report.as_object_mut().expect("an object").remove(name).expect(name);
            }
            report
        };
        let found = self.report(url).await?;
        assert_eq!(found["decided_now"], 0);
        assert_eq!(totals(found), totals(self.expected.clone()));
        Ok(())
    }
}

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
