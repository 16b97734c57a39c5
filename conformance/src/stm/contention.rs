//! A long transaction among short ones, and reservations.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use avout_core::{Error, Ref, Stm};
use rand::RngExt as _;
use tokio::time::Instant;

use super::bench::{SOON, add_aside, client, clients, eventually, let_others_run_at_once};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::present;

laws! { "stm":
    a_long_transaction_commits_among_short_ones_of_another_client,
    a_long_transaction_commits_among_short_ones_of_its_own_client,
    a_reservation_of_the_dead_holds_others_up_for_a_lease,
    a_reservation_is_gone_with_the_commit,
}

/// How many refs the long transaction changes.
const REFS: usize = 50;
/// How many tasks change two of them at a time, without a pause.
const SHORT_ONES: u64 = 8;
/// After how many attempts the long transaction has committed.
const ATTEMPTS: u32 = 20;

/// Changes two of the refs at a time until it is over; gives how often.
async fn short_ones(stm: Stm, mut rng: rand::rngs::StdRng, over: Arc<AtomicBool>, done: Arc<AtomicU64>) -> Outcome {
    let mut refs = Vec::new();
    for n in 0..REFS {
        refs.push(stm.open_ref::<i64>(format!("/r/{n}")).await?);
    }
    while !over.load(Ordering::SeqCst) {
        let first = rng.random_range(0..REFS);
        let second = (first + rng.random_range(1..REFS)) % REFS;
        stm.dosync(async |tx| {
            tx.alter(&refs[first], |n| n - 1).await?;
            tx.alter(&refs[second], |n| n + 1).await
        })
        .await?;
        done.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Changes all refs in one transaction, again and again, while the other client's tasks change them too.
async fn long_among(ctx: &Ctx, long: &Stm, short: &Stm) -> Outcome {
    const ROUNDS: i64 = 3;
    let mut refs = Vec::new();
    for n in 0..REFS {
        refs.push(long.create_ref(format!("/r/{n}"), 0_i64).await?);
    }
    let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..SHORT_ONES).map(|task| {
        let (over, done) = (Arc::clone(&over), Arc::clone(&done));
        tokio::spawn(short_ones(short.clone(), ctx.rng(task), over, done))
    });
    let tasks: Vec<_> = tasks.collect();
    for round in 1..=ROUNDS {
        let before = done.load(Ordering::SeqCst);
        eventually("the short transactions", || done.load(Ordering::SeqCst) >= before + SHORT_ONES).await;
        let attempts = long.transaction().no_deadline().dosync(async |tx| {
            for r in &refs {
                tx.alter(r, |n| n + 1).await?;
                // The others have time to come between, where they do not wait.
                tokio::task::yield_now().await;
            }
            Ok::<_, Error>(tx.attempt())
        });
        let attempts = attempts.await?;
        assert!(attempts <= ATTEMPTS, "round {round}: it took {attempts} attempts");
    }
    over.store(true, Ordering::SeqCst);
    for task in tasks {
        within(SOON, "a short transaction", task).await.expect("no task panics")?;
    }
    let sum: i64 = long.dosync(async |tx| Ok(tx.get_many(&refs).await?.iter().sum())).await?;
    assert_eq!(sum, ROUNDS * REFS as i64);
    Ok(())
}

/// A transaction over 50 refs commits within 20 attempts, while eight tasks of another client change two of these refs at a time.
async fn a_long_transaction_commits_among_short_ones_of_another_client(ctx: Ctx) -> Outcome {
    let [long, short] = clients(&ctx).await?;
    long_among(&ctx, &long, &short).await
}

/// The same while the eight tasks are of the same client.
async fn a_long_transaction_commits_among_short_ones_of_its_own_client(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    long_among(&ctx, &stm, &stm).await
}

/// Loses to `other`, unless it has reserved the ref: whether it has.
async fn lose_until_reserved(tx: &avout_core::Tx, stm: &Stm, r: &Ref<i64>, other: &Ref<i64>) -> Result<bool, Error> {
    tx.get(r).await?;
    let entry = present(&*stm.coordinator(), r.key()).await.expect("the coordinator answers");
    if entry.record.reservation.is_some() {
        return Ok(true);
    }
    assert!(tx.attempt() <= ATTEMPTS, "it was lost {} times and never reserved", tx.attempt() - 1);
    add_aside(other, 1).await;
    tx.set(r, -1).await?;
    Ok(false)
}

/// A transaction that is lost again and again reserves. If its client then dies, each other one waits for it once, for the
/// reservation's lease, at most ten seconds, and goes on.
async fn a_reservation_of_the_dead_holds_others_up_for_a_lease(ctx: Ctx) -> Outcome {
    let [victim, other] = clients(&ctx).await?;
    let third = client(&ctx).await?;
    let r = victim.create_ref("/r", 0_i64).await?;
    let of_other = other.open_ref::<i64>("/r").await?;
    let reserved = Arc::new(AtomicBool::new(false));
    let dies = {
        let (r, of_other, reserved) = (r.clone(), of_other.clone(), Arc::clone(&reserved));
        tokio::spawn(async move {
            let (stm, transaction) = (victim.clone(), victim.transaction().no_deadline());
            let never: Result<(), Error> = transaction
                .dosync(async |tx| {
                    if lose_until_reserved(&tx, &stm, &r, &of_other).await? {
                        reserved.store(true, Ordering::SeqCst);
                        std::future::pending::<()>().await;
                    }
                    Ok(())
                })
                .await;
            never
        })
    };
    eventually("a reservation", || reserved.load(Ordering::SeqCst)).await;
    let record = present(&*other.coordinator(), r.key()).await?.record;
    let lease = record.reservation.as_ref().expect("it was there").lease;
    assert!(lease <= Duration::from_secs(10), "a lease of {lease:?}");
    let before = of_other.get().await?;
    let begun = Instant::now();
    let others = [other.clone(), third.clone(), other.clone(), third].map(|stm| async move {
        let r = stm.open_ref::<i64>("/r").await?;
        r.alter(|n| n + 100).await?;
        Ok::<_, Failure>(())
    });
    within(SOON, "those who wait for the lease", Box::pin(together(others))).await?;
    // The first of them waits by its own clock, from when it has seen the reservation.
    assert!(begun.elapsed() >= lease, "it did not wait: {:?} of {lease:?}", begun.elapsed());
    let after = present(&*other.coordinator(), r.key()).await?.record;
    assert!(after.reservation.is_none(), "{:?}", after.reservation);
    assert_eq!(of_other.get().await?, before + 400);
    assert!(!dies.is_finished());
    dies.abort();
    Ok(())
}

/// Who has reserved commits with its next attempt, while others wait, and holds nobody up afterwards.
async fn a_reservation_is_gone_with_the_commit(ctx: Ctx) -> Outcome {
    let [stm, other] = clients(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let of_other = other.open_ref::<i64>("/r").await?;
    let mut ends = Vec::new();
    // A machine that stops for longer than the lease lets the other one go first, but not each time.
    for _ in 0..4 {
        r.set(0).await?;
        let waits = Arc::new(Mutex::new(None));
        let losses = stm.transaction().no_deadline().dosync(async |tx| {
            if lose_until_reserved(&tx, &stm, &r, &of_other).await? {
                let of_other = of_other.clone();
                let begun = tokio::spawn(async move { of_other.alter(|n| n + 1000).await });
                waits.lock().expect("no panic under the lock").get_or_insert(begun);
                // It comes to the reservation, and not past it.
                let_others_run_at_once().await;
                tx.set(&r, 100).await?;
            }
            Ok::<_, Error>(tx.attempt() - 1)
        });
        let losses = losses.await?;
        let waits = waits.lock().expect("no panic under the lock").take();
        within(SOON, "one that waited", waits.expect("it was begun")).await.expect("no panic")?;
        let record = present(&*other.coordinator(), r.key()).await?.record;
        assert!(record.reservation.is_none(), "{:?}", record.reservation);
        ends.push((losses, r.get().await?));
        if matches!(ends.last(), Some((8..ATTEMPTS, 1100))) {
            return Ok(());
        }
    }
    panic!("attempts that were lost, and what came of them: {ends:?}");
}
