//! Clients where tokio's clock is paused, where there is no tokio, and in a `static` that many tests share.

use std::time::{Duration, Instant};

use avout::{ErrorKind, Stm};
use tempfile::TempDir;
use tokio::sync::OnceCell;

const HOUR: Duration = Duration::from_secs(3600);

/// The stores that need no server, each in a folder of its own.
fn urls(folder: &TempDir) -> [String; 3] {
    let file = format!("sqlite:{}", folder.path().join("state.db").display());
    ["mem:".to_owned(), "sqlite::memory:".to_owned(), file]
}

/// Requests, waiting, a lock and a queue.
async fn work(stm: &Stm) -> avout::Result<()> {
    let count = stm.create_ref("/count", 0).await?;
    assert_eq!(count.alter(|n| n + 1).await?, 1);
    let large = stm.create_ref("/large", "x".repeat(1 << 20)).await?;
    assert_eq!(large.get().await?.len(), 1 << 20);
    let atom = stm.create_atom("/atom", 0).await?;
    assert_eq!(atom.swap(|n| n + 1).await?, 1);
    let waiting =
        stm.transaction().deadline(Duration::from_millis(50)).dosync(async |tx| match tx.get(&count).await? {
            1 => Err(tx.retry()),
            n => Ok(n),
        });
    assert_eq!(waiting.await.expect_err("nobody changes it").kind(), ErrorKind::Timeout);
    let guard = stm.lock("/lock")?.acquire().await?;
    assert!(guard.is_held());
    guard.release().await?;
    let queue = stm.queue("/jobs", 10)?;
    queue.push(1).await?;
    let delivery = queue.receive(HOUR).await?;
    assert_eq!(delivery.ack().await?, 1);
    Ok(())
}

/// A client works under an executor that is not tokio's.
#[test]
fn clients_need_no_tokio() {
    let folder = TempDir::new().expect("a folder");
    for url in urls(&folder) {
        futures_executor::block_on(async {
            let stm = avout::connect(&url).await?;
            work(&stm).await?;
            stm.close().await;
            avout::Result::Ok(())
        })
        .unwrap_or_else(|error: avout::Error| panic!("{url}: {error:?}"));
    }
}

/// A client works where tokio's clock is paused.
#[tokio::test(start_paused = true)]
async fn clients_work_on_simulated_time() {
    let folder = TempDir::new().expect("a folder");
    for url in urls(&folder) {
        let stm = avout::connect(&url).await.expect("a client");
        work(&stm).await.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    }
}

/// A lock is held for as long as simulated time says, and waited for on it.
#[tokio::test(start_paused = true)]
async fn locks_are_kept_on_simulated_time() {
    let folder = TempDir::new().expect("a folder");
    for url in urls(&folder) {
        let begun = Instant::now();
        let stm = avout::connect(&url).await.expect("a client");
        let guard = stm.lock("/lock").expect("a key").acquire().await.expect("the lock");
        tokio::time::sleep(HOUR / 4).await;
        assert!(guard.is_held(), "{url}: lost");
        let waiter = tokio::spawn({
            let lock = stm.lock("/lock").expect("a key");
            async move { lock.acquire_timeout(HOUR).await }
        });
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!waiter.is_finished(), "{url}: two have it");
        guard.release().await.expect("it was held");
        let guard = waiter.await.expect("no panic").unwrap_or_else(|error| panic!("{url}: {error:?}"));
        guard.release().await.expect("it was held");
        assert!(begun.elapsed() < HOUR / 6, "{url}: time was not simulated");
    }
}

/// What many tests share: a client in a static.
async fn shared() -> &'static Stm {
    static SHARED: OnceCell<Stm> = OnceCell::const_new();
    SHARED.get_or_init(async || avout::connect("sqlite::memory:").await.expect("a client")).await
}

async fn use_shared(name: &str) {
    let stm = shared().await;
    let lock = stm.lock("/shared").expect("a key");
    for _ in 0..10 {
        let guard = lock.acquire().await.expect("the lock");
        stm.create_or_open_ref(format!("/{name}"), 0).await.expect("a ref").alter(|n| n + 1).await.expect("a change");
        tokio::time::sleep(Duration::from_millis(3)).await;
        guard.release().await.expect("it was held");
    }
}

/// Tests with runtimes of their own, which end at different times, share a client.
#[tokio::test]
async fn tests_share_a_client() {
    use_shared("one").await;
}

/// One more of them.
#[tokio::test]
async fn tests_share_a_client_two() {
    use_shared("two").await;
}

/// And one on several threads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tests_share_a_client_three() {
    use_shared("three").await;
}
