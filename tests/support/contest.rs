//! Eight processes over one lock, some of which are killed, or paused for longer than their sessions live.
//!
//! It goes on for ten seconds, or for as many as `AVOUT_LOCK_SECONDS` says. `AVOUT_TEST_SEED` chooses whom it hits, and when.

use std::env;
use std::error::Error;
use std::io::Read as _;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use avout::{ErrorKind, LockGuard, Ref, Stm};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const PROCESSES: usize = 8;

/// How long a session lives.
const TTL: Duration = Duration::from_secs(1);

/// How many commits each holder makes that require its guard.
const STEPS: u32 = 3;

/// What a busy machine may add.
const NOISE: Duration = Duration::from_secs(8);

/// Names what the contest is over to a child.
const URL: &str = "AVOUT_CONTEST_URL";
const NUMBER: &str = "AVOUT_CONTEST_NUMBER";

type Failure = Box<dyn Error>;

/// What holders write, in commits that require their guards.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Field {
    /// Whose turn it is, by the number of the process and its token.
    number: usize,
    token: u64,
    steps: u32,
}

/// What a process has seen.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Tally {
    grants: u64,
    lost: u64,
}

async fn client(url: &str) -> avout::Result<(Stm, Ref<Field>)> {
    let backend = avout::open(url).await?;
    let stm = Stm::builder(backend.coordinator, backend.store).session_ttl(TTL).build();
    let field = stm.create_or_open_ref("/contest/field", Field::default()).history(0).await?;
    Ok((stm, field))
}

/// If this program is one of the eight processes, is that until its standard input ends. `false`: it is not.
pub(crate) fn contend() -> bool {
    let (Ok(url), Ok(number)) = (env::var(URL), env::var(NUMBER)) else {
        return false;
    };
    let number = number.parse().expect("the number of a process");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tally = runtime.block_on(contender(&url, number)).expect("a contender that only loses its guards");
    println!("tally {}", serde_json::to_string(&tally).expect("numbers as JSON"));
    true
}

async fn contender(url: &str, number: usize) -> avout::Result<Tally> {
    let over = Arc::new(AtomicBool::new(false));
    std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let _ = std::io::stdin().read_to_end(&mut Vec::new());
            over.store(true, Ordering::Relaxed);
        }
    });
    let (stm, field) = client(url).await?;
    let lock = stm.lock("/contest/lock")?;
    let mut tally = Tally::default();
    while !over.load(Ordering::Relaxed) {
        let guard = lock.acquire().await?;
        tally.grants += 1;
        let held = hold(&stm, &field, &guard, number).await;
        match held.and(guard.release().await) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Lost => tally.lost += 1,
            Err(error) => return Err(error),
        }
    }
    stm.close().await;
    Ok(tally)
}

/// One turn. Whoever holds the lock sees in all of its commits what it wrote in the one before.
async fn hold(stm: &Stm, field: &Ref<Field>, guard: &LockGuard, number: usize) -> avout::Result<()> {
    let token = guard.token();
    for step in 0..STEPS {
        stm.dosync(async |tx| {
            tx.require(guard).await?;
            let found = tx.get(field).await?;
            match step {
                0 => assert!(found.token < token, "token {token} was granted after {found:?}"),
                _ => assert_eq!(found, Field { number, token, steps: step }, "two hold it at once"),
            }
            tx.set(field, Field { number, token, steps: step + 1 }).await
        })
        .await?;
        // Long enough for a good part of the blows to hit the holder.
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn start(url: &str, number: usize) -> Result<Child, Failure> {
    let mut command = Command::new(env::current_exe()?);
    // To the harness of Rust's tests this is the name of one.
    command.args(["contender", "--exact", "--nocapture"]).env(URL, url).env(NUMBER, number.to_string());
    Ok(command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}

/// Has the eight processes contend for the lock, and sees to it that the promises are kept.
pub(crate) async fn run(url: &str) -> Result<(), Failure> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("AVOUT_TEST_SEED").unwrap_or_else(rand::random);
    let time = Duration::from_secs(number("AVOUT_LOCK_SECONDS").unwrap_or(10));
    eprintln!("AVOUT_TEST_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let (stm, field) = client(url).await?;
    let lock = stm.lock("/contest/lock")?;
    let mut children = (0..PROCESSES).map(|number| start(url, number)).collect::<Result<Vec<_>, _>>()?;
    turn_after(&field, 0).await?;

    let (begun, mut after_deaths, mut pauses) = (Instant::now(), Vec::new(), 0);
    while begun.elapsed() < time || after_deaths.len() < 3 || pauses < 2 {
        sleep(Duration::from_millis(rng.random_range(50..400))).await;
        // The holder, as far as is known, or anybody.
        let victim = if rng.random_bool(0.7) { field.get().await?.number } else { rng.random_range(0..PROCESSES) };
        let pid =
            children[victim].id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("a process that ended")?;
        if rng.random_bool(0.6) {
            children[victim].kill().await?;
            let died = Instant::now();
            turn_after(&field, field.get().await?.token).await?;
            after_deaths.push(died.elapsed());
            children[victim] = start(url, victim)?;
        } else {
            kill_process(pid, Signal::STOP)?;
            sleep(TTL * 11 / 5).await;
            kill_process(pid, Signal::CONT)?;
            turn_after(&field, field.get().await?.token).await?;
            pauses += 1;
        }
    }

    let mut all = Tally::default();
    let ended = async {
        for child in &mut children {
            drop(child.stdin.take());
        }
        for child in children {
            let output = child.wait_with_output().await?;
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{}: {text}", output.status);
            let (_, tally) = text.split_once("tally ").ok_or("a process that tells nothing")?;
            let tally: Tally = serde_json::from_str(tally.lines().next().unwrap_or_default())?;
            all = Tally { grants: all.grants + tally.grants, lost: all.lost + tally.lost };
        }
        Ok::<_, Failure>(())
    };
    timeout(Duration::from_secs(60), ended).await.map_err(|_| "processes that do not end")??;

    after_deaths.sort_unstable();
    eprintln!("{all:?}, {pauses} pauses, the next turn after deaths: {after_deaths:?}");
    assert!(after_deaths[after_deaths.len() / 2] < TTL * 2, "mostly a death held others up for too long");
    // Whoever died with a place in the line was before this one.
    let guard = lock.acquire_timeout(TTL * 2 + NOISE).await?;
    assert!(guard.token() > field.get().await?.token, "the last token is the largest");
    guard.release().await?;
    let status = lock.status().await?;
    assert_eq!((status.held, status.waiting), (0, 0), "nobody is left");
    stm.close().await;
    Ok(())
}

/// Waits until somebody has had the lock after this token: not much longer than it takes to take over from the dead.
async fn turn_after(field: &Ref<Field>, token: u64) -> Result<(), Failure> {
    let turn = async {
        while field.get().await?.token <= token {
            sleep(Duration::from_millis(10)).await;
        }
        Ok::<_, avout::Error>(())
    };
    let turn = timeout(TTL * 2 + NOISE, turn).await;
    Ok(turn.map_err(|_| format!("nobody has had the lock after token {token}"))??)
}
