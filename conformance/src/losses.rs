//! What the engine does when a store says that it has lost commits, and when hints of changes are lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_core::{Changes, Error, ErrorKind, Event, LostCommits, Stm};
use futures_util::future::BoxFuture;

use crate::fault::{Counting, Losing, SessionTable};
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::lock::bench::{LONG, TTL};
use crate::runtimes::{on_a_thread, paused};
use crate::stm::bench::{Runs, SOON, client, eventually, refused, roles};
use crate::stm::rig::Rigged;
use crate::stm::rig_store::RiggedStore;

laws! { "losses":
    a_loss_is_told_once_to_a_users_operation,
    what_goes_on_in_the_background_is_told_of_no_loss,
    each_watch_is_told_of_a_loss_and_goes_on,
    an_attempt_that_began_before_a_loss_commits_nothing,
    a_snapshot_from_before_a_loss_is_of_no_use;
    timed:
    a_guard_is_given_only_in_a_session_that_the_store_knows,
    a_lost_hint_holds_up_nobody,
}

/// A client whose coordinator loses commits when it is told to.
async fn losing(ctx: &Ctx) -> Result<(Stm, Arc<Losing>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let losing = Arc::new(Losing::new(coordinator));
    Ok((ctx.stm(Arc::clone(&losing) as _, store).seed(ctx.seed).session_ttl(LONG).build(), losing))
}

fn told(error: &Error) -> Option<LostCommits> {
    error.downcast_ref::<LostCommits>().copied().filter(|_| error.kind() == ErrorKind::StoreLost)
}

#[track_caller]
fn assert_told<T>(done: Result<T, Error>, lost: LostCommits, what: &str) {
    let error = done.err().unwrap_or_else(|| panic!("{what}: it is told of no loss"));
    assert_eq!(told(&error), Some(lost), "{what}: {error:?}");
}

type Operation<'a> = (&'static str, Box<dyn Fn() -> BoxFuture<'a, Result<(), Error>> + Send + Sync + 'a>);

/// Whatever a user does next after a loss fails with the news of it, having done nothing, and whatever comes after that goes on.
async fn a_loss_is_told_once_to_a_users_operation(ctx: Ctx) -> Outcome {
    let (stm, losing) = losing(&ctx).await?;
    let (r, atom) = (stm.create_ref("/r", 0_i64).await?, stm.create_atom("/a", 0_i64).await?);
    let (lock, queue, latch) = (stm.lock("/l")?, stm.queue::<u8>("/q", 100)?, stm.latch("/t", 100)?);
    let counter = stm.counter("/c").await?;
    let guard = stm.lock("/held")?.acquire().await?;
    macro_rules! operation {
        ($what:literal, $call:expr) => {
            ($what, Box::new(|| Box::pin(async { $call.await.map(drop) }) as BoxFuture<'_, _>) as _)
        };
    }
    let operations: Vec<Operation<'_>> = vec![
        operation!("get", r.get()),
        operation!("set", r.set(1)),
        operation!("alter", r.alter(|n| n + 1)),
        operation!("history", r.history()),
        operation!("watch", r.watch()),
        operation!("dosync", stm.dosync(async |tx| tx.get(&r).await)),
        operation!("snapshot", stm.snapshot()),
        operation!("list", stm.list("/")),
        operation!("open ref", stm.open_ref::<i64>("/r").into_future()),
        operation!("create or open atom", stm.create_or_open_atom("/a", 0_i64).into_future()),
        operation!("atom get", atom.get()),
        operation!("atom swap", atom.swap(|n| n + 1)),
        operation!("atom watch", atom.watch()),
        operation!("require", stm.dosync(async |tx| tx.require(&guard).await)),
        operation!("acquire", lock.acquire()),
        operation!("status", lock.status()),
        operation!("push", queue.push(1)),
        operation!("pop", queue.pop()),
        operation!("count down", latch.count_down()),
        operation!("counter", counter.add(1)),
        operation!("sweep", stm.sweep()),
    ];
    for (what, operation) in &operations {
        operation().await.unwrap_or_else(|error| panic!("{what} before: {error:?}"));
        let (before, pushed) = (r.get().await?, queue.len().await?);
        let lost = losing.lose();
        assert_told(within(SOON, what, operation()).await, lost, what);
        assert_eq!((r.get().await?, queue.len().await?), (before, pushed), "{what} did something");
        if *what == "pop" {
            queue.push(1).await?;
        }
        within(SOON, what, operation()).await.unwrap_or_else(|error| panic!("{what} afterwards: {error:?}"));
    }
    drop(operations);
    // One that takes what it is about with it gives it back all the same.
    let lost = losing.lose();
    assert_told(guard.release().await, lost, "release");
    within(SOON, "the lock that was let go", stm.lock("/held")?.acquire()).await?.release().await?;
    // Each loss is told, also if several come at once.
    let both = [losing.lose(), losing.lose()];
    for lost in both {
        assert_told(r.get().await, lost, "one of two");
    }
    r.get().await?;
    Ok(())
}

/// Signs of life and sweeps that come first are told nothing, and go on; the user is told after them. What the client held is lost, and can
/// be had again.
async fn what_goes_on_in_the_background_is_told_of_no_loss(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let counting = Arc::new(Counting::new(coordinator));
    let table = Arc::default();
    let losing = Arc::new(Losing::new(Arc::clone(&counting) as _));
    let with_table = Arc::new(Losing::new(Arc::clone(&counting) as _).with_sessions(&table));
    for (what, losing) in [("records", losing), ("sessions of the store's", with_table)] {
        let builder = ctx.stm(Arc::clone(&losing) as _, Arc::clone(&store)).seed(ctx.seed).session_ttl(TTL);
        let stm = builder.sweep_every(Some(Duration::from_millis(10))).build();
        let guard = within(SOON, what, stm.lock("/lock")?.acquire()).await?;
        let lost = losing.lose();
        let before = counting.counts();
        tokio::time::sleep(TTL / 2).await;
        eventually("work in the background", || counting.counts().reads > before.reads + 2).await;
        // Its grant may be among what is lost.
        within(SOON, what, guard.lost()).await;
        assert_told(stm.dosync(async |tx| tx.require(&guard).await).await, lost, what);
        within(SOON, what, stm.lock("/lock")?.acquire()).await?.release().await?;
        stm.close().await;
    }
    Ok(())
}

/// What a watch tells until it tells this value: the losses.
async fn losses_until(changes: &mut Changes<i64>, value: i64) -> Vec<LostCommits> {
    let mut losses = Vec::new();
    loop {
        match within(SOON, "the watch", changes.next()).await {
            Some(Ok(change)) if change.new == Some(value) => return losses,
            Some(Ok(_)) => {}
            Some(Err(error)) => losses.push(told(&error).unwrap_or_else(|| panic!("{error:?}"))),
            None => panic!("the watch ended before {value}"),
        }
    }
}

/// Each stream of changes is told of a loss once and goes on, callbacks go on, and each stream of events has it.
async fn each_watch_is_told_of_a_loss_and_goes_on(ctx: Ctx) -> Outcome {
    let (stm, losing) = losing(&ctx).await?;
    let (r, atom) = (stm.create_ref("/r", 0_i64).await?, stm.create_atom("/a", 0_i64).await?);
    let other = client(&ctx).await?;
    let (of_other, atom_of_other) = (other.open_ref::<i64>("/r").await?, other.open_atom::<i64>("/a").await?);
    let mut watches = [r.watch().await?, r.watch().await?, atom.watch().await?];
    let mut events = [stm.events(), stm.events()];
    let called = Arc::<Mutex<Vec<Option<i64>>>>::default();
    let calls = Arc::clone(&called);
    r.add_watch("named", move |change| calls.lock().unwrap_or_else(PoisonError::into_inner).push(change.new)).await?;
    let last_called = || called.lock().unwrap_or_else(PoisonError::into_inner).last().copied().flatten();
    for round in 1..=3 {
        let lost = losing.lose();
        of_other.set(round).await?;
        atom_of_other.reset(round).await?;
        for watch in &mut watches {
            assert_eq!(losses_until(watch, round).await, [lost], "round {round}");
        }
        for events in &mut events {
            assert_eq!(within(SOON, "an event", events.next()).await, Some(Event::CommitsLost(lost)));
        }
        eventually("the callback", || last_called() == Some(round)).await;
        assert_told(r.get().await, lost, "an operation is told too");
    }
    Ok(())
}

/// An attempt in which commits are lost sees nothing of what comes after that beside what it has read, and commits nothing of it.
async fn an_attempt_that_began_before_a_loss_commits_nothing(ctx: Ctx) -> Outcome {
    let (stm, losing) = losing(&ctx).await?;
    let (a, b) = (stm.create_ref("/a", 0_i64).await?, stm.create_ref("/b", 0_i64).await?);
    for reads_on in [true, false] {
        let (runs, lost) = (Runs::default(), Mutex::new(None));
        let done = stm.dosync(async |tx| {
            let n = tx.get(&a).await?;
            if runs.next() == 1 {
                *lost.lock().expect("no panic") = Some(losing.lose());
            }
            if reads_on {
                refused(tx.get(&b).await, ErrorKind::Restart, "a read after a loss");
            }
            tx.set(&b, n + 1).await
        });
        let done = done.await;
        assert_told(done, lost.into_inner().expect("no panic").expect("a loss"), "a transaction that a loss outlived");
        assert_eq!((runs.count(), b.get().await?), (1, 0), "reads on: {reads_on}");
    }
    Ok(())
}

/// A snapshot from before a loss gives no values: its point is one of a history that is over.
async fn a_snapshot_from_before_a_loss_is_of_no_use(ctx: Ctx) -> Outcome {
    let (stm, losing) = losing(&ctx).await?;
    let r = stm.create_ref("/r", 5_i64).await?;
    let snapshot = stm.snapshot().await?;
    assert_eq!(snapshot.get(&r).await?, 5);
    let lost = losing.lose();
    assert_told(snapshot.get(&r).await, lost, "the first to ask");
    refused(snapshot.get(&r).await, ErrorKind::TooOld, "a snapshot from before");
    assert_eq!(stm.snapshot().await?.get(&r).await?, 5);
    Ok(())
}

/// A store that has forgotten a session, as one that took over may have, grants its client nothing in it: others would take it
/// away at once.
async fn a_guard_is_given_only_in_a_session_that_the_store_knows(ctx: Ctx) -> Outcome {
    let table = Arc::<SessionTable>::default();
    let mut clients = Vec::new();
    for _ in 0..2 {
        let (coordinator, store) = roles(&ctx).await?;
        let losing = Arc::new(Losing::new(coordinator).with_sessions(&table));
        clients.push((ctx.stm(Arc::clone(&losing) as _, store).session_ttl(LONG).build(), losing));
    }
    let [(one, of_one), (two, of_two)] = &clients[..] else { unreachable!("two clients") };
    let earlier = one.lock("/earlier")?.acquire().await?;
    // Found out before it asks, and only when it was granted.
    for (name, during) in [("/before", false), ("/during", true)] {
        let lock = one.lock(name)?;
        let of_other = two.lock(name)?;
        let held = two.lock("/keeps")?.acquire().await?;
        let forget = || {
            table.forget();
            of_one.turn();
            of_two.turn();
        };
        let guard = match during {
            false => {
                forget();
                lock.acquire().await?
            }
            true => {
                let blocking = of_other.acquire().await?;
                let waiting = tokio::spawn({
                    let lock = lock.clone();
                    async move { lock.acquire().await }
                });
                crate::lock::bench::until_status(&of_other, 1, 1).await;
                forget();
                blocking.release().await.ok();
                within(SOON, "the lock", waiting).await.expect("no panic")?
            }
        };
        assert!(of_other.try_acquire().await?.is_none(), "{name}: another one takes it away");
        one.dosync(async |tx| tx.require(&guard).await).await?;
        guard.release().await?;
        drop(held);
    }
    assert!(!earlier.is_held(), "a guard of a session that was forgotten");
    Ok(())
}

/// Whoever waits for a change looks after some seconds though no hint comes: transactions, watches, and those who wait for a
/// lock, a latch, a value or a leader.
async fn a_lost_hint_holds_up_nobody(ctx: Ctx) -> Outcome {
    on_a_thread(move || paused().block_on(hints_are_lost(ctx))).await
}

async fn hints_are_lost(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let (rig, store) = (Arc::new(Rigged::new(coordinator).deaf()), Arc::new(RiggedStore::new(store).deaf()));
    let deaf = ctx.plain_stm(rig, store).seed(ctx.seed).session_ttl(LONG).build();
    let other = client(&ctx).await?;
    let (r, atom) = (other.create_ref("/r", 0_i64).await?, other.create_atom("/a", 0_i64).await?);
    let held = other.lock("/l")?.acquire().await?;
    let (of_deaf, lock, latch) = (deaf.open_ref::<i64>("/r").await?, deaf.lock("/l")?, deaf.latch("/t", 1)?);
    let (queue, mut leaders) = (deaf.queue::<u8>("/q", 4)?, deaf.election("/e")?.observe());
    let (mut changes, mut of_atom) = (of_deaf.watch().await?, deaf.open_atom::<i64>("/a").await?.watch().await?);
    assert_eq!(leaders.next().await?, None);
    let transaction = deaf.transaction().no_deadline().dosync(async |tx| match tx.get(&of_deaf).await? {
        0 => Err(tx.retry()),
        n => Ok::<_, Error>(n),
    });
    let waits = async {
        tokio::join!(
            transaction,
            changes.next(),
            of_atom.next(),
            lock.acquire(),
            latch.wait(),
            queue.receive(LONG),
            leaders.next()
        )
    };
    let begun = tokio::time::Instant::now();
    let changed = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        r.set(7).await?;
        atom.reset(7).await?;
        held.release().await?;
        other.latch("/t", 1)?.count_down().await?;
        other.queue::<u8>("/q", 4)?.push(7).await?;
        other.election("/e")?.campaign("other").await
    };
    let both = async { tokio::join!(waits, changed) };
    let ((n, change, of_atom, guard, opened, value, leader), led) =
        within(Duration::from_secs(30), "what waits for a hint", Box::pin(both)).await;
    let _leadership = led?;
    assert_eq!((n?, change.transpose()?.and_then(|change| change.new)), (7, Some(7)));
    assert_eq!(of_atom.transpose()?.and_then(|change| change.new), Some(7));
    opened?;
    assert_eq!(value?.ack().await?, 7);
    assert_eq!(leader?.map(|leader| leader.name).as_deref(), Some("other"));
    guard?.release().await?;
    let elapsed = begun.elapsed();
    assert!(elapsed < Duration::from_secs(16), "it took {elapsed:?}");
    Ok(())
}
