//! Queues of transactions of one client that lose to each other.

use std::sync::Arc;
use std::time::Duration;

use avout_core::Error;
use tokio::sync::Barrier;

use super::bench::{Outside, SOON, add_aside, eventually, gate, let_others_run, outside, set_aside};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};

laws! { "stm":
    those_who_lost_to_each_other_queue,
    a_dropped_place_in_a_queue_is_passed_on,
    a_turn_that_does_not_end_is_passed_by,
}

/// How many transactions meet.
const TASKS: u32 = 16;

/// With commits that take their time, which the patience of a queue is measured by.
async fn slow(ctx: &Ctx) -> Result<Outside, Failure> {
    let outside = outside(ctx, |rig| rig.slow(Duration::from_millis(4)), |store| store).await?;
    let warm = outside.stm.create_ref("/warm", 0_i64).await?;
    for n in 0..12 {
        warm.set(n).await?;
    }
    Ok(outside)
}

/// Of n transactions that all lost to each other, each commits after two lost attempts or fewer, on average one and a half: 16
/// commit within 40 attempts, where a race would take 136. Each has a place in the queue, and finds there what the one before left.
async fn those_who_lost_to_each_other_queue(ctx: Ctx) -> Outcome {
    let Outside { stm, .. } = slow(&ctx).await?;
    let mut rounds = Vec::new();
    // A machine that stops for a while can make a turn longer than the patience of those behind, but not each time.
    for round in 1..=3_i64 {
        let r = stm.create_or_open_ref("/r", 0_i64).await?;
        let barrier = Arc::new(Barrier::new(TASKS as usize));
        let tasks = (0..TASKS).map(|_| {
            let (stm, r, barrier) = (stm.clone(), r.clone(), Arc::clone(&barrier));
            async move {
                let attempts = stm.dosync(async |tx| {
                    let n = tx.get(&r).await?;
                    if tx.attempt() == 1 {
                        barrier.wait().await;
                    }
                    tx.set(&r, n + 1).await?;
                    Ok::<_, Error>(tx.attempt())
                });
                Ok::<_, Failure>(attempts.await?)
            }
        });
        let attempts = within(SOON, "all of them", together(tasks)).await?;
        assert_eq!(r.get().await?, round * i64::from(TASKS), "each counts once");
        rounds.push(attempts.iter().sum::<u32>());
        if rounds.last().is_some_and(|total| *total <= TASKS * 5 / 2) {
            return Ok(());
        }
    }
    panic!("{TASKS} transactions took {rounds:?} attempts");
}

/// A transaction whose future is dropped while it has its turn, or while it waits for it, leaves the queue: those behind it commit.
async fn a_dropped_place_in_a_queue_is_passed_on(ctx: Ctx) -> Outcome {
    let Outside { stm, rig, counts, .. } = slow(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    for first_is_dropped in [false, true] {
        r.set(0).await?;
        let (open, opened) = gate();
        let mut opened = Some(opened);
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let before = counts.counts().conflicts;
            let (stm, r, rig) = (stm.clone(), r.clone(), Arc::clone(&rig));
            let opened = opened.take();
            let opened = std::sync::Mutex::new(opened);
            tasks.push(tokio::spawn(async move {
                stm.dosync(async |tx| {
                    let n = tx.get(&r).await?;
                    if tx.attempt() == 1 {
                        // Loses its first attempt, and queues.
                        add_aside(&r, 100).await;
                    } else if let Some(opened) = opened.lock().expect("no panic under the lock").take() {
                        rig.before_commit(opened);
                    }
                    tx.set(&r, n + 1).await
                })
                .await
            }));
            if tasks.len() == 1 {
                eventually("a lost attempt", || counts.counts().conflicts > before).await;
            }
            let_others_run().await;
        }
        tasks[1].abort();
        if first_is_dropped {
            tasks[0].abort();
        }
        let_others_run().await;
        drop(open);
        for (place, task) in tasks.into_iter().enumerate() {
            match within(SOON, "those behind", task).await {
                Ok(done) => done?,
                Err(error) => assert!(error.is_cancelled() && place < 2, "place {place}: {error}"),
            }
        }
        let dropped = 1 + i64::from(first_is_dropped);
        let ones = r.get().await? % 100;
        assert!((4 - dropped..=4).contains(&ones), "{ones} of 4 counted, {dropped} were dropped");
        // Nobody is left in the queue.
        within(SOON, "a later one", r.set(0)).await?;
    }
    Ok(())
}

/// One that does not go on when it has its turn, whatever for, is passed by after a while.
async fn a_turn_that_does_not_end_is_passed_by(ctx: Ctx) -> Outcome {
    let Outside { stm, .. } = slow(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let (hangs, hung) = gate();
    let hangs = Arc::new(std::sync::Mutex::new(Some(hangs)));
    let task = {
        let (stm, r, hangs) = (stm.clone(), r.clone(), Arc::clone(&hangs));
        tokio::spawn(async move {
            stm.dosync(async |tx| {
                let n = tx.get(&r).await?;
                if tx.attempt() == 1 {
                    set_aside(&r, n + 100).await;
                } else {
                    hangs.lock().expect("no panic under the lock").take();
                    std::future::pending::<()>().await;
                }
                tx.set(&r, -1).await
            })
            .await
        })
    };
    within(SOON, "its turn", hung).await;
    for n in 1..=3 {
        assert_eq!(within(SOON, "one behind it", r.alter(|n| n + 1)).await?, 100 + n);
    }
    assert!(!task.is_finished());
    task.abort();
    Ok(())
}
