//! Guards that move, and waits for oneself.

use std::time::Duration;

use avout_core::{ErrorKind, Stm};
use futures_util::future::BoxFuture;

use super::bench::{LONG, client, until_status};
use crate::law::{Ctx, Outcome, laws, together, within};
use crate::log::{Log, Said};
use crate::stm::bench::{SOON, refused};

laws! { "lock":
    a_guard_that_moved_is_waited_for,
    a_wait_for_ones_own_guard_is_told_of,
    a_guard_that_was_given_away_is_named,
    each_long_wait_is_told_of,
}

/// A key that no other law waits for.
fn key(ctx: &Ctx, name: &str) -> String {
    format!("/{}/{name}", ctx.namespace)
}

/// Waits until all of this was said so often, and gives it.
async fn said(log: &Log, times: usize, all_of: &[&str]) -> Vec<Said> {
    within(SOON, &format!("{all_of:?} in the log, {times} times"), async {
        loop {
            let said = log.said(all_of);
            if said.len() >= times {
                return said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// A task that acquires again and again, and hands each guard to another task, waits for its turn and gets it.
async fn a_guard_that_moved_is_waited_for(ctx: Ctx) -> Outcome {
    const ROUNDS: usize = 4;
    let stm = client(&ctx, LONG).await?;
    macro_rules! rounds {
        ($acquire:expr) => {{
            let stm = stm.clone();
            tokio::spawn(async move {
                let stm = &stm;
                for _ in 0..ROUNDS {
                    let guard = $acquire(stm).await?;
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        drop(guard);
                    });
                }
                Ok::<_, avout_core::Error>(())
            })
        }};
    }
    let tasks = [
        ("lock", rounds!(async |stm: &Stm| stm.lock("/lock")?.acquire().await)),
        ("lock, in time", rounds!(async |stm: &Stm| stm.lock("/in time")?.acquire_timeout(SOON).await)),
        ("write", rounds!(async |stm: &Stm| stm.rw_lock("/rw")?.write().await)),
        ("election", rounds!(async |stm: &Stm| stm.election("/e")?.campaign("x").await)),
        ("semaphore", rounds!(async |stm: &Stm| stm.semaphore("/s", 1)?.acquire().await)),
    ];
    for (what, task) in tasks {
        within(SOON, what, task).await.expect("no panic")?;
    }
    until_status(&stm.lock("/lock")?, 0, 0).await;
    Ok(())
}

type Wait = BoxFuture<'static, avout_core::Result<()>>;

/// Whoever waits for a guard of its own is told so after a second, with the key, the holder and how long, and then again: whatever it
/// waits for, in a task and outside of one.
async fn a_wait_for_ones_own_guard_is_told_of(ctx: Ctx) -> Outcome {
    let log = Log::listen()?;
    let stm = client(&ctx, LONG).await?;
    let held = |name: &'static str| {
        let (stm, key) = (stm.clone(), key(&ctx, name));
        let wait: Wait = Box::pin(async move {
            let late = Duration::from_millis(2600);
            let done = match name {
                "lock" => {
                    let _guard = stm.lock(&key)?.acquire().await?;
                    stm.lock(&key)?.acquire_timeout(late).await.map(drop)
                }
                "read and write" => {
                    let _guard = stm.rw_lock(&key)?.read().await?;
                    stm.rw_lock(&key)?.write_timeout(late).await.map(drop)
                }
                "write and read" => {
                    let _guard = stm.rw_lock(&key)?.write().await?;
                    stm.rw_lock(&key)?.read_timeout(late).await.map(drop)
                }
                "semaphore" => {
                    let _guard = stm.semaphore(&key, 2)?.acquire_many(2).await?;
                    stm.semaphore(&key, 2)?.acquire_timeout(1, late).await.map(drop)
                }
                _ => {
                    let _guard = stm.election(&key)?.campaign("x").await?;
                    stm.election(&key)?.campaign_timeout("x", late).await.map(drop)
                }
            };
            refused(done, ErrorKind::Timeout, name);
            Ok(())
        });
        (name, wait)
    };
    let names = ["lock", "read and write", "write and read", "semaphore", "election"];
    let tasks: Vec<_> = names.map(held).into_iter().map(|(_, wait)| tokio::spawn(wait)).collect();
    // Outside of a task, too.
    let outside = std::thread::spawn({
        let runtime = tokio::runtime::Handle::current();
        let (_, wait) = held("outside");
        move || runtime.block_on(wait)
    });
    for task in tasks {
        within(SOON, "a wait in vain", task).await.expect("no panic")?;
    }
    within(SOON, "the thread", tokio::task::spawn_blocking(move || outside.join()))
        .await
        .expect("no panic")
        .expect("no panic")?;
    for name in names {
        let said =
            said(&log, 2, &[&key(&ctx, name), "a guard of this same client", "by this very task", "waited="]).await;
        assert!(said.iter().all(|said| said.level == tracing::Level::WARN), "{said:?}");
    }
    said(&log, 2, &[&key(&ctx, "outside"), "a guard of this same client, acquired", "waited="]).await;
    Ok(())
}

/// A task that was given a guard, and asks for the same, is told that the client holds it.
async fn a_guard_that_was_given_away_is_named(ctx: Ctx) -> Outcome {
    let log = Log::listen()?;
    let stm = client(&ctx, LONG).await?;
    let key = key(&ctx, "given");
    let lock = stm.lock(&key)?;
    let guard = lock.acquire().await?;
    let task = tokio::spawn(async move {
        let again = lock.acquire_timeout(Duration::from_millis(1500)).await;
        drop(guard);
        again.map(drop)
    });
    refused(within(SOON, "the task", task).await.expect("no panic"), ErrorKind::Timeout, "its own guard");
    let told = said(&log, 1, &[&key, "a guard of this same client, acquired"]).await;
    assert!(told.iter().all(|said| !said.text.contains("by this very task")), "another task acquired it: {told:?}");
    Ok(())
}

/// Each wait that takes long is told of, whatever is waited for, with the key and how long.
async fn each_long_wait_is_told_of(ctx: Ctx) -> Outcome {
    let log = Log::listen()?;
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let held = a.lock(key(&ctx, "held"))?.acquire().await?;
    let read = a.rw_lock(key(&ctx, "read"))?.read().await?;
    let permit = a.semaphore(key(&ctx, "permit"), 1)?.acquire().await?;
    let late = Duration::from_millis(1600);
    let waits: Vec<(&str, Wait)> = vec![
        ("held", {
            let lock = b.lock(key(&ctx, "held"))?;
            Box::pin(async move { lock.acquire_timeout(late).await.map(drop) })
        }),
        ("read", {
            let lock = b.rw_lock(key(&ctx, "read"))?;
            Box::pin(async move { lock.write_timeout(late).await.map(drop) })
        }),
        ("permit", {
            let semaphore = b.semaphore(key(&ctx, "permit"), 1)?;
            Box::pin(async move { semaphore.acquire_timeout(1, late).await.map(drop) })
        }),
        ("condition", {
            let lock = b.lock(key(&ctx, "condition"))?;
            let guard = lock.acquire().await?;
            let condition = lock.condition("changed")?;
            Box::pin(async move { condition.wait_timeout(guard, late).await.map(drop) })
        }),
        ("barrier", {
            let barrier = b.barrier(key(&ctx, "barrier"), 2)?;
            Box::pin(async move { barrier.wait_timeout(late).await.map(drop) })
        }),
        ("latch", {
            let latch = b.latch(key(&ctx, "latch"), 2)?;
            Box::pin(async move { latch.wait_timeout(late).await })
        }),
    ];
    let names: Vec<&str> = waits.iter().map(|(name, _)| *name).collect();
    together(waits.into_iter().map(|(name, wait)| async move {
        let ended = within(SOON, name, wait).await;
        assert!(ended.as_ref().is_ok_and(|()| name == "condition") || ended.is_err(), "{name}: {ended:?}");
        Ok(())
    }))
    .await?;
    for name in names {
        said(&log, 1, &[&key(&ctx, name), "waited="]).await;
    }
    for guarded in ["held", "read", "permit"] {
        said(&log, 1, &[&key(&ctx, guarded), "holder=session "]).await;
    }
    drop((held, read, permit));
    Ok(())
}
