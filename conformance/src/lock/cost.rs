//! How many requests a lock makes.

use std::sync::Arc;
use std::time::Duration;

use super::bench::{LONG, client, counted, until_status};
use crate::fault::Counts;
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::stm::bench::SOON;

laws! { "lock":
    alone_it_is_two_commits,
    a_handover_costs_the_same_for_any_number_of_waiters,
    a_request_costs_the_same_for_any_number_of_waiters,
}

/// Alone, to acquire and release is two commits and at most two reads.
async fn alone_it_is_two_commits(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let lock = stm.lock("/lock")?;
    for round in 0..5 {
        counting.take();
        lock.acquire().await?.release().await?;
        let counts = counting.take();
        assert_eq!(counts.commits, 2, "round {round}: {counts:?}");
        assert_eq!(counts.requests(), 4, "round {round}: {counts:?}");
    }
    Ok(())
}

/// What a release and the grant that follows from it cost, with so many waiters of another client.
async fn handover(ctx: &Ctx, key: &str, waiters: usize) -> Result<(Counts, Counts), Failure> {
    let (holder, held) = counted(ctx).await?;
    let (others, waited) = counted(ctx).await?;
    let observer = client(ctx, LONG).await?.lock(key)?;
    let guard = holder.lock(key)?.acquire().await?;
    let lock = others.lock(key)?;
    let (granted, mut grants) = tokio::sync::mpsc::unbounded_channel();
    let go_on = Arc::new(tokio::sync::Semaphore::new(0));
    for _ in 0..waiters {
        let (lock, granted, go_on) = (lock.clone(), granted.clone(), Arc::clone(&go_on));
        tokio::spawn(async move {
            let guard = lock.acquire().await.expect("a turn");
            granted.send(()).expect("the law listens");
            // It is held until all is counted.
            go_on.acquire().await.expect("never closed").forget();
            drop(guard);
        });
    }
    until_status(&observer, 1, waiters).await;
    // What they do once when they begin to wait is over when no more requests come.
    let mut before = waited.counts();
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = waited.counts();
        if now == before {
            break;
        }
        before = now;
    }
    held.take();
    waited.take();
    guard.release().await?;
    within(SOON, "a turn", grants.recv()).await;
    // More would be woken by now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let counts = (held.take(), waited.take());
    assert!(grants.try_recv().is_err(), "one is granted");
    go_on.add_permits(waiters);
    for _ in 1..waiters {
        within(SOON, "a turn", grants.recv()).await;
    }
    until_status(&observer, 0, 0).await;
    Ok(counts)
}

/// A release wakes one waiter, and the requests of a hand-over are as many for 100 waiters as for one.
async fn a_handover_costs_the_same_for_any_number_of_waiters(ctx: Ctx) -> Outcome {
    for waiters in [1, 10, 100] {
        let (held, waited) = handover(&ctx, &format!("/lock/{waiters}"), waiters).await?;
        assert_eq!((held.reads, held.commits, held.requests()), (2, 1, 3), "{waiters} waiters, a release: {held:?}");
        // A hint without a change costs a read, and should be rare.
        assert!((1..=2).contains(&waited.requests()), "{waiters} waiters, what they did: {waited:?}");
        assert_eq!(waited.commits, 0, "{waiters} waiters, what they did: {waited:?}");
    }
    Ok(())
}

/// To enter the line costs as much behind 100 as behind one.
async fn a_request_costs_the_same_for_any_number_of_waiters(ctx: Ctx) -> Outcome {
    let (holder, _) = counted(&ctx).await?;
    let (others, waited) = counted(&ctx).await?;
    let observer = client(&ctx, LONG).await?.lock("/lock")?;
    let guard = holder.lock("/lock")?.acquire().await?;
    let lock = others.lock("/lock")?;
    let mut waiting = Vec::new();
    let mut costs = Vec::new();
    for waiter in 0..100 {
        waited.take();
        let lock = lock.clone();
        waiting.push(tokio::spawn(async move { lock.acquire().await.map(drop) }));
        until_status(&observer, 1, waiter + 1).await;
        if [0, 1, 10, 99].contains(&waiter) {
            // Its watch, and its first look at those ahead.
            within(SOON, "its first look", async {
                while waited.counts().reads < 3 {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            })
            .await;
            let counts = waited.take();
            costs.push((counts.reads, counts.commits, counts.watches));
        }
    }
    assert!(costs.iter().all(|cost| *cost == (3, 1, 1)), "reads, commits and watches: {costs:?}");
    drop(guard);
    for waiter in waiting {
        within(SOON, "a turn", waiter).await.expect("no panic")?;
    }
    Ok(())
}
