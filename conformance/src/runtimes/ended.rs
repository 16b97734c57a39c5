//! What is left of a runtime that has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use avout_core::{Change, ErrorKind};
use futures_util::future::join;

use super::{on_a_thread, paused, single, threaded};
use crate::law::{Ctx, Failure, Outcome, laws, needs, within};
use crate::lock::bench::{LONG, TTL, client, until_status};
use crate::stm::bench::{SOON, eventually};

laws! { "runtimes":
    a_client_works_when_the_runtime_that_opened_it_has_ended,
    watches_go_on_when_their_runtime_has_ended,
    what_waits_goes_on_with_another_runtime,
    connections_are_made_again_when_the_first_runtime_has_ended,
    a_client_is_closed_from_another_runtime;
    timed:
    a_lock_is_kept_when_an_earlier_runtime_has_ended,
    a_lock_is_kept_when_a_paused_runtime_has_ended,
    a_guard_is_kept_when_its_own_runtime_has_ended,
    a_received_value_stays_hidden_when_its_runtime_has_ended,
}

/// A client takes all requests when the runtime has ended that opened it and made its first requests.
async fn a_client_works_when_the_runtime_that_opened_it_has_ended(ctx: Ctx) -> Outcome {
    for (number, runtime) in [single, threaded].into_iter().enumerate() {
        let ctx = ctx.clone();
        let worked = on_a_thread(move || {
            let first = runtime();
            let stm = first.block_on(async {
                let stm = client(&ctx, TTL).await?;
                let r = stm.create_or_open_ref("/r", 0_i64).await?;
                r.alter(|n| n + 1).await?;
                // A listener is begun there, too.
                let mut changes = r.watch().await?;
                r.alter(|n| n + 1).await?;
                within(SOON, "a change", changes.next()).await.expect("the watch goes on")?;
                Ok::<_, Failure>(stm)
            })?;
            drop(first);
            single().block_on(within(SOON, "requests on another runtime", async {
                let r = stm.open_ref::<i64>("/r").await?;
                for _ in 0..10 {
                    r.alter(|n| n + 1).await?;
                }
                let large = stm.create_or_open_ref(format!("/large{number}"), "x".repeat(100_000)).await?;
                assert_eq!(large.get().await?.len(), 100_000);
                let atom = stm.create_or_open_atom("/atom", 0_i64).await?;
                atom.swap(|n| n + 1).await?;
                assert!(stm.list("/").await?.len() >= 2);
                let other = client(&ctx, TTL).await?.open_ref::<i64>("/r").await?;
                let mut changes = r.watch().await?;
                other.alter(|n| n + 1).await?;
                let change = changes.next().await.expect("the watch goes on")?;
                assert_eq!(change.new, Some(other.get().await?));
                Ok::<_, Failure>(())
            }))
        });
        worked.await?;
    }
    Ok(())
}

/// Whoever holds a lock keeps it when a runtime ends that the client was used from before.
async fn a_lock_is_kept_when_an_earlier_runtime_has_ended(ctx: Ctx) -> Outcome {
    for runtime in [single, threaded] {
        let ctx = ctx.clone();
        let kept = on_a_thread(move || {
            let first = runtime();
            let stm = first.block_on(async {
                let stm = client(&ctx, TTL).await?;
                stm.lock("/lock")?.acquire().await?.release().await?;
                Ok::<_, Failure>(stm)
            })?;
            drop(first);
            runtime().block_on(async {
                let guard = stm.lock("/lock")?.acquire().await?;
                tokio::time::sleep(TTL * 5 / 2).await;
                assert!(guard.is_held(), "the lock is lost");
                let other = client(&ctx, TTL).await?.lock("/lock")?;
                assert!(other.try_acquire().await?.is_none(), "another one has it");
                guard.release().await?;
                Ok::<_, Failure>(())
            })
        });
        kept.await?;
    }
    Ok(())
}

/// The same where the clock of the earlier runtime was paused, on which signs of life are sent meanwhile. What is held from before is kept
/// too, as soon as the client is used again.
async fn a_lock_is_kept_when_a_paused_runtime_has_ended(ctx: Ctx) -> Outcome {
    let kept = on_a_thread(move || {
        let first = paused();
        let (stm, earlier) = first.block_on(async {
            let stm = client(&ctx, TTL).await?;
            let earlier = stm.lock("/earlier")?.acquire().await?;
            Ok::<_, Failure>((stm, earlier))
        })?;
        drop(first);
        single().block_on(async {
            let guard = stm.lock("/lock")?.acquire().await?;
            tokio::time::sleep(TTL * 5 / 2).await;
            assert!(guard.is_held() && earlier.is_held(), "a lock is lost");
            let other = client(&ctx, TTL).await?;
            for name in ["/lock", "/earlier"] {
                assert!(other.lock(name)?.try_acquire().await?.is_none(), "another one has {name}");
            }
            guard.release().await?;
            earlier.release().await?;
            Ok::<_, Failure>(())
        })
    });
    kept.await
}

/// A guard keeps its lock when the runtime ends that it was acquired on, and may be released or dropped outside any.
async fn a_guard_is_kept_when_its_own_runtime_has_ended(ctx: Ctx) -> Outcome {
    for runtime in [single, threaded] {
        let (this, other) = (ctx.clone(), client(&ctx, TTL).await?.lock("/lock")?);
        let (stm, guard) = on_a_thread(move || {
            runtime().block_on(async {
                let stm = client(&this, TTL).await?;
                let guard = stm.lock("/lock")?.acquire().await?;
                Ok::<_, Failure>((stm, guard))
            })
        })
        .await?;
        tokio::time::sleep(TTL * 5 / 2).await;
        assert!(guard.is_held(), "the lock is lost");
        assert!(other.try_acquire().await?.is_none(), "another one has it");
        on_a_thread(move || drop(guard)).await;
        within(TTL / 2, "the lock, given back by a thread of its own", other.acquire()).await?.release().await?;
        drop(stm);
    }
    Ok(())
}

/// A value that was received stays hidden when the runtime ends that it was received on, and is acknowledged from another.
async fn a_received_value_stays_hidden_when_its_runtime_has_ended(ctx: Ctx) -> Outcome {
    for runtime in [single, threaded] {
        let ctx = ctx.clone();
        let hidden = on_a_thread(move || {
            let first = runtime();
            let (stm, delivery) = first.block_on(async {
                let stm = client(&ctx, TTL).await?;
                let queue = stm.queue::<i64>("/jobs", 10)?;
                queue.push(7).await?;
                let delivery = queue.receive(LONG).await?;
                Ok::<_, Failure>((stm, delivery))
            })?;
            drop(first);
            single().block_on(async {
                let other = client(&ctx, TTL).await?.queue::<i64>("/jobs", 10)?;
                let lock = stm.lock("/lock")?;
                let used = async {
                    for _ in 0..20 {
                        lock.acquire().await?.release().await?;
                        tokio::time::sleep(TTL / 8).await;
                    }
                    Ok::<_, Failure>(())
                };
                let (popped, used) = join(other.pop_timeout(TTL * 5 / 2), used).await;
                used?;
                assert_eq!(popped.expect_err("it is hidden from all others").kind(), ErrorKind::Timeout);
                assert_eq!(delivery.ack().await?, 7);
                assert_eq!(stm.queue::<i64>("/jobs", 10)?.len().await?, 0);
                Ok::<_, Failure>(())
            })
        });
        hidden.await?;
    }
    Ok(())
}

/// Watches, with a name and without, go on when the runtime ends that they were begun on.
async fn watches_go_on_when_their_runtime_has_ended(ctx: Ctx) -> Outcome {
    for runtime in [single, threaded] {
        let this = ctx.clone();
        let (of_ref, of_atom) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let last = |told: &Arc<AtomicI64>| {
            let told = Arc::clone(told);
            move |change: &Change<i64>| {
                told.fetch_max(change.new.unwrap_or(0), Ordering::SeqCst);
            }
        };
        let (tell_ref, tell_atom) = (last(&of_ref), last(&of_atom));
        let (r, atom, mut changes) = on_a_thread(move || {
            runtime().block_on(async {
                let stm = client(&this, TTL).await?;
                let r = stm.create_or_open_ref("/r", 0_i64).await?;
                let atom = stm.create_or_open_atom("/atom", 0_i64).await?;
                r.set(0).await?;
                atom.reset(0).await?;
                r.add_watch("w", tell_ref).await?;
                atom.add_watch("w", tell_atom).await?;
                let changes = r.watch().await?;
                Ok::<_, Failure>((r, atom, changes))
            })
        })
        .await?;
        let other = client(&ctx, TTL).await?;
        for (n, (r, atom)) in
            [(other.open_ref::<i64>("/r").await?, other.open_atom::<i64>("/atom").await?), (r.clone(), atom.clone())]
                .into_iter()
                .enumerate()
        {
            let n = i64::try_from(n).expect("a small number") + 1;
            r.set(n).await?;
            atom.reset(n).await?;
            let change = within(SOON, "a change", changes.next()).await.expect("the watch goes on")?;
            assert_eq!(change.new, Some(n));
            eventually("calls with both changes", || {
                of_ref.load(Ordering::SeqCst) == n && of_atom.load(Ordering::SeqCst) == n
            })
            .await;
        }
    }
    Ok(())
}

/// What was begun on one runtime and waits can be waited for on another one.
async fn what_waits_goes_on_with_another_runtime(ctx: Ctx) -> Outcome {
    let waited = on_a_thread(move || {
        let first = single();
        let (stm, guard) = first.block_on(async {
            let stm = client(&ctx, TTL).await?;
            stm.create_ref("/r", 0_i64).await?;
            let guard = stm.lock("/lock")?.acquire().await?;
            Ok::<_, Failure>((stm, guard))
        })?;
        let lock = client_on(&first, &ctx)?.lock("/lock")?;
        let (mut lock_later, mut value_later) = {
            let (lock, stm) = (lock.clone(), stm.clone());
            let value = async move {
                let r = stm.open_ref::<i64>("/r").await?;
                stm.dosync(async |tx| match tx.get(&r).await? {
                    0 => Err(tx.retry()),
                    n => Ok(n),
                })
                .await
            };
            (Box::pin(async move { lock.acquire().await }), Box::pin(value))
        };
        first.block_on(async {
            tokio::select! {
                guard = &mut lock_later => panic!("it is held: {:?}", guard.map(drop)),
                n = &mut value_later => panic!("there is no value yet: {n:?}"),
                () = until_status(&lock, 1, 1) => {}
            }
            Ok::<_, Failure>(())
        })?;
        drop(first);
        single().block_on(within(SOON, "what waited", async {
            stm.open_ref::<i64>("/r").await?.set(5).await?;
            guard.release().await?;
            lock_later.await?.release().await?;
            assert_eq!(value_later.await?, 5);
            Ok(())
        }))
    });
    waited.await
}

fn client_on(runtime: &tokio::runtime::Runtime, ctx: &Ctx) -> Result<avout_core::Stm, Failure> {
    runtime.block_on(client(ctx, TTL))
}

/// Connections that are lost are made again when the runtime has ended that the client was opened on.
async fn connections_are_made_again_when_the_first_runtime_has_ended(ctx: Ctx) -> Outcome {
    let this = ctx.clone();
    let (stm, r) = on_a_thread(move || {
        single().block_on(async {
            let stm = client(&this, LONG).await?;
            let r = stm.create_ref("/r", 0_i64).await?;
            Ok::<_, Failure>((stm, r))
        })
    })
    .await?;
    let mut changes = r.watch().await?;
    let guard = stm.lock("/lock")?.acquire().await?;
    needs(ctx.fixture.cut_connections(&ctx.namespace).await, "the fixture cannot cut connections")?;
    let connected = on_a_thread(move || {
        single().block_on(within(SOON, "a commit after the cut", async {
            while r.alter(|n| n + 1).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            changes.next().await.expect("the watch goes on")?;
            assert!(guard.is_held());
            guard.release().await?;
            Ok(())
        }))
    });
    connected.await
}

/// A client is closed from another runtime than the one that opened it, which has ended or not, and its locks are free at once.
async fn a_client_is_closed_from_another_runtime(ctx: Ctx) -> Outcome {
    for ends in [false, true] {
        let ctx = ctx.clone();
        let closed = on_a_thread(move || {
            let first = single();
            let (stm, guard) = first.block_on(async {
                let stm = client(&ctx, LONG).await?;
                stm.create_or_open_ref("/r", 0_i64).await?.alter(|n| n + 1).await?;
                let guard = stm.lock("/lock")?.acquire().await?;
                Ok::<_, Failure>((stm, guard))
            })?;
            let _alive = (!ends).then_some(first);
            single().block_on(within(SOON, "the end of the client", async {
                drop(guard);
                stm.close().await;
                client(&ctx, LONG).await?.lock("/lock")?.acquire().await?.release().await?;
                Ok::<_, Failure>(())
            }))
        });
        closed.await?;
    }
    Ok(())
}
