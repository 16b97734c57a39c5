//! A copy of the server's files that is put back under running clients, as docs/backup.md says.

use std::collections::BTreeSet;
use std::time::Duration;

use avout_conformance::servers::Mongo;
use avout_core::LostCommits;
use avout_core::{Error, Lock, LockGuard, Ref, Stm};
use mongodb::bson::doc;

use crate::older_copy::{copy, goes_on_for_a_moment, put_back};
use crate::support::{Outcome, driver, open, with};

const SOON: Duration = Duration::from_secs(40);
/// How many clients have seen what is lost then.
const CLIENTS: usize = 3;
const COMMITS: i64 = 5;

/// A client with a lock and a count.
struct Client {
    stm: Stm,
    lock: Lock,
    count: Ref<i64>,
}

impl Client {
    async fn open(url: &str) -> Result<Self, Box<dyn std::error::Error>> {
        let backend = open(url).await?;
        let stm = Stm::builder(backend.coordinator, backend.store).session_ttl(Duration::from_secs(3)).build();
        let lock = stm.lock("/lock")?;
        let count = stm.create_or_open_ref("/count", 0_i64).await?;
        Ok(Self { stm, lock, count })
    }

    async fn holds(&self, guard: &LockGuard) -> bool {
        self.stm.dosync(async |tx| tx.require(guard).await).await.is_ok()
    }

    /// Commits some times. Gives the numbers that it was granted, and how often it was told of a loss.
    async fn go_on(&self) -> avout_core::Result<(Vec<i64>, usize)> {
        let (mut granted, mut told) = (Vec::new(), 0);
        while granted.len() < COMMITS as usize {
            match self.count.alter(|n| n + 1).await {
                Ok(number) => granted.push(number),
                Err(error) if is_loss(&error) => told += 1,
                Err(error) => return Err(error),
            }
        }
        Ok((granted, told))
    }
}

fn is_loss(error: &Error) -> bool {
    error.downcast_ref::<LostCommits>().is_some()
}

/// A namespace is copied under load, with `fsyncLock`, and restored under running clients. Each that has seen what is lost is told
/// once, a lock that was taken since the copy is nobody's, and each number is granted to one commit.
pub(crate) async fn a_copy_is_restored_under_running_clients() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    let url = with(&mongo.url("tests"), "namespace=restored&timeout=10s");
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::open(&url).await?);
    }
    let [first, second, third] = &clients[..] else { unreachable!("there are three") };
    let early = first.lock.acquire().await?;
    assert_eq!(first.count.alter(|n| n + 1).await?, 1);

    let admin = driver(&url).await?.client().database("admin");
    let saved = tempfile::TempDir::new()?;
    admin.run_command(doc! { "fsync": 1, "lock": true }).await?;
    copy(mongo.node(0).folder(), saved.path())?;
    admin.run_command(doc! { "fsyncUnlock": 1 }).await?;

    early.release().await?;
    let late = second.lock.acquire().await?;
    goes_on_for_a_moment(&second.count).await?;
    for client in &clients {
        client.count.alter(|n| n + 1).await?;
    }
    mongo.node(0).kill().await?;
    put_back(saved.path(), mongo.node(0).folder())?;
    mongo.node(0).start().await?;
    mongo.primary().await?;

    // It opens for a client that is new, and has seen nothing that is lost.
    let new = Client::open(&url).await?;
    let all = async { tokio::try_join!(first.go_on(), second.go_on(), third.go_on(), new.go_on()) };
    let (one, two, three, four) = tokio::time::timeout(SOON, all).await??;
    assert_eq!([one.1, two.1, three.1, four.1], [1, 1, 1, 0], "who has seen what is lost is told once");
    let granted: BTreeSet<i64> = [one.0, two.0, three.0, four.0].into_iter().flatten().collect();
    let last = 1 + (CLIENTS as i64 + 1) * COMMITS;
    assert_eq!(granted, (2..=last).collect(), "each number is granted once");

    assert!(!second.holds(&late).await, "the lock was taken in the history that is lost");
    let again = tokio::time::timeout(SOON, third.lock.acquire()).await??;
    assert!(third.holds(&again).await && !second.holds(&late).await, "it has one holder");
    assert!(again.token() > late.token(), "{} after {}", again.token(), late.token());
    again.release().await?;
    Ok(())
}
