//! The example `ledger` comes to the same result whoever does the work, and whoever is killed.

mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use avout::{Ref, Result, Stm};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use support::{example, output};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const LINES: usize = 3000;
const ACCOUNTS: usize = 100;

/// A folder with a file of transfers.
struct Setting {
    folder: TempDir,
    input: PathBuf,
}

impl Setting {
    async fn new(seed: u64) -> Self {
        let folder = TempDir::new().expect("a folder for the test");
        let input = folder.path().join("transfers.csv");
        let generated =
            output(example("ledger").args(["--generate", &LINES.to_string(), "--seed", &seed.to_string()])).await;
        std::fs::write(&input, generated.stdout).expect("a file in the test's folder");
        Self { folder, input }
    }

    /// A database in the folder. What a killed process has acknowledged must stay, and no more is tested here.
    fn url(&self, name: &str) -> String {
        format!("sqlite:{}?synchronous=normal", self.folder.path().join(name).display())
    }

    fn ledger(&self, url: &str, options: &[&str]) -> Command {
        ledger(&self.input, url, options)
    }

    /// Runs the ledger to its end; it checks its result itself.
    async fn report(&self, url: &str, options: &[&str]) -> Report {
        let output = output(&mut self.ledger(url, options)).await;
        Report(serde_json::from_slice(&output.stdout).expect("the report as JSON"))
    }

    /// One process of four with eight workers each.
    fn child(&self, url: &str, number: usize) -> Child {
        let number = number.to_string();
        let mut command = self.ledger(url, &["--processes", "4", "--workers", "8", "--child", &number]);
        command.stdout(std::process::Stdio::piped()).spawn().expect("the program starts")
    }
}

fn ledger(input: &Path, url: &str, options: &[&str]) -> Command {
    let mut command = example("ledger");
    command.arg("--input").arg(input).args(["--url", url, "--json"]).args(options);
    command
}

struct Report(Value);

impl Report {
    fn number(&self, name: &str) -> u64 {
        self.0[name].as_u64().unwrap_or_else(|| panic!("{name} is a number in {}", self.0))
    }

    /// What must not depend on who did the work.
    fn totals(&self) -> Value {
        let mut report = self.0.clone();
        for name in ["decided_now", "conflicts", "seconds"] {
            report.as_object_mut().expect("an object").remove(name).expect(name);
        }
        report
    }

    fn valid(&self) -> u64 {
        self.number("applied") + self.number("overdraft")
    }
}

/// Four processes of eight workers end with the totals and balances of one worker, and a second run changes nothing.
#[tokio::test]
async fn workers_and_processes_change_nothing() {
    let setting = Setting::new(11).await;
    let one = setting.report(&setting.url("one.db"), &[]).await;
    for name in ["applied", "overdraft", "unknown_account", "malformed", "repeated"] {
        assert!(one.number(name) > 0, "the file has no case of {name}");
    }
    assert_eq!(one.number("decided_now"), one.valid());

    let url = setting.url("many.db");
    let many = setting.report(&url, &["--processes", "4", "--workers", "8"]).await;
    assert_eq!(many.totals(), one.totals());
    assert_eq!(many.number("decided_now"), many.valid());

    let again = setting.report(&url, &["--processes", "2"]).await;
    assert_eq!(again.totals(), one.totals());
    assert_eq!(again.number("decided_now"), 0);
}

/// Processes that all take the same lines to be theirs decide each transfer once.
#[tokio::test]
async fn racing_for_the_same_lines_decides_each_once() {
    let setting = Setting::new(12).await;
    let expected = setting.report("mem:", &[]).await;
    let url = setting.url("race.db");
    let racer = || {
        let mut command = setting.ledger(&url, &["--workers", "4", "--child", "0"]);
        async move { output(&mut command).await.stdout }
    };
    let (one, two, three) = tokio::join!(racer(), racer(), racer());
    let (mut decided, mut conflicts) = (0, 0);
    for done in [one, two, three] {
        let done = Report(serde_json::from_slice(&done).expect("what was done as JSON"));
        decided += done.number("decided");
        conflicts += done.number("conflicts");
    }
    eprintln!("{conflicts} conflicts");
    assert_eq!(decided, expected.valid());
    assert_eq!(setting.report(&url, &[]).await.totals(), expected.totals());
}

/// Lines that are no transfers are reported with their numbers and skipped, and do not use up an id.
#[tokio::test]
async fn bad_lines_are_reported_and_skipped() {
    let folder = TempDir::new().expect("a folder for the test");
    let input = folder.path().join("transfers.csv");
    // A quotation mark means nothing: `"A0` is an account that there is not.
    let file = b"id,from,to,amount\n1,A0,A1,600\n2,A0,A1,600\n\n3,A0\n4,A0,A1,1,1\n5,A0,A1,x\n6,A0,A1,0\n7,A0,A0,1\n\
        8,\xff,A1,1\n9,\"A0,A1,1\n1,A1,A0,5\n3,A1,A0,1\n10,A0,A9,1\n10,A0,A1,1\n";
    std::fs::write(&input, file).expect("a file in the test's folder");
    let output = output(&mut ledger(&input, "mem:", &["--accounts", "2"])).await;

    let report = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = report.lines().filter_map(|line| line.split(':').next()).collect();
    assert_eq!(lines, ["line 5", "line 6", "line 7", "line 8", "line 9", "line 10"], "{report}");
    let report = Report(serde_json::from_slice(&output.stdout).expect("the report as JSON"));
    let counts = ["applied", "overdraft", "unknown_account", "malformed", "repeated"].map(|name| report.number(name));
    assert_eq!(counts, [2, 1, 2, 6, 2], "{}", report.0);
    assert_eq!(report.0["balances"], serde_json::json!([401, 1599]));
}

/// An account as the example keeps it.
#[derive(Clone, Serialize, Deserialize)]
struct Account {
    balance: i64,
    decisions: Vec<bool>,
}

/// The accounts, as somebody else sees them while the work goes on.
struct Auditor {
    stm: Stm,
    accounts: Vec<Ref<Account>>,
}

impl Auditor {
    async fn open(url: &str) -> Result<Self> {
        let stm = avout::connect(url).await?;
        while stm.list("/ledger/accounts").await?.len() < ACCOUNTS {
            sleep(Duration::from_millis(10)).await;
        }
        let mut accounts = Vec::new();
        for key in stm.list("/ledger/accounts").await? {
            accounts.push(stm.open_ref(key.as_str()).await?);
        }
        Ok(Self { stm, accounts })
    }

    /// How many transfers are decided. At no moment is money lost or an account overdrawn.
    async fn decided(&self) -> Result<usize> {
        let accounts: Vec<Account> = self.stm.dosync(async |tx| tx.get_many(&self.accounts).await).await?;
        assert_eq!(accounts.iter().map(|account| account.balance).sum::<i64>(), 1000 * ACCOUNTS as i64);
        assert!(accounts.iter().all(|account| account.balance >= 0));
        Ok(accounts.iter().map(|account| account.decisions.len()).sum::<usize>() / 2)
    }

    async fn until_decided(&self, count: usize) -> Result<()> {
        while self.decided().await? < count {
            sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

/// Two of four processes are killed at random moments and started again, and nothing is lost, done twice or overdrawn.
#[tokio::test]
async fn killed_processes_lose_and_repeat_nothing() -> Result<()> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("AVOUT_TEST_SEED").unwrap_or_else(rand::random);
    for run in 0..number("AVOUT_LEDGER_RUNS").unwrap_or(1) {
        let seed = seed.wrapping_add(run);
        eprintln!("AVOUT_TEST_SEED={seed}");
        kill_two(seed).await?;
    }
    Ok(())
}

async fn kill_two(seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let setting = Setting::new(seed).await;
    let expected = setting.report("mem:", &[]).await;
    let all = usize::try_from(expected.valid()).expect("a count of lines");
    let url = setting.url("killed.db");

    let mut children: Vec<Child> = (0..4).map(|number| setting.child(&url, number)).collect();
    let first = rng.random_range(0..4);
    let mut kills = [
        (rng.random_range(0..all * 9 / 10), first),
        (rng.random_range(0..all * 9 / 10), (first + rng.random_range(1..4)) % 4),
    ];
    kills.sort_unstable();
    let work = async {
        let auditor = Auditor::open(&url).await?;
        for (moment, victim) in kills {
            auditor.until_decided(moment).await?;
            children[victim].kill().await.expect("a process of this test");
            let status = children[victim].wait().await.expect("a process of this test");
            assert!(!status.success(), "process {victim} ended before all was decided, or was not killed");
            eprintln!("killed process {victim} after {} of {all} transfers", auditor.decided().await?);
            children[victim] = setting.child(&url, victim);
        }
        for child in &mut children {
            let status = child.wait().await.expect("a process of this test");
            assert!(status.success(), "{status}");
        }
        assert_eq!(auditor.decided().await?, all);
        Ok(())
    };
    timeout(Duration::from_secs(120), work).await.expect("an end within two minutes")?;

    let report = setting.report(&url, &[]).await;
    assert_eq!(report.totals(), expected.totals());
    assert_eq!(report.number("decided_now"), 0);
    Ok(())
}

/// The server of a Redis that syncs each write is killed twice and started again, and nothing is lost, done twice or
/// overdrawn.
#[cfg(feature = "redis")]
#[tokio::test]
async fn a_killed_redis_loses_and_repeats_nothing() -> std::result::Result<(), Box<dyn std::error::Error>> {
    use avout_conformance::servers::Redis;

    let redis = match Redis::with(&["--appendfsync", "always"]).await {
        Err(error) if error.is_missing() && !support::is_required("redis") => {
            eprintln!("not tested: {error}");
            return Ok(());
        }
        started => started?,
    };
    let seed = rand::random();
    eprintln!("seed {seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let setting = Setting::new(seed).await;
    let expected = setting.report("mem:", &[]).await;
    let all = usize::try_from(expected.valid()).expect("a count of lines");
    let url = format!("{}?appendfsync=always", redis.url("ledger"));

    let mut children: Vec<Child> = (0..4).map(|number| setting.child(&url, number)).collect();
    let mut kills = [rng.random_range(0..all * 9 / 10), rng.random_range(0..all * 9 / 10)];
    kills.sort_unstable();
    let work = async {
        let auditor = Auditor::open(&url).await?;
        for moment in kills {
            auditor.until_decided(moment).await?;
            redis.node(0).kill().await?;
            redis.node(0).start().await?;
            eprintln!("killed the server after {} of {all} transfers", auditor.decided().await?);
        }
        for child in &mut children {
            let status = child.wait().await?;
            assert!(status.success(), "{status}");
        }
        assert_eq!(auditor.decided().await?, all);
        Ok::<_, Box<dyn std::error::Error>>(())
    };
    timeout(Duration::from_secs(120), work).await.expect("an end within two minutes")?;

    let report = setting.report(&url, &[]).await;
    assert_eq!(report.totals(), expected.totals());
    assert_eq!(report.number("decided_now"), 0);
    Ok(())
}
