//! A lock among clients that live.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use avout_core::{ErrorKind, Lock};

use super::bench::{LONG, client, slow, until_status};
use crate::law::{Ctx, Outcome, laws, together, within};
use crate::stm::bench::{SOON, refused};

laws! { "lock":
    one_holds_it_at_a_time,
    it_is_granted_in_the_order_of_requests,
    try_acquire_does_not_wait,
    a_dropped_guard_is_released,
    a_dropped_request_leaves_nothing,
    a_dropped_release_goes_on,
    tokens_grow_over_its_destruction,
    it_is_not_destroyed_while_it_is_used,
    close_waits_for_releases,
    it_is_not_acquired_inside_a_body,
    require_is_for_the_guards_of_its_own_client;
    timed:
    a_timeout_ends_the_wait_and_leaves_nothing,
}

/// However many tasks of several clients want it, each has it alone, and the tokens grow in the order in which they have it.
async fn one_holds_it_at_a_time(ctx: Ctx) -> Outcome {
    const TASKS: usize = 6;
    const ROUNDS: usize = 6;
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    stms[0].create_ref("/count", 0_usize).await?;
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let tasks = (0..TASKS).map(|task| {
        let (stm, tokens) = (stms[task % stms.len()].clone(), Arc::clone(&tokens));
        async move {
            let lock = stm.lock("/lock")?;
            let count = stm.open_ref::<usize>("/count").await?;
            for round in 0..ROUNDS {
                let guard = lock.acquire().await?;
                assert!(guard.is_held());
                tokens.lock().expect("no panic").push(guard.token());
                // Two steps that others may not come between.
                let before = count.get().await?;
                tokio::task::yield_now().await;
                count.set(before + 1).await?;
                match round % 2 {
                    0 => guard.release().await?,
                    _ => drop(guard),
                }
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(stms[0].open_ref::<usize>("/count").await?.get().await?, TASKS * ROUNDS);
    let tokens = tokens.lock().expect("no panic").clone();
    assert!(tokens.is_sorted_by(|earlier, later| earlier < later), "tokens grow: {tokens:?}");
    until_status(&stms[0].lock("/lock")?, 0, 0).await;
    Ok(())
}

/// Whoever came first has it first, whichever client it is of.
async fn it_is_granted_in_the_order_of_requests(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let lock = stms[0].lock("/lock")?;
    let first = lock.acquire().await?;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for number in 0..8_usize {
        let (of_client, order) = (stms[number % 2].lock("/lock")?, Arc::clone(&order));
        waiters.push(tokio::spawn(async move {
            let guard = of_client.acquire().await?;
            order.lock().expect("no panic").push(number);
            guard.release().await
        }));
        until_status(&lock, 1, number + 1).await;
    }
    first.release().await?;
    for waiter in waiters {
        within(SOON, "a turn", waiter).await.expect("no panic")?;
    }
    assert_eq!(*order.lock().expect("no panic"), (0..8).collect::<Vec<_>>());
    Ok(())
}

/// `try_acquire` gives a guard if the lock is free and nothing if it is not, at once, and then leaves nothing in the line.
async fn try_acquire_does_not_wait(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let guard = a.lock("/lock")?.try_acquire().await?.expect("it is free");
    let lock = b.lock("/lock")?;
    for _ in 0..3 {
        assert!(lock.try_acquire().await?.is_none(), "it is held");
    }
    assert!(a.lock("/lock")?.try_acquire().await?.is_none(), "it is held, by this client");
    assert!(b.lock("/other")?.try_acquire().await?.is_some(), "another lock is free");
    until_status(&lock, 1, 0).await;
    guard.release().await?;
    assert!(lock.try_acquire().await?.is_some(), "it is free again");
    Ok(())
}

/// `acquire_timeout` gives up in time, not before, and is then no longer in the line.
async fn a_timeout_ends_the_wait_and_leaves_nothing(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let guard = a.lock("/lock")?.acquire().await?;
    let lock = b.lock("/lock")?;
    let begun = Instant::now();
    let timeout = Duration::from_millis(100);
    refused(lock.acquire_timeout(timeout).await, ErrorKind::Timeout, "a held lock");
    assert!((timeout..Duration::from_secs(5)).contains(&begun.elapsed()), "gave up after {:?}", begun.elapsed());
    let status = lock.status().await?;
    assert_eq!((status.held, status.waiting), (1, 0), "the request is gone when it has timed out");
    refused(lock.acquire_timeout(Duration::ZERO).await, ErrorKind::Timeout, "a held lock that is asked for once");
    guard.release().await?;
    lock.acquire_timeout(SOON).await?.release().await?;
    if ctx.coordinator().await?.capabilities().in_process {
        // However short the time is, it is asked for once.
        lock.acquire_timeout(Duration::ZERO).await?.release().await?;
    }
    Ok(())
}

/// Dropping a guard releases the lock, soon.
async fn a_dropped_guard_is_released(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    drop(a.lock("/lock")?.acquire().await?);
    b.lock("/lock")?.acquire_timeout(SOON).await?.release().await?;
    // Outside the runtime, too.
    let guard = a.lock("/lock")?.acquire().await?;
    std::thread::spawn(move || drop(guard)).join().expect("no panic");
    b.lock("/lock")?.acquire_timeout(SOON).await?.release().await?;
    Ok(())
}

/// A request that is dropped, whenever that is, leaves nothing in the line and takes nothing.
async fn a_dropped_request_leaves_nothing(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let lock = b.lock("/lock")?;
    for held in [true, false] {
        let guard = if held { Some(a.lock("/lock")?.acquire().await?) } else { None };
        for pause in [0_u64, 100, 300, 1000, 3000, 10_000, 30_000] {
            let request = tokio::time::timeout(Duration::from_micros(pause), lock.acquire());
            assert!(request.await.is_err() || !held, "it was granted while another client held it");
        }
        until_status(&lock, usize::from(held), 0).await;
        drop(guard);
        until_status(&lock, 0, 0).await;
    }
    Ok(())
}

/// A release whose future is dropped goes on.
async fn a_dropped_release_goes_on(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    for _ in 0..5 {
        let guard = a.lock("/lock")?.acquire_timeout(SOON).await?;
        let mut release = Box::pin(guard.release());
        let _ = futures_util::poll!(&mut release);
        drop(release);
        drop(b.lock("/lock")?.acquire_timeout(SOON).await?);
    }
    Ok(())
}

/// Tokens grow from grant to grant, over the lock's destruction too.
async fn tokens_grow_over_its_destruction(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let lock = stm.lock("/lock")?;
    let mut last = 0;
    for round in 0..12 {
        let guard = lock.acquire().await?;
        assert!(guard.token() > last, "round {round}: {} after {last}", guard.token());
        last = guard.token();
        guard.release().await?;
        if round % 3 == 2 {
            lock.destroy().await?;
            lock.destroy().await?;
        }
    }
    Ok(())
}

/// A lock that is held or waited for is not destroyed.
async fn it_is_not_destroyed_while_it_is_used(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let guard = a.lock("/lock")?.acquire().await?;
    refused(b.lock("/lock")?.destroy().await, ErrorKind::Contended, "a lock that is held");
    guard.release().await?;
    b.lock("/lock")?.destroy().await?;
    Ok(())
}

/// When `close` returns, what was dropped before is released.
async fn close_waits_for_releases(ctx: Ctx) -> Outcome {
    for _ in 0..3 {
        let (a, b) = (slow(&ctx, Duration::from_millis(20)).await?, client(&ctx, LONG).await?);
        drop(a.lock("/lock")?.acquire().await?);
        a.close().await;
        let guard = b.lock("/lock")?.try_acquire().await?;
        assert!(guard.is_some(), "it is free when the other client has closed");
        drop(guard);
        b.close().await;
    }
    Ok(())
}

/// A request inside the body of a transaction is refused: it could not be undone with it.
async fn it_is_not_acquired_inside_a_body(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let lock: Lock = stm.lock("/lock")?;
    let done = stm.dosync(async |_| lock.acquire().await.map(drop)).await;
    refused(done, ErrorKind::Nested, "acquire inside a body");
    let done = stm.dosync(async |_| lock.try_acquire().await.map(drop)).await;
    refused(done, ErrorKind::Nested, "try_acquire inside a body");
    Ok(())
}

/// A guard of another client is refused by `require`.
async fn require_is_for_the_guards_of_its_own_client(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let guard = a.lock("/lock")?.acquire().await?;
    a.dosync(async |tx| tx.require(&guard).await).await?;
    refused(b.dosync(async |tx| tx.require(&guard).await).await, ErrorKind::Misuse, "another client's guard");
    Ok(())
}
