//! A client that is closed, with all that came from it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use avout_core::{Change, Error, ErrorKind, Key, Payload, Stm};
use futures_util::future::{BoxFuture, join_all};

use super::bench::{LONG, Mortal, TTL, client, slow, until_status};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::stm::bench::{SOON, refused, roles};

laws! { "lock":
    every_operation_of_a_closed_client_is_refused,
    what_a_closed_client_held_can_be_had_at_once,
    a_transaction_at_a_close_ends_whole_or_not_at_all,
    a_close_that_is_dropped_or_repeated_is_one_close,
    a_close_in_an_outage_ends,
    the_session_ends_with_the_client;
    timed:
    every_wait_ends_with_its_client,
}

/// What a client does, by name.
type Operations = Vec<(&'static str, BoxFuture<'static, Result<(), Error>>)>;

/// Adds operations on something that is cloned for each.
macro_rules! operations {
    ($all:ident, $of:literal, $handle:ident: $($name:literal => $operation:expr),+ $(,)?) => { $({
        let $handle = $handle.clone();
        $all.push((concat!($of, ", ", $name), Box::pin(async move { $operation.await.map(drop) })));
    })+ };
}

/// Every operation that a client and its handles have. `tests/closing.rs` sees to it that none is missing.
async fn operations(stm: &Stm) -> Result<Operations, Failure> {
    let mut all: Operations = Vec::new();
    let soon = Duration::from_millis(50);
    let hidden = Duration::from_secs(60);
    let counted = stm.create_ref("/ref", 1_i64).await?;
    let atom = stm.create_atom("/atom", 1_i64).await?;
    let counter = stm.counter("/counter").await?;
    let snapshot = stm.snapshot().await?;
    {
        let (stm, counted) = (stm.clone(), counted.clone());
        operations! { all, "client", stm:
            "dosync" => stm.dosync(async |_| Ok(())),
            "transaction" => stm.transaction().no_deadline().dosync(async |_| Ok::<_, Error>(())),
            "create_ref" => stm.create_ref("/other", 1_i64), "open_ref" => stm.open_ref::<i64>("/ref"),
            "create_or_open_ref" => stm.create_or_open_ref("/ref", 1_i64),
            "create_atom" => stm.create_atom("/other", 1_i64), "open_atom" => stm.open_atom::<i64>("/atom"),
            "create_or_open_atom" => stm.create_or_open_atom("/atom", 1_i64),
            "snapshot" => stm.snapshot(), "list" => stm.list("/"), "list_atoms" => stm.list_atoms("/"), "sweep" => stm.sweep(),
            "ping" => stm.ping(),
            "dosync_once" => stm.dosync_once("id", async |_| Ok(1_u8)), "counter" => stm.counter("/counter"),
        }
        operations! { all, "ref", counted:
            "get" => counted.get(), "set" => counted.set(2), "alter" => counted.alter(|n| n + 1), "update" => counted.update(|n| *n += 1),
            "destroy" => counted.destroy(), "history" => counted.history(), "watch" => counted.watch(),
            "add_watch" => counted.add_watch("name", |_: &Change<i64>| {}),
        }
        let of = (snapshot, counted);
        operations! { all, "snapshot", of: "get" => of.0.get(&of.1), "get_many" => of.0.get_many((&of.1,)) }
        let of = (counter, stm);
        operations! { all, "counter", of:
            "add" => of.0.add(1), "add_in" => of.1.dosync(async |tx| of.0.add_in(&tx, 1).await), "get" => of.0.get(),
        }
    }
    operations! { all, "atom", atom:
        "get" => atom.get(), "swap" => atom.swap(|n| n + 1), "update" => atom.update(|n| *n += 1), "reset" => atom.reset(2),
        "compare_and_set" => atom.compare_and_set(&1, 2), "destroy" => atom.destroy(), "watch" => atom.watch(),
        "add_watch" => atom.add_watch("name", |_: &Change<i64>| {}),
    }
    let queue = stm.queue::<i64>("/queue", 8)?;
    queue.push(1).await?;
    queue.push(2).await?;
    let delivery = Arc::new(std::sync::Mutex::new(Some(queue.receive(hidden).await?)));
    let of = (queue, stm.clone());
    operations! { all, "queue", of:
        "push" => of.0.push(3), "push_in" => of.1.dosync(async |tx| of.0.push_in(&tx, 3).await), "pop" => of.0.pop(),
        "pop_timeout" => of.0.pop_timeout(soon), "try_pop" => of.0.try_pop(),
        "pop_in" => of.1.dosync(async |tx| of.0.pop_in(&tx).await), "receive" => of.0.receive(hidden), "len" => of.0.len(),
        "is_empty" => of.0.is_empty(), "peek" => of.0.peek(), "peek_in" => of.1.dosync(async |tx| of.0.peek_in(&tx).await),
        "skip" => of.0.skip(0), "skip_in" => of.1.dosync(async |tx| of.0.skip_in(&tx, 0).await), "pop_raw" => of.0.pop_raw(),
        "pop_raw_in" => of.1.dosync(async |tx| of.0.pop_raw_in(&tx).await), "peek_raw" => of.0.peek_raw(0),
        "peek_raw_in" => of.1.dosync(async |tx| of.0.peek_raw_in(&tx, 0).await), "set_capacity" => of.0.set_capacity(9),
        "destroy" => of.0.destroy(),
    }
    let of = (delivery, stm.clone());
    operations! { all, "delivery", of: "ack_in" => async {
        let out = of.0.lock().expect("no panic").take().expect("it is acknowledged last");
        let done = of.1.dosync(async |tx| out.ack_in(&tx).await).await;
        *of.0.lock().expect("no panic") = Some(out);
        done
    }, "ack" => async {
        let out = of.0.lock().expect("no panic").take().expect("it is acknowledged once");
        out.ack().await
    } }
    locks(stm, &mut all).await?;
    others(stm, &mut all).await?;
    Ok(all)
}

async fn locks(stm: &Stm, all: &mut Operations) -> Outcome {
    let soon = Duration::from_millis(50);
    let lock = stm.lock("/lock")?;
    operations! { all, "lock", lock:
        "acquire" => lock.acquire(), "try_acquire" => lock.try_acquire(), "acquire_timeout" => lock.acquire_timeout(soon),
        "status" => lock.status(), "destroy" => lock.destroy(),
    }
    let rw_lock = stm.rw_lock("/rw")?;
    operations! { all, "lock for readers and writers", rw_lock:
        "read" => rw_lock.read(), "try_read" => rw_lock.try_read(), "read_timeout" => rw_lock.read_timeout(soon),
        "write" => rw_lock.write(), "try_write" => rw_lock.try_write(), "write_timeout" => rw_lock.write_timeout(soon),
        "status" => rw_lock.status(), "destroy" => rw_lock.destroy(),
    }
    let semaphore = stm.semaphore("/s", 2)?;
    operations! { all, "semaphore", semaphore:
        "acquire" => semaphore.acquire(), "acquire_many" => semaphore.acquire_many(2), "try_acquire" => semaphore.try_acquire(),
        "try_acquire_many" => semaphore.try_acquire_many(2), "acquire_timeout" => semaphore.acquire_timeout(1, soon),
        "status" => semaphore.status(), "set_permits" => semaphore.set_permits(3), "destroy" => semaphore.destroy(),
    }
    let election = stm.election("/e")?;
    operations! { all, "election", election:
        "campaign" => election.campaign("x"), "campaign_timeout" => election.campaign_timeout("x", soon), "leader" => election.leader(),
        "next" => async { election.observe().next().await },
    }
    // Each of these is held at the close.
    let of = (Arc::new(lock.acquire().await?), lock.condition("c")?, stm.clone());
    operations! { all, "guard", of:
        "require" => of.2.dosync(async |tx| tx.require(&*of.0).await),
        "lost" => async {
            assert!(!of.0.is_held(), "a guard of a closed client");
            within(SOON, "its loss", of.0.lost()).await;
            Err::<(), _>(Error::new(ErrorKind::Closed, "as it should be"))
        },
        "notify_one" => of.1.notify_one(&of.0), "notify_all" => of.1.notify_all(&of.0),
    }
    let (guard, condition) = (stm.lock("/wait")?.acquire().await?, stm.lock("/wait")?.condition("c")?);
    all.push(("condition, wait", Box::pin(async move { condition.wait(guard).await.map(drop) })));
    let (guard, condition) = (stm.lock("/in time")?.acquire().await?, stm.lock("/in time")?.condition("c")?);
    all.push(("condition, wait_timeout", Box::pin(async move { condition.wait_timeout(guard, soon).await.map(drop) })));
    let guard = stm.lock("/release")?.acquire().await?;
    all.push(("guard, release", Box::pin(guard.release())));
    let write = stm.rw_lock("/down")?.write().await?;
    all.push(("guard, downgrade", Box::pin(async move { write.downgrade().await.map(drop) })));
    let term = stm.election("/term")?.campaign("x").await?;
    all.push(("term, resign", Box::pin(term.resign())));
    Ok(())
}

async fn others(stm: &Stm, all: &mut Operations) -> Outcome {
    let soon = Duration::from_millis(50);
    let barrier = stm.barrier("/b", 1)?;
    operations! { all, "barrier", barrier:
        "wait" => barrier.wait(), "wait_timeout" => barrier.wait_timeout(soon), "set_parties" => barrier.set_parties(2),
        "destroy" => barrier.destroy(),
    }
    let latch = stm.latch("/l", 2)?;
    latch.count_down().await?;
    let of = (latch, stm.clone());
    operations! { all, "latch", of:
        "count_down" => of.0.count_down(), "count_down_in" => of.1.dosync(async |tx| of.0.count_down_in(&tx).await),
        "left" => of.0.left(), "wait" => of.0.wait(), "wait_timeout" => of.0.wait_timeout(soon), "set_count" => of.0.set_count(3),
        "destroy" => of.0.destroy(),
    }
    let once = stm.once("/o", 32)?;
    operations! { all, "once", once:
        "dosync" => once.dosync("id", async |_| Ok(1_u8)), "set_keep" => once.set_keep(64), "destroy" => once.destroy(),
    }
    Ok(())
}

/// Once a client is closed every operation of it, of its clones and of all that it made is refused as `Closed`, in bounded time, and
/// changes nothing.
async fn every_operation_of_a_closed_client_is_refused(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let all = operations(&a).await?;
    let clone = a.clone();
    within(SOON, "the close", a.close()).await;
    for (what, operation) in all {
        let done = within(SOON, what, operation).await;
        refused(done, ErrorKind::Closed, what);
    }
    refused(clone.dosync(async |_| Ok(())).await, ErrorKind::Closed, "a clone");
    let unused = clone.lock("/never used")?;
    refused(unused.acquire().await, ErrorKind::Closed, "a lock that is made after the close");
    assert_eq!(b.open_ref::<i64>("/ref").await?.get().await?, 1);
    assert_eq!(b.open_atom::<i64>("/atom").await?.get().await?, 1);
    assert_eq!(b.latch("/l", 2)?.left().await?, 1);
    assert_eq!(b.queue::<i64>("/queue", 8)?.len().await?, 2);
    Ok(())
}

/// All that a client holds when it is closed others can have when the close returns, long before its session would have ended by itself; and
/// who waited for it has it.
async fn what_a_closed_client_held_can_be_had_at_once(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let hidden = Duration::from_secs(3600);
    a.queue::<u8>("/q", 4)?.push(7).await?;
    let held = (
        a.lock("/lock")?.acquire().await?,
        a.lock("/waited")?.acquire().await?,
        a.rw_lock("/rw")?.read().await?,
        a.semaphore("/s", 3)?.acquire_many(3).await?,
        a.election("/e")?.campaign("a").await?,
        a.queue::<u8>("/q", 4)?.receive(hidden).await?,
    );
    // One that waits itself, and is not in the way afterwards.
    let blocker = b.lock("/line")?.acquire().await?;
    let waiting = tokio::spawn({
        let lock = a.lock("/line")?;
        async move { lock.acquire().await }
    });
    let waiter = tokio::spawn({
        let lock = b.lock("/waited")?;
        async move { lock.acquire().await }
    });
    until_status(&b.lock("/line")?, 1, 1).await;
    until_status(&b.lock("/waited")?, 1, 1).await;
    within(SOON, "the close", a.close()).await;
    assert!(!held.0.is_held() && !held.2.is_held() && !held.3.is_held() && !held.4.is_held());
    refused(
        within(SOON, "a request", waiting).await.expect("no panic"),
        ErrorKind::Closed,
        "a request of a closed client",
    );
    assert!(b.lock("/lock")?.try_acquire().await?.is_some(), "the lock");
    assert!(b.rw_lock("/rw")?.try_write().await?.is_some(), "the lock that was read");
    assert!(b.semaphore("/s", 3)?.try_acquire_many(3).await?.is_some(), "the permits");
    assert_eq!(b.election("/e")?.leader().await?, None, "the term");
    within(SOON, "the waiter", waiter).await.expect("no panic")?.release().await?;
    let value = within(SOON, "the value", b.queue::<u8>("/q", 4)?.receive(hidden)).await?;
    assert_eq!((*value.value(), value.times()), (7, 2));
    let status = b.lock("/line")?.status().await?;
    assert_eq!((status.held, status.waiting), (1, 0), "nothing of the closed client is in the line");
    blocker.release().await?;
    Ok(())
}

/// Whatever waits when its client is closed ends with `Closed`, soon; a callback is not called any more.
async fn every_wait_ends_with_its_client(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let counted = a.create_ref("/ref", 0_i64).await?;
    let atom = a.create_atom("/atom", 0_i64).await?;
    let held =
        (b.lock("/lock")?.acquire().await?, b.rw_lock("/rw")?.write().await?, b.semaphore("/s", 1)?.acquire().await?);
    let term = b.election("/e")?.campaign("b").await?;
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let counts = move |_: &Change<i64>| {
        count.fetch_add(1, Ordering::SeqCst);
    };
    counted.add_watch("count", counts).await?;
    counted.set(1).await?;
    within(SOON, "a call", async {
        while calls.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;

    let mut waits: Operations = Vec::new();
    let mut push = |what, wait: BoxFuture<'static, Result<(), Error>>| waits.push((what, wait));
    let (lock, read, write) = (a.lock("/lock")?, a.rw_lock("/rw")?, a.rw_lock("/rw")?);
    push("lock", Box::pin(async move { lock.acquire().await.map(drop) }));
    push("read", Box::pin(async move { read.read().await.map(drop) }));
    push("write", Box::pin(async move { write.write().await.map(drop) }));
    let (semaphore, election, observed) = (a.semaphore("/s", 1)?, a.election("/e")?, a.election("/e")?);
    push("semaphore", Box::pin(async move { semaphore.acquire().await.map(drop) }));
    push("election", Box::pin(async move { election.campaign("a").await.map(drop) }));
    push("observer", Box::pin(observe_on(observed)));
    let (barrier, latch) = (a.barrier("/b", 2)?, a.latch("/l", 2)?);
    push("barrier", Box::pin(async move { barrier.wait().await.map(drop) }));
    push("latch", Box::pin(async move { latch.wait().await }));
    let guard = a.lock("/condition")?.acquire().await?;
    let condition = a.lock("/condition")?.condition("c")?;
    push("condition", Box::pin(async move { condition.wait(guard).await.map(drop) }));
    let (receiver, popper) = (a.queue::<u8>("/q", 4)?, a.queue::<u8>("/q", 4)?);
    push("receive", Box::pin(async move { receiver.receive(Duration::from_secs(60)).await.map(drop) }));
    push("pop", Box::pin(async move { popper.pop().await.map(drop) }));
    let (mut changes, mut atom_changes) = (counted.watch().await?, atom.watch().await?);
    push("changes of a ref", Box::pin(async move { changes.next().await.expect("an end with an error").map(drop) }));
    push(
        "changes of an atom",
        Box::pin(async move { atom_changes.next().await.expect("an end with an error").map(drop) }),
    );
    let (stm, awaited) = (a.clone(), counted.clone());
    push(
        "retry",
        Box::pin(async move {
            let wait = stm.transaction().no_deadline();
            wait.dosync(async |tx| match tx.get(&awaited).await? {
                0..=5 => Err(tx.retry()),
                _ => Ok(()),
            })
            .await
        }),
    );
    // A sweep waits to see whether a session is dead that shows no sign of life for long.
    let silent = client(&ctx, Duration::from_secs(50)).await?;
    let _silent = silent.lock("/silent")?.acquire().await?;
    if a.coordinator().sessions().is_none() {
        b.sweep().await?;
        let stm = a.clone();
        push("sweep", Box::pin(async move { stm.sweep().await.map(drop) }));
    }
    let waits: Vec<_> = waits.into_iter().map(|(what, wait)| (what, tokio::spawn(wait))).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    for (what, wait) in &waits {
        assert!(!wait.is_finished(), "{what}: it is waited for");
    }
    within(SOON, "the close", a.close()).await;
    let closed = Instant::now();
    for (what, wait) in waits {
        refused(within(SOON, what, wait).await.expect("no panic"), ErrorKind::Closed, what);
    }
    assert!(closed.elapsed() < Duration::from_secs(5), "waits ended {:?} after the close", closed.elapsed());
    let before = calls.load(Ordering::SeqCst);
    b.open_ref::<i64>("/ref").await?.set(10).await?;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(calls.load(Ordering::SeqCst), before, "a callback of a closed client");
    drop((held, term));
    Ok(())
}

async fn observe_on(election: avout_core::Election) -> Result<(), Error> {
    let mut leaders = election.observe();
    loop {
        leaders.next().await?;
    }
}

/// A transaction that is under way when its client is closed ends as it says: all that were told to have committed have, and none
/// that was told to have ended with `Closed`.
async fn a_transaction_at_a_close_ends_whole_or_not_at_all(ctx: Ctx) -> Outcome {
    let other = client(&ctx, LONG).await?;
    let count = other.create_ref("/count", 0_u32).await?;
    let double = other.create_ref("/double", 0_u32).await?;
    let (mut least, mut most) = (0_u32, 0_u32);
    for round in 0..10_u64 {
        let a = slow(&ctx, Duration::from_millis(8)).await?;
        let clones: [Stm; 4] = std::array::from_fn(|_| a.clone());
        let tasks = clones.map(|a| async move {
            let mut done = Vec::new();
            // On a busy machine the close may come before this.
            let (Ok(count), Ok(double)) = (a.open_ref::<u32>("/count").await, a.open_ref::<u32>("/double").await)
            else {
                return done;
            };
            while done.last().is_none_or(Result::is_ok) {
                done.push(
                    a.dosync(async |tx| {
                        tx.alter(&count, |n| n + 1).await?;
                        tx.alter(&double, |n| n + 2).await.map(drop)
                    })
                    .await,
                );
            }
            done
        });
        let tasks = tokio::spawn(join_all(tasks));
        tokio::time::sleep(Duration::from_millis(60 + round * 3)).await;
        within(SOON, "the close", a.close()).await;
        let done = within(SOON, "the transactions", tasks).await.expect("no panic");
        for ended in done.into_iter().flatten() {
            match ended {
                Ok(()) => (least, most) = (least + 1, most + 1),
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => most += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Closed, "{error:?}"),
            }
        }
        let (count, double) = (count.get().await?, double.get().await?);
        assert!((least..=most).contains(&count), "{count} took effect, and {least} to {most} were told");
        assert_eq!(double, count * 2);
    }
    Ok(())
}

/// A close goes on when it is dropped. One that is repeated, also at the same time, returns when all is done.
async fn a_close_that_is_dropped_or_repeated_is_one_close(ctx: Ctx) -> Outcome {
    let b = client(&ctx, LONG).await?;
    for polls in 0..6 {
        let a = client(&ctx, LONG).await?;
        let _held = a.lock("/lock")?.acquire_timeout(SOON).await?;
        let mut close = Box::pin(a.close());
        for _ in 0..=polls {
            if futures_util::poll!(&mut close).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(close);
        refused(a.lock("/lock")?.acquire().await, ErrorKind::Closed, "a close was begun");
        b.lock("/lock")?.acquire_timeout(SOON).await?.release().await?;
    }
    let a = client(&ctx, LONG).await?;
    let _held = a.lock("/lock")?.acquire().await?;
    let closes = (0..4).map(|_| {
        let (a, b) = (a.clone(), b.clone());
        async move {
            a.close().await;
            // Whichever returns first: it is given back by then, and one of them has it.
            b.lock("/lock")?.acquire_timeout(SOON).await?.release().await?;
            Ok(())
        }
    });
    within(SOON, "the closes", together(closes)).await?;
    within(SOON, "another", a.close()).await;
    Ok(())
}

/// A close while the store is out of reach returns in bounded time, and ends all waits; what the client held others have when its session
/// has ended.
async fn a_close_in_an_outage_ends(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let a = &mortal.stm;
    let counted = a.create_ref("/ref", 0_i64).await?;
    let held = a.lock("/lock")?.acquire().await?;
    let blocker = other.lock("/other")?.acquire().await?;
    let waiting = tokio::spawn({
        let lock = a.lock("/other")?;
        async move { lock.acquire().await.map(drop) }
    });
    until_status(&other.lock("/other")?, 1, 1).await;
    mortal.die();
    let reading = tokio::spawn({
        let counted = counted.clone();
        async move { counted.get().await.map(drop) }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    within(SOON, "the close", a.close()).await;
    assert!(begun.elapsed() < TTL + Duration::from_secs(4), "it took {:?}", begun.elapsed());
    for (what, wait) in [("a request", waiting), ("a read", reading)] {
        refused(within(SOON, what, wait).await.expect("no panic"), ErrorKind::Closed, what);
    }
    assert!(!held.is_held());
    refused(within(SOON, "an operation", counted.set(1)).await, ErrorKind::Closed, "an operation");
    other.lock("/lock")?.acquire_timeout(SOON).await?.release().await?;
    blocker.release().await?;
    other.lock("/other")?.acquire_timeout(SOON).await?.release().await?;
    Ok(())
}

/// When a client is closed no record of its session is left that others would have to watch.
async fn the_session_ends_with_the_client(ctx: Ctx) -> Outcome {
    let a = client(&ctx, LONG).await?;
    let (coordinator, _) = roles(&ctx).await?;
    let held = a.lock("/lock")?.acquire().await?;
    within(SOON, "the close", a.close()).await;
    let keys: Vec<Key> = coordinator.list_all(&Key::root()).await?;
    let sessions: Vec<Key> = keys.into_iter().filter(|key| key.as_str().starts_with("/.avout/sessions/")).collect();
    for entry in coordinator.read(&sessions, None).await?.entries.into_iter().flatten() {
        assert!(matches!(entry.record.payload, Payload::Deleted), "a session is left: {entry:?}");
    }
    drop(held);
    Ok(())
}
