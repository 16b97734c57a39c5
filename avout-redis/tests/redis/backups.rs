//! Copies of a server's data that are put back under running clients, as docs/backup.md says.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::{Lock, LockGuard, Stm};

use crate::histories::forgetful;
use crate::support::{Load, Outcome, Pair, at_last, lost, namespace, open, within};

const SOON: Duration = Duration::from_secs(20);
/// How many clients have seen what is lost then.
const CLIENTS: usize = 3;
const BUMPS: u64 = 5;

/// A snapshot of `BGSAVE` is restored under running clients.
pub(crate) async fn a_snapshot_is_restored_under_running_clients() -> Outcome {
    let redis = forgetful().await?;
    let file = folder(&redis).await?.join("dump.rdb");
    let copy = file.with_extension("copy");
    restored(
        &redis,
        async || {
            assert!(!redis.command(0, &["BGSAVE"]).await?.starts_with('-'));
            at_last("the snapshot", async || {
                let info = redis.command(0, &["INFO", "persistence"]).await.ok()?;
                let says = |line| info.lines().any(|other| other == line);
                (says("rdb_bgsave_in_progress:0") && says("rdb_last_bgsave_status:ok") && file.exists()).then_some(())
            })
            .await;
            Ok(std::fs::copy(&file, &copy).map(drop)?)
        },
        || std::fs::copy(&copy, &file).map(drop),
    )
    .await
}

/// A copy of the append-only files, taken while commits go on and no rewrite is under way, is restored under running clients.
pub(crate) async fn a_log_is_restored_under_running_clients() -> Outcome {
    let redis = Redis::single().await?;
    let files = folder(&redis).await?.join("appendonlydir");
    let copy = files.with_extension("copy");
    restored(
        &redis,
        async || {
            redis.command(0, &["CONFIG", "SET", "auto-aof-rewrite-percentage", "0"]).await?;
            at_last("no rewrite", async || {
                let info = redis.command(0, &["INFO", "persistence"]).await.ok()?;
                info.lines().any(|line| line == "aof_rewrite_in_progress:0").then_some(())
            })
            .await;
            copy_all(&files, &copy)?;
            redis.command(0, &["CONFIG", "SET", "auto-aof-rewrite-percentage", "100"]).await?;
            Ok(())
        },
        || {
            std::fs::remove_dir_all(&files)?;
            copy_all(&copy, &files)
        },
    )
    .await
}

async fn folder(redis: &Redis) -> Outcome<PathBuf> {
    let answer = redis.command(0, &["CONFIG", "GET", "dir"]).await?;
    Ok(answer.lines().nth(1).ok_or("a folder")?.into())
}

fn copy_all(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// A client that has seen what is lost then, with a lock.
struct Client {
    pair: Pair,
    lock: Lock,
}

impl Client {
    async fn open(url: &str) -> Outcome<Self> {
        let backend = avout_redis::connect(url).await?;
        let stm = Stm::builder(backend.coordinator, backend.store).session_ttl(Duration::from_secs(2)).build();
        let lock = stm.lock("/lock")?;
        Ok(Self { pair: Pair::open(stm, "pair").await?, lock })
    }

    async fn holds(&self, guard: &LockGuard) -> bool {
        self.pair.stm.dosync(async |tx| tx.require(guard).await).await.is_ok()
    }

    /// Commits `BUMPS` times. Gives the numbers that it was granted, and how often it was told of a loss.
    async fn go_on(&self) -> (Vec<u64>, usize) {
        let (mut granted, mut told) = (Vec::new(), 0);
        while granted.len() < BUMPS as usize {
            match within(SOON, "a commit after the restore", self.pair.bump()).await {
                Ok(number) => granted.push(number),
                Err(error) if lost(&error).is_some() => told += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        (granted, told)
    }
}

/// Backs up and restores under load. Clients that have seen what is lost are told once, the lock that was taken since the copy is
/// nobody's, and each number is granted to one commit.
async fn restored(
    redis: &Redis,
    back_up: impl AsyncFn() -> Outcome,
    put_back: impl Fn() -> std::io::Result<()>,
) -> Outcome {
    let url = redis.url(&namespace());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::open(&url).await?);
    }
    let [first, second, third] = &clients[..] else { unreachable!("there are three") };
    let load = Load::start(&[open(&url).await?, open(&url).await?], 2).await?;
    load.more(10).await;
    let early = within(SOON, "the lock", first.lock.acquire()).await?;
    assert_eq!(first.pair.bump().await?, 1);
    back_up().await?;
    early.release().await?;
    let late = within(SOON, "the lock again", second.lock.acquire()).await?;
    for number in 2..=9 {
        assert_eq!(second.pair.bump().await?, number);
    }
    for client in &clients {
        assert_eq!(client.pair.read().await?, 9);
    }
    load.more(10).await;

    redis.node(0).kill().await?;
    put_back()?;
    redis.node(0).start().await?;
    let (one, two, three) = tokio::join!(first.go_on(), second.go_on(), third.go_on());
    assert_eq!([one.1, two.1, three.1], [1; CLIENTS], "each is told once");
    let granted: BTreeSet<u64> = [one.0, two.0, three.0].into_iter().flatten().collect();
    // A server that syncs its log writes to it up to two seconds late, so the copy may lack what came just before.
    let next = *granted.first().ok_or("a number")?;
    assert!((1..=2).contains(&next), "{next} follows what the copy has");
    let end = next + CLIENTS as u64 * BUMPS;
    assert_eq!(granted, (next..end).collect(), "each number is granted once");
    assert!(!second.holds(&late).await, "the lock was taken in the history that is lost");
    let again = within(SOON, "the lock after the restore", third.lock.acquire()).await?;
    assert!(third.holds(&again).await && !second.holds(&late).await);
    again.release().await?;
    drop(late);
    // It opens for a client that is new.
    assert_eq!(Client::open(&url).await?.pair.read().await?, end - 1);
    load.check_with_loss().await?;
    Ok(())
}
