//! Runtimes at once, a runtime that does not run, none at all, and simulated time.

use std::time::Duration;

use avout_core::backend::time::{sleep, timeout};
use avout_core::{ErrorKind, Stm};
use futures_util::future::{join, join_all, try_join_all};

use super::{on_a_thread, paused, single};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::lock::bench::{TTL, client};
use crate::stm::bench::SOON;

laws! { "runtimes":;
    timed:
    runtimes_share_a_client_at_the_same_time,
    a_runtime_that_does_not_run_holds_up_no_other,
    a_client_needs_no_tokio,
    a_paused_clock_does_not_run_ahead_of_answers,
}

/// Several runtimes of one thread use one client at the same time, and each change counts once.
async fn runtimes_share_a_client_at_the_same_time(ctx: Ctx) -> Outcome {
    const RUNTIMES: usize = 3;
    const ROUNDS: usize = 10;
    let stm = client(&ctx, TTL).await?;
    let count = stm.create_ref("/count", 0_usize).await?;
    let under_lock = stm.create_ref("/under-lock", 0_usize).await?;
    let commuted = stm.create_ref("/commuted", 0_usize).await?;
    let atom = stm.create_atom("/atom", 0_usize).await?;
    together((0..RUNTIMES).map(|_| {
        let (stm, count, under_lock, commuted, atom) =
            (stm.clone(), count.clone(), under_lock.clone(), commuted.clone(), atom.clone());
        on_a_thread(move || {
            single().block_on(async {
                let lock = stm.lock("/lock")?;
                for _ in 0..ROUNDS {
                    count.alter(|n| n + 1).await?;
                    stm.dosync(async |tx| tx.commute(&commuted, |n| n + 1).await).await?;
                    atom.swap(|n| n + 1).await?;
                    let guard = lock.acquire().await?;
                    let before = under_lock.get().await?;
                    tokio::task::yield_now().await;
                    under_lock.set(before + 1).await?;
                    guard.release().await?;
                }
                Ok::<_, Failure>(())
            })
        })
    }))
    .await?;
    for r in [count, under_lock, commuted] {
        assert_eq!(r.get().await?, RUNTIMES * ROUNDS, "{}", r.key());
    }
    assert_eq!(atom.get().await?, RUNTIMES * ROUNDS);
    Ok(())
}

/// A runtime between two `block_on`, with requests under way on it, holds up none of the client's other users, and what it holds is
/// kept.
async fn a_runtime_that_does_not_run_holds_up_no_other(ctx: Ctx) -> Outcome {
    let this = ctx.clone();
    let (idle, stm, guard) = on_a_thread(move || {
        let idle = single();
        let (stm, guard) = idle.block_on(async {
            let stm = client(&this, TTL).await?;
            let r = stm.create_ref("/r", 0_i64).await?;
            stm.create_atom("/atom", 0_i64).await?;
            let guard = stm.lock("/held")?.acquire().await?;
            stm.lock("/lock")?.acquire().await?.release().await?;
            for _ in 0..3 {
                let (stm, r) = (stm.clone(), r.clone());
                let lock = stm.lock("/another")?;
                tokio::spawn(async move { r.alter(|n| n + 1).await });
                tokio::spawn(async move { stm.open_ref::<i64>("/r").await });
                tokio::spawn(async move { lock.acquire().await?.release().await });
            }
            // Their requests are sent, and no answer is taken.
            tokio::task::yield_now().await;
            Ok::<_, Failure>((stm, guard))
        })?;
        Ok::<_, Failure>((idle, stm, guard))
    })
    .await?;
    let other = stm.clone();
    let used = on_a_thread(move || {
        single().block_on(async {
            let r = other.open_ref::<i64>("/r").await?;
            let atom = other.open_atom::<i64>("/atom").await?;
            let lock = other.lock("/lock")?;
            for _ in 0..3 {
                within(SOON, "an alter", r.alter(|n| n + 1)).await?;
                let commute = other.dosync(async |tx| tx.commute(&r, |n| n + 1).await);
                within(SOON, "a commute", commute).await?;
                within(SOON, "a swap", atom.swap(|n| n + 1)).await?;
                within(SOON, "a lock", lock.acquire()).await?.release().await?;
            }
            let mut changes = r.watch().await?;
            within(SOON, "a reset", r.set(0)).await?;
            within(SOON, "a change", changes.next()).await.expect("the watch goes on")?;
            tokio::time::sleep(TTL * 5 / 2).await;
            Ok::<_, Failure>(())
        })
    });
    used.await?;
    assert!(guard.is_held(), "its lock is lost");
    let other = client(&ctx, TTL).await?.lock("/held")?;
    assert!(other.try_acquire().await?.is_none(), "another one has its lock");
    on_a_thread(move || drop(idle)).await;
    Ok(())
}

/// What a client does for its users, in short.
async fn everything(ctx: &Ctx) -> Outcome {
    let [one, two] = [client(ctx, TTL).await?, client(ctx, TTL).await?];
    requests(&one, &two).await?;
    coordination(&one, &two).await?;
    one.close().await;
    two.close().await;
    Ok(())
}

async fn requests(one: &Stm, two: &Stm) -> Outcome {
    let r = one.create_ref("/r", 0_i64).history(100).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let mut changes = of_two.watch().await?;
    try_join_all((0..4).map(|_| r.alter(|n| n + 1))).await?;
    try_join_all((0..4).map(|_| one.dosync(async |tx| tx.commute(&r, |n| n + 1).await))).await?;
    of_two.alter(|n| n + 1).await?;
    while changes.next().await.expect("the watch goes on")?.new != Some(9) {}
    let large = one.create_ref("/large", "x".repeat(300_000)).await?;
    assert_eq!(large.get().await?.len(), 300_000);
    assert_eq!(two.open_ref::<String>("/large").await?.get().await?.len(), 300_000);
    let atom = one.create_atom("/atom", 0_i64).await?;
    try_join_all((0..4).map(|_| atom.swap(|n| n + 1))).await?;
    assert_eq!(two.open_atom::<i64>("/atom").await?.get().await?, 4);
    let retry = one.dosync(async |tx| match tx.get(&r).await? {
        100 => Ok(()),
        _ => Err(tx.retry()),
    });
    let (retried, set) = join(retry, of_two.set(100)).await;
    retried?;
    set?;
    assert_eq!(one.list("/").await?.len(), 2);
    Ok(())
}

async fn coordination(one: &Stm, two: &Stm) -> Outcome {
    let guard = one.lock("/lock")?.acquire().await?;
    let of_two = two.lock("/lock")?;
    let refused = of_two.acquire_timeout(Duration::from_millis(50)).await.expect_err("it is held");
    assert_eq!(refused.kind(), ErrorKind::Timeout);
    let held = async {
        sleep(TTL * 3 / 2).await;
        assert!(guard.is_held());
        guard.release().await
    };
    let (acquired, released) = join(of_two.acquire(), held).await;
    released?;
    drop(acquired?);
    let queue = one.queue::<i64>("/jobs", 10)?;
    let of_two = two.queue::<i64>("/jobs", 10)?;
    let (popped, pushed) = join(queue.pop(), of_two.push(3)).await;
    pushed?;
    assert_eq!(popped?, 3);
    queue.push(4).await?;
    assert_eq!(of_two.receive(TTL).await?.ack().await?, 4);
    let waiting = [one.barrier("/barrier", 2)?, two.barrier("/barrier", 2)?];
    for waited in join_all(waiting.iter().map(|barrier| barrier.wait())).await {
        waited?;
    }
    Ok(())
}

/// A client does all that it does under an executor that is not tokio's.
async fn a_client_needs_no_tokio(ctx: Ctx) -> Outcome {
    let limit = ctx.fixture.time_limit();
    let done = on_a_thread(move || futures_executor::block_on(timeout(limit, everything(&ctx))));
    done.await.unwrap_or_else(|_| Err(Failure::Broken(format!("no end within {limit:?}"))))
}

/// On simulated time, which runs ahead whenever its runtime has nothing to do, all answers come in time and locks are kept.
async fn a_paused_clock_does_not_run_ahead_of_answers(ctx: Ctx) -> Outcome {
    let simulated = on_a_thread(move || {
        paused().block_on(async {
            everything(&ctx).await?;
            let (one, two) = (client(&ctx, TTL).await?, client(&ctx, TTL).await?);
            let guard = one.lock("/lock")?.acquire().await?;
            for _ in 0..20 {
                tokio::time::sleep(TTL).await;
                assert!(guard.is_held(), "the lock is lost");
                assert!(two.lock("/lock")?.try_acquire().await?.is_none(), "another one has it");
            }
            guard.release().await?;
            Ok(())
        })
    });
    simulated.await
}
