//! What transactions cost, by the server's own count.

use std::time::{Duration, Instant};

use avout_conformance::servers::ZooKeeper;

use crate::support::{Outcome, client, hello, tests, two_refs};

tests![hello_is_three_packets, hello_is_two_round_trips, ten_thousand_transactions_leave_no_znodes,];

/// A session is asked nothing but what the test asks for half a minute.
const QUIET: &str = "?connections=1&session_timeout=60s";

/// The packets that `ask` sends, each time that it is asked. The question for the count is one as well.
async fn packets<T>(
    zk: &ZooKeeper,
    ask: impl AsyncFn() -> avout_core::Result<T>,
) -> Result<u64, Box<dyn std::error::Error>> {
    let before = zk.packets_received(0).await?;
    ask().await?;
    Ok(zk.packets_received(0).await? - before - 1)
}

/// `hello` with its refs read together is a sync, a multi-read and a multi, also the first of a client; with one ref it is the same,
/// and without a write it is two. The original sent 84 and 46.
async fn hello_is_three_packets() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let url = format!("{}{QUIET}", zk.url("hello"));
    let maker = client(&url).await?;
    two_refs(&maker).await?;
    let stm = client(&url).await?;
    let (a, b) = two_refs(&stm).await?;
    for round in 0..3 {
        assert_eq!(packets(&zk, async || hello(&stm, &a, &b).await).await?, 3, "hello, round {round}");
    }
    let one = async || stm.dosync(async |tx| tx.alter(&a, |n| n + 1).await).await;
    assert_eq!(packets(&zk, one).await?, 3, "one ref");
    let read = async || stm.dosync(async |tx| tx.get_many((&a, &b)).await).await;
    assert_eq!(packets(&zk, read).await?, 2, "read only");
    let prefetched = async || {
        stm.dosync(async |tx| {
            tx.prefetch((&a, &b)).await?;
            let n = tx.alter(&a, |n| n + 1).await?;
            tx.set(&b, n).await
        })
        .await
    };
    assert_eq!(packets(&zk, prefetched).await?, 3, "with a prefetch");
    Ok(())
}

/// The sync and the multi-read go together: `hello` takes two round trips, and a read one.
async fn hello_is_two_round_trips() -> Outcome {
    const TRIP: Duration = Duration::from_millis(200);
    let zk = ZooKeeper::single().await?;
    let proxy = zk.proxy(0).await?;
    let stm = client(&format!("zk://{}/trips{QUIET}", proxy.address())).await?;
    let (a, b) = two_refs(&stm).await?;
    hello(&stm, &a, &b).await?;
    proxy.delay(TRIP / 2);
    let begun = Instant::now();
    hello(&stm, &a, &b).await?;
    let taken = begun.elapsed();
    assert!(taken >= TRIP * 2 && taken < TRIP * 3, "hello took {taken:?} where a round trip takes {TRIP:?}");
    let begun = Instant::now();
    stm.dosync(async |tx| tx.get_many((&a, &b)).await).await?;
    let taken = begun.elapsed();
    assert!(taken >= TRIP && taken < TRIP * 2, "a read took {taken:?} where a round trip takes {TRIP:?}");
    Ok(())
}

async fn znodes(zk: &ZooKeeper) -> Result<u64, Box<dyn std::error::Error>> {
    let answer = zk.ask(0, "mntr").await?;
    let count = answer.lines().find_map(|line| line.strip_prefix("zk_znode_count")?.trim().parse().ok());
    count.ok_or_else(|| format!("no count of znodes in {answer}").into())
}

/// Ten refs are ten znodes, however often they are changed. The original left three to five with each transaction.
async fn ten_thousand_transactions_leave_no_znodes() -> Outcome {
    let zk = ZooKeeper::single().await?;
    alter_ten(&zk, 100).await?;
    let few = znodes(&zk).await?;
    alter_ten(&zk, 9_900).await?;
    assert_eq!(znodes(&zk).await?, few, "10,000 transactions left more znodes than 100");
    let stm = client(&zk.url("count")).await?;
    let mut sum = 0;
    for n in 0..10 {
        sum += stm.open_ref::<i64>(format!("/r/{n}")).await?.get().await?;
    }
    assert_eq!(sum, 10_000);
    Ok(())
}

/// Has ten tasks of one client make so many transactions, each on a ref of its own.
async fn alter_ten(zk: &ZooKeeper, count: usize) -> Outcome {
    let stm = client(&zk.url("count")).await?;
    let mut refs = Vec::new();
    for n in 0..10 {
        refs.push(stm.create_or_open_ref(format!("/r/{n}"), 0_i64).await?);
    }
    let workers = refs.into_iter().map(|r| {
        let stm = stm.clone();
        tokio::spawn(async move {
            for _ in 0..count / 10 {
                stm.dosync(async |tx| tx.alter(&r, |n| n + 1).await).await?;
            }
            Ok::<_, avout_core::Error>(())
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await??;
    }
    // It may have had as many slots as tasks.
    stm.close().await;
    Ok(())
}
