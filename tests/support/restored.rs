//! A backup of a namespace is put back under clients that are at work.

use std::collections::HashSet;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use avout_core::backend::{Coordinator, Store};
use avout_core::{ErrorKind, Lock, LockGuard, Ref, Stm};
use tokio::time::timeout;

/// How long the test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
const CLIENTS: usize = 3;
/// How long a session lives.
const TTL: Duration = Duration::from_secs(2);

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// What is done to the store.
pub(super) trait Restorable {
    /// Opens a client of the namespace.
    async fn open(&self) -> avout_core::Result<Stm>;
    /// Copies all that was committed, while clients are open.
    async fn back_up(&mut self) -> Outcome;
    /// Puts the copy back, while clients are open.
    async fn put_back(&mut self) -> Outcome;
}

/// Everything below, one after the other.
pub(super) async fn run(store: &mut impl Restorable) -> Outcome {
    commits(store).await?;
    a_grant_that_is_gone(store).await?;
    a_grant_that_came_back(store).await
}

/// A client whose sessions are short.
pub(super) fn stm(coordinator: Arc<dyn Coordinator>, store: Arc<dyn Store>) -> Stm {
    Stm::builder(coordinator, store).session_ttl(TTL).build()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

async fn open(store: &impl Restorable) -> Outcome<(Stm, Ref<i64>, Lock)> {
    let stm = within("a client", store.open()).await?;
    let count = stm.create_or_open_ref("/count", 0_i64).await?;
    let lock = stm.lock("/lock")?;
    Ok((stm, count, lock))
}

/// What a client that adds one again and again was told.
#[derive(Default)]
struct Told {
    /// What its commits left, since it was told of the loss.
    acknowledged: Vec<i64>,
    unknown: usize,
    losses: usize,
}

/// Clients add one while a backup is put back. Each is told of the loss once. What was acknowledged after that is there, each number
/// was given out once, and the count is what the backup had and what was added since.
async fn commits(store: &mut impl Restorable) -> Outcome {
    let (stm, count, _) = open(store).await?;
    stm.dosync(async |tx| tx.set(&count, 1000).await).await?;
    store.back_up().await?;
    let (stop, done, told_of) =
        (Arc::new(AtomicBool::new(false)), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let (stm, count, _) = open(store).await?;
        let (stop, done, told_of) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&told_of));
        clients.push(tokio::spawn(async move {
            let (mut told, mut counted) = (Told::default(), 0_usize);
            while !stop.load(Ordering::SeqCst) {
                let added = stm.transaction().deadline(PATIENCE).dosync(async |tx| tx.alter(&count, |n| n + 1).await);
                match added.await {
                    Ok(n) => {
                        told.acknowledged.push(n);
                        counted += 1;
                        // Each has seen what will be gone, and what comes after it.
                        if counted == 10 {
                            done.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::StoreLost => {
                        told = Told { losses: told.losses + 1, ..Told::default() };
                        counted = 0;
                        told_of.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(error) if error.kind() == ErrorKind::OutcomeUnknown => told.unknown += 1,
                    Err(error) => return Err(error),
                }
            }
            Ok(told)
        }));
    }
    let reaches = async |what: &str, counter: &AtomicUsize, many: usize| {
        let reached = async {
            while counter.load(Ordering::SeqCst) < many && !clients.iter().any(|client| client.is_finished()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        within(what, reached).await;
    };
    reaches("commits before the restore", &done, CLIENTS).await;
    store.put_back().await?;
    reaches("each client is told", &told_of, CLIENTS).await;
    reaches("commits after the restore", &done, 2 * CLIENTS).await;
    stop.store(true, Ordering::SeqCst);
    let (mut given, mut unknown) = (HashSet::new(), 0);
    for client in clients {
        let told = within("a client's end", client).await??;
        assert_eq!(told.losses, 1, "how often a client is told of one loss");
        unknown += told.unknown;
        for n in told.acknowledged {
            assert!(given.insert(n), "{n} was given out twice");
        }
    }
    let (left, least) = (read(store).await?, 1000 + i64::try_from(given.len())?);
    let most = least + i64::try_from(unknown)?;
    assert!((least..=most).contains(&left), "{left} of {least} to {most}");
    Ok(())
}

async fn read(store: &impl Restorable) -> Outcome<i64> {
    let (stm, count, _) = open(store).await?;
    Ok(stm.transaction().deadline(PATIENCE).dosync(async |tx| tx.get(&count).await).await?)
}

/// Adds under a guard.
async fn add(stm: &Stm, count: &Ref<i64>, guard: &LockGuard, n: i64) -> avout_core::Result<i64> {
    let added = stm.transaction().deadline(PATIENCE).dosync(async |tx| {
        tx.require(guard).await?;
        tx.alter(count, |old| old + n).await
    });
    added.await
}

/// One who held the lock in the history that is gone can commit nothing under its guard, is told of the loss once, and knows before long
/// that the lock is not its own.
async fn holds_no_more(stm: &Stm, count: &Ref<i64>, guard: &LockGuard) -> Outcome {
    let mut losses = 0;
    let ended = async {
        loop {
            match add(stm, count, guard, 1_000_000).await {
                Ok(n) => panic!("it wrote {n} under a lock of a history that is gone"),
                Err(error) if error.kind() == ErrorKind::StoreLost => losses += 1,
                Err(error) if error.kind() == ErrorKind::Lost => return,
                Err(error) => panic!("{error:?}"),
            }
        }
    };
    within("the end of a guard", ended).await;
    assert!(losses <= 1, "one loss was told {losses} times");
    within("the guard knows", guard.lost()).await;
    Ok(())
}

/// The lock is granted and used after the backup: it is free again when that is put back, and the earlier holder has nothing of it.
async fn a_grant_that_is_gone(store: &mut impl Restorable) -> Outcome {
    let (before, count, lock) = open(store).await?;
    store.back_up().await?;
    let start = read(store).await?;
    let guard = lock.acquire().await?;
    add(&before, &count, &guard, 1).await?;
    store.put_back().await?;
    let (after, its_count, its_lock) = open(store).await?;
    let its_guard = within("the lock", its_lock.acquire()).await?;
    assert_eq!(add(&after, &its_count, &its_guard, 10).await?, start + 10);
    holds_no_more(&before, &count, &guard).await?;
    assert_eq!(add(&after, &its_count, &its_guard, 10).await?, start + 20);
    its_guard.release().await?;
    Ok(())
}

/// The lock is held when the backup is made, and given to another one after it. When the backup is put back neither holds it, and it
/// can be had.
async fn a_grant_that_came_back(store: &mut impl Restorable) -> Outcome {
    let (_first, _, lock) = open(store).await?;
    let earlier = lock.acquire().await?;
    store.back_up().await?;
    let start = read(store).await?;
    earlier.release().await?;
    let (second, count, its_lock) = open(store).await?;
    let guard = within("the lock", its_lock.acquire()).await?;
    add(&second, &count, &guard, 1).await?;
    store.put_back().await?;
    let (third, its_count, its_lock) = open(store).await?;
    let its_guard = within("the lock", its_lock.acquire()).await?;
    assert_eq!(add(&third, &its_count, &its_guard, 10).await?, start + 10);
    holds_no_more(&second, &count, &guard).await?;
    its_guard.release().await?;
    Ok(())
}
