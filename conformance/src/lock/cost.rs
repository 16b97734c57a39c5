//! How many requests a lock makes.

use std::sync::Arc;
use std::time::Duration;

use super::bench::{LONG, client, counted, until_status};
use crate::fault::{Counting, Counts};
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::stm::bench::{SOON, eventually};

laws! { "lock":
    alone_it_is_two_commits;
    timed:
    a_handover_costs_the_same_for_any_number_of_waiters,
    a_request_costs_the_same_for_any_number_of_waiters,
    a_wait_for_a_notification_makes_no_requests,
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

/// Waits until no more requests come: none for long, as a slow server may be about to answer one that is followed by others.
async fn until_quiet(counting: &Counting) {
    let mut before = counting.counts();
    let mut quiet = 0;
    while quiet < 4 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = counting.counts();
        quiet = if now == before { quiet + 1 } else { 0 };
        before = now;
    }
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
    // What they, and the holder, do once when others begin to wait is over.
    until_quiet(&waited).await;
    until_quiet(&held).await;
    held.take();
    waited.take();
    guard.release().await?;
    within(SOON, "a turn", grants.recv()).await;
    // More would be woken by now.
    until_quiet(&waited).await;
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

/// Waits until so many waiters have made all their requests: each a watch, and a first look at those ahead after it entered.
async fn until_all_look(counting: &Counting, waiters: usize) {
    let waiters = waiters as u64;
    eventually("a watch and a look of each", || {
        let counts = counting.counts();
        counts.watches >= waiters && counts.reads >= 2 * waiters
    })
    .await;
    until_quiet(counting).await;
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
        let counted = [0, 1, 10, 99].contains(&waiter);
        if counted {
            until_all_look(&waited, waiter).await;
        }
        let before = waited.counts();
        let lock = lock.clone();
        waiting.push(tokio::spawn(async move { lock.acquire().await.map(drop) }));
        until_status(&observer, 1, waiter + 1).await;
        if counted {
            until_all_look(&waited, waiter + 1).await;
            let now = waited.counts();
            costs.push((now.reads - before.reads, now.commits - before.commits, now.watches - before.watches));
        }
    }
    // Whether those ahead live the store may tell by itself, and a hint without a change costs a read.
    let fits = |(reads, commits, watches): &(u64, u64, u64)| (2..=4).contains(reads) && (*commits, *watches) == (1, 1);
    assert!(
        costs.iter().all(fits),
        "reads, commits and watches for the 1st, the 2nd, the 11th and the 100th: {costs:?}"
    );
    drop(guard);
    for waiter in waiting {
        within(SOON, "a turn", waiter).await.expect("no panic")?;
    }
    Ok(())
}

/// Whoever waits to be notified looks around now and then, and makes no requests in between.
async fn a_wait_for_a_notification_makes_no_requests(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let lock = stm.lock("/lock")?;
    let waiter = tokio::spawn({
        let (guard, condition) = (lock.acquire().await?, lock.condition("c")?);
        async move { condition.wait(guard).await }
    });
    until_status(&lock, 0, 0).await;
    until_quiet(&counting).await;
    counting.take();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let counts = counting.take();
    assert!(counts.requests() <= 2, "while it waits: {counts:?}");
    let guard = lock.acquire().await?;
    assert!(lock.condition("c")?.notify_one(&guard).await?);
    guard.release().await?;
    within(SOON, "a turn", waiter).await.expect("no panic")?.release().await?;
    Ok(())
}
