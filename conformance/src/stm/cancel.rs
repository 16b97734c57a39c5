//! Futures of transactions that are dropped, at every await in turn.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use avout_core::backend::Store;
use avout_core::{Error, Ref, Stm};
use avout_local::Local;

use super::bench::{INLINE, SOON, client, eventually, large, roles};
use super::rig::Rigged;
use super::rig_store::RiggedStore;
use crate::fault::{Loss, LossPlan, LossyReplies};
use crate::law::{Ctx, Failure, Outcome, laws, within};

laws! { "stm":
    a_transaction_dropped_anywhere_is_whole_or_nothing,
    with_slots_a_transaction_dropped_anywhere_is_whole_or_nothing,
    with_stored_values_a_transaction_dropped_anywhere_is_whole_or_nothing,
    over_two_stores_a_transaction_dropped_anywhere_is_whole_or_nothing,
    with_lost_replies_a_transaction_dropped_anywhere_is_whole_or_nothing,
    a_dropped_wait_leaves_nothing,
    a_timeout_around_a_transaction_is_a_drop,
    a_dropped_client_leaves_its_commits_whole,
}

/// Runs a future and drops it when it has to wait for the time after the `waits`-th; `None` if it was dropped.
pub(crate) async fn dropped_after<T>(waits: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future: Pin<Box<_>> = Box::pin(future);
    let mut waited = 0;
    std::future::poll_fn(move |context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if waited == waits => Poll::Ready(None),
        Poll::Pending => {
            waited += 1;
            Poll::Pending
        }
    })
    .await
}

/// A client whose transactions are dropped, with what they change together.
struct Victim {
    stm: Stm,
    a: Ref<Vec<u8>>,
    b: Ref<Vec<u8>>,
}

impl Victim {
    async fn count(&self) -> Result<(), Error> {
        self.stm
            .dosync(async |tx| {
                tx.update(&self.a, |value| increment(value)).await?;
                tx.commute(&self.b, |mut value| {
                    increment(&mut value);
                    value
                })
                .await?;
                Ok(())
            })
            .await
    }
}

/// The first byte of a value counts.
fn increment(value: &mut [u8]) {
    value[0] = value[0].wrapping_add(1);
}

/// Drops a transaction of `victim` at each await in turn, and looks from elsewhere what became of it.
async fn drop_everywhere(victim: &Victim, looker: &Stm, in_store: Option<&Arc<dyn Store>>) -> Outcome {
    let open = async |name: &str| match in_store {
        Some(store) if name == "/b" => looker.open_ref::<Vec<u8>>(name).in_store(store).await,
        _ => looker.open_ref::<Vec<u8>>(name).await,
    };
    let (a, b) = (open("/a").await?, open("/b").await?);
    let look = async || looker.dosync(async |tx| tx.get_many((&a, &b)).await).await.map(|(a, b)| (a[0], b[0]));
    for waits in 0..500 {
        let before = look().await?;
        assert_eq!(before.0, before.1, "before the one that is dropped after {waits} waits");
        let done = within(SOON, "a transaction", dropped_after(waits, victim.count())).await;
        let (at_a, at_b) = look().await?;
        assert_eq!(at_a, at_b, "a transaction dropped after {waits} waits is seen in part");
        match &done {
            Some(done) => {
                assert!(done.is_ok(), "after {waits} waits: {done:?}");
                assert_eq!(at_a, before.0.wrapping_add(1), "after {waits} waits");
            }
            None => assert!(at_a == before.0 || at_a == before.0.wrapping_add(1), "after {waits} waits"),
        }
        within(SOON, &format!("the transaction after one dropped after {waits} waits"), victim.count()).await?;
        let (after, at_b) = look().await?;
        assert_eq!(after, at_b, "after the next transaction, {waits} waits");
        let least = before.0.wrapping_add(1);
        assert!(after == least || after == least.wrapping_add(1), "{after} after {before:?}, {waits} waits");
        if done.is_some() {
            assert!(waits > 0, "nothing was dropped at all");
            return Ok(());
        }
    }
    panic!("no end after 500 waits");
}

async fn victim(stm: Stm, value: Vec<u8>) -> Result<Victim, Failure> {
    let (a, b) = (stm.create_ref("/a", value.clone()).await?, stm.create_ref("/b", value).await?);
    Ok(Victim { stm, a, b })
}

/// Wherever the future of a transaction is dropped, all of it takes effect or nothing, and the client's next one succeeds.
async fn a_transaction_dropped_anywhere_is_whole_or_nothing(ctx: Ctx) -> Outcome {
    let looker = client(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let stm = ctx.stm(Arc::new(Rigged::new(coordinator).yielding()), store).build();
    drop_everywhere(&victim(stm, vec![0]).await?, &looker, None).await
}

/// The same where the engine keeps slots for lost replies.
async fn with_slots_a_transaction_dropped_anywhere_is_whole_or_nothing(ctx: Ctx) -> Outcome {
    let looker = client(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let stm = ctx.stm(Arc::new(Rigged::new(coordinator).plain().yielding()), store).build();
    drop_everywhere(&victim(stm, vec![0]).await?, &looker, None).await
}

/// The same with values in a store, each of which can be read if it is pointed at.
async fn with_stored_values_a_transaction_dropped_anywhere_is_whole_or_nothing(ctx: Ctx) -> Outcome {
    for plain in [false, true] {
        let here = if plain { ctx.elsewhere() } else { ctx.clone() };
        let (looker, ..) = super::bench::small(&here).await?;
        let (coordinator, store) = roles(&here).await?;
        let rigged = Rigged::new(coordinator).small(INLINE).yielding();
        let rigged = if plain { rigged.plain() } else { rigged };
        let store = Arc::new(RiggedStore::new(store).yielding());
        let stm = ctx.stm(Arc::new(rigged), store).cache_bytes(0).build();
        drop_everywhere(&victim(stm, large(0)).await?, &looker, None).await?;
    }
    Ok(())
}

/// The same over two stores.
async fn over_two_stores_a_transaction_dropped_anywhere_is_whole_or_nothing(ctx: Ctx) -> Outcome {
    let (looker, ..) = super::bench::small(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let second: Arc<dyn Store> = Arc::new(RiggedStore::new(Local::new().store()).yielding());
    let rigged = Arc::new(Rigged::new(coordinator).small(INLINE).plain().yielding());
    let store = Arc::new(RiggedStore::new(store).yielding());
    let stm = ctx.stm(rigged, store).cache_bytes(0).build();
    let a = stm.create_ref("/a", large(0)).await?;
    let b = stm.create_ref("/b", large(0)).in_store(&second).await?;
    drop_everywhere(&Victim { stm, a, b }, &looker, Some(&second)).await
}

/// The same while replies are lost, or requests are held back and come after the drop.
async fn with_lost_replies_a_transaction_dropped_anywhere_is_whole_or_nothing(ctx: Ctx) -> Outcome {
    let looker = client(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let rigged: Arc<dyn avout_core::Coordinator> = Arc::new(Rigged::new(coordinator).yielding());
    let plain = ctx.stm(Arc::clone(&rigged), Arc::clone(&store)).build();
    victim(plain, vec![0]).await?;
    for losses in [
        [Loss::BeforeApplied, Loss::None],
        [Loss::AfterApplied, Loss::None],
        [Loss::Held, Loss::None],
        [Loss::Delayed(Duration::from_micros(300)), Loss::None],
        [Loss::AfterApplied, Loss::AfterApplied],
        [Loss::Held, Loss::AfterApplied],
    ] {
        for waits in 0..200 {
            let lossy = Arc::new(LossyReplies::new(Arc::clone(&rigged), LossPlan::listed(losses)));
            let stm = ctx.stm(Arc::clone(&lossy) as _, Arc::clone(&store)).build();
            let (a, b) = (stm.open_ref::<Vec<u8>>("/a").await?, stm.open_ref::<Vec<u8>>("/b").await?);
            let (of_a, of_b) = (looker.open_ref::<Vec<u8>>("/a").await?, looker.open_ref::<Vec<u8>>("/b").await?);
            let victim = Victim { stm, a, b };
            let look = async || {
                let (a, b) = looker.dosync(async |tx| tx.get_many((&of_a, &of_b)).await).await?;
                assert_eq!(a, b, "seen in part, with {losses:?} after {waits} waits");
                Ok::<_, Failure>(a[0])
            };
            let before = look().await?;
            let done = within(SOON, "a transaction", dropped_after(waits, victim.count())).await;
            look().await?;
            within(SOON, "the next transaction", victim.count()).await?;
            lossy.settle().await;
            let _ = lossy.deliver().await?;
            let done = match done {
                None => false,
                Some(done) => {
                    done?;
                    true
                }
            };
            let grown = look().await?.wrapping_sub(before);
            assert!(grown == 2 || (grown == 1 && !done), "{grown} after {losses:?}, {waits} waits, {done}");
            if done {
                break;
            }
            assert!(waits < 199, "no end after 200 waits");
        }
    }
    Ok(())
}

/// A wait that is dropped keeps no watch, and what it had written is not there.
async fn a_dropped_wait_leaves_nothing(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let stm = ctx.stm(Arc::new(Rigged::new(coordinator).yielding()), store).build();
    let r = stm.create_ref("/r", 0_i64).await?;
    for waits in 0..20 {
        let wait = stm.dosync(async |tx| {
            tx.set(&r, 5).await?;
            tx.commute(&r, |n| n).await?;
            tx.ensure(&r).await?;
            Err::<(), _>(tx.retry())
        });
        // Nothing read from the store: the refusal of an endless wait, unless it was dropped before.
        if let Some(done) = dropped_after(waits, wait).await {
            assert!(done.is_err());
        }
        let wait = stm.dosync(async |tx| {
            let n = tx.get(&r).await?;
            tx.set(&r, n + 5).await?;
            Err::<(), _>(tx.retry())
        });
        let dropped = tokio::time::timeout(Duration::from_millis(5), dropped_after(waits, wait)).await;
        assert!(!matches!(dropped, Ok(Some(_))), "a wait for nothing ended");
        assert_eq!(r.get().await?, 0, "after {waits} waits");
    }
    Ok(())
}

/// A `timeout` of the caller's own around a transaction ends it like any drop, and the next one succeeds at once.
async fn a_timeout_around_a_transaction_is_a_drop(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    for _ in 0..5 {
        let hang = stm.dosync(async |tx| {
            tx.alter(&r, |n| n + 1).await?;
            std::future::pending::<Result<(), Error>>().await
        });
        assert!(tokio::time::timeout(Duration::from_millis(5), hang).await.is_err());
    }
    assert_eq!(r.get().await?, 0);
    assert_eq!(r.alter(|n| n + 1).await?, 1);
    Ok(())
}

/// A client that is dropped with transactions in flight leaves each of them whole or undone.
async fn a_dropped_client_leaves_its_commits_whole(ctx: Ctx) -> Outcome {
    let looker = client(&ctx).await?;
    let (a, b) = (looker.create_ref("/a", 0_i64).await?, looker.create_ref("/b", 0_i64).await?);
    for round in 0..10_u32 {
        let (coordinator, store) = roles(&ctx).await?;
        let stm = ctx.stm(Arc::new(Rigged::new(coordinator).plain().yielding()), store).build();
        let (of_a, of_b) = (stm.open_ref::<i64>("/a").await?, stm.open_ref::<i64>("/b").await?);
        let tasks: Vec<_> = (0..4)
            .map(|_| {
                let (stm, a, b) = (stm.clone(), of_a.clone(), of_b.clone());
                tokio::spawn(async move {
                    loop {
                        stm.dosync(async |tx| {
                            tx.alter(&a, |n| n + 1).await?;
                            tx.alter(&b, |n| n + 1).await
                        })
                        .await?;
                    }
                    #[expect(unreachable_code, reason = "it gives the task its type")]
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for _ in 0..round * 7 {
            tokio::task::yield_now().await;
        }
        drop((stm, of_a, of_b));
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        eventually("the tasks' end", || tasks.iter().all(tokio::task::JoinHandle::is_finished)).await;
        let (at_a, at_b) = looker.dosync(async |tx| tx.get_many((&a, &b)).await).await?;
        assert_eq!(at_a, at_b, "in round {round}");
    }
    a.set(0).await?;
    Ok(())
}
