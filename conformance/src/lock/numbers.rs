//! What all who use one name must agree on: permits, counts, parties, ids to keep. It can be changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use avout_core::{Error, ErrorKind};

use super::bench::{LONG, client};
use crate::law::{Ctx, Outcome, laws, together, within};
use crate::stm::bench::{SOON, refused};

laws! { "lock":
    another_number_is_refused_everywhere,
    permits_are_changed_while_they_are_used,
    permits_grow_and_shrink_under_load,
    ids_are_remembered_when_their_number_changes,
    ids_that_are_destroyed_are_forgotten;
    timed:
    a_latch_is_changed_and_destroyed_while_it_is_waited_for,
    a_barrier_is_changed_while_it_is_waited_at,
}

/// A handle with another number than the stored one is refused whatever it asks, with both numbers, and changes nothing.
async fn another_number_is_refused_everywhere(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let soon = Duration::from_millis(50);
    let mut done: Vec<(&str, &str, &str, Result<(), Error>)> = Vec::new();

    let permits = a.semaphore("/s", 30)?;
    let held = permits.acquire().await?;
    let wrong = b.semaphore("/s", 20)?;
    macro_rules! semaphore {
        ($($what:literal: $op:expr),+ $(,)?) => { $(done.push((concat!("semaphore, ", $what), "30", "20", $op.await.map(drop)));)+ };
    }
    semaphore! {
        "acquire": wrong.acquire(), "acquire_many": wrong.acquire_many(2), "more than it says": wrong.acquire_many(25),
        "try_acquire": wrong.try_acquire(), "try_acquire_many": wrong.try_acquire_many(2), "try more": wrong.try_acquire_many(25),
        "acquire_timeout": wrong.acquire_timeout(1, soon), "status": wrong.status(), "set_permits": wrong.set_permits(40),
        "destroy": wrong.destroy(),
    }

    let latch = a.latch("/l", 30)?;
    assert_eq!(latch.count_down().await?, 29);
    let (wrong, zero) = (b.latch("/l", 20)?, b.latch("/l", 0)?);
    macro_rules! latch {
        ($($what:literal: $op:expr),+ $(,)?) => { $(done.push((concat!("latch, ", $what), "30", "20", $op.await.map(drop)));)+ };
    }
    latch! {
        "count_down": wrong.count_down(), "count_down_in": b.dosync(async |tx| wrong.count_down_in(&tx).await),
        "left": wrong.left(), "wait": within(SOON, "a wait", wrong.wait()), "wait_timeout": wrong.wait_timeout(SOON),
        "set_count": wrong.set_count(40), "destroy": wrong.destroy(),
    }
    done.push(("latch of zero, wait", "30", "0", within(SOON, "a wait", zero.wait()).await));

    let barrier = a.barrier("/b", 30)?;
    refused(barrier.wait_timeout(soon).await, ErrorKind::Timeout, "one of thirty");
    let wrong = b.barrier("/b", 20)?;
    done.push(("barrier, wait", "30", "20", within(SOON, "a wait", wrong.wait()).await.map(drop)));
    done.push(("barrier, wait_timeout", "30", "20", wrong.wait_timeout(SOON).await.map(drop)));
    done.push(("barrier, set_parties", "30", "20", wrong.set_parties(40).await.map(drop)));
    done.push(("barrier, destroy", "30", "20", wrong.destroy().await));

    let once = a.once("/o", 30)?;
    assert_eq!(once.dosync("id", async |_| Ok(1_u8)).await?, 1);
    let wrong = b.once("/o", 20)?;
    done.push(("once, dosync", "30", "20", wrong.dosync("id", async |_| Ok(2_u8)).await.map(drop)));
    done.push(("once, set_keep", "30", "20", wrong.set_keep(40).await.map(drop)));
    done.push(("once, destroy", "30", "20", wrong.destroy().await));

    for (what, stored, named, done) in done {
        let error = refused(done, ErrorKind::Mismatch, what);
        let said = error.to_string();
        assert!(said.contains(stored) && said.contains(named), "{what}: {said} names {stored} and {named}");
    }
    assert_eq!((permits.status().await?.held, latch.left().await?), (1, 29));
    assert_eq!(once.dosync("id", async |_| Ok(3_u8)).await?, 1, "it is remembered");
    refused(barrier.wait_timeout(soon).await, ErrorKind::Timeout, "one of thirty");
    held.release().await?;
    Ok(())
}

/// More permits are given out at once to those who wait. Of fewer none is given out until enough came back; whoever waits for more than there
/// are is told. Then the semaphore can be destroyed, and made with any number.
async fn permits_are_changed_while_they_are_used(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let three = a.semaphore("/s", 3)?;
    let held = three.acquire_many(3).await?;
    let waiting = |many: u32| {
        let semaphore = b.semaphore("/s", 3);
        async move { semaphore?.acquire_many(many).await }
    };
    let waiter = tokio::spawn(waiting(2));
    until_waiting(&three, 1).await;
    let five = three.set_permits(5).await?;
    let more = within(SOON, "permits that were added", waiter).await.expect("no panic")?;
    refused(three.acquire().await, ErrorKind::Mismatch, "the old number");
    assert!(five.try_acquire().await?.is_none());

    let in_vain = tokio::spawn({
        let five = b.semaphore("/s", 5)?;
        async move { five.acquire_many(4).await }
    });
    until_waiting(&five, 1).await;
    let patient = tokio::spawn({
        let five = b.semaphore("/s", 5)?;
        async move { five.acquire().await }
    });
    until_waiting(&five, 2).await;
    let one = five.set_permits(1).await?;
    let error =
        refused(within(SOON, "one in vain", in_vain).await.expect("no panic"), ErrorKind::Mismatch, "four of one");
    assert!(error.to_string().contains('1') && error.to_string().contains('4'), "{error}");
    until_waiting(&one, 1).await;
    refused(one.destroy().await, ErrorKind::Contended, "a semaphore that is used");
    // Who held permits of the old number gives them back, and holds them until then.
    assert!(held.is_held() && more.is_held());
    held.release().await?;
    assert!(!patient.is_finished());
    more.release().await?;
    let patient = within(SOON, "the one", patient).await.expect("no panic")?;
    assert!(one.try_acquire().await?.is_none());
    patient.release().await?;
    one.destroy().await?;
    a.semaphore("/s", 7)?.acquire_many(7).await?.release().await?;
    refused(one.acquire().await, ErrorKind::Mismatch, "another number since");
    refused(one.set_permits(0).await, ErrorKind::InvalidInput, "no permit");
    Ok(())
}

/// However often the number of permits changes while others come and go, no more are out than there were at most, and all get their
/// turn.
async fn permits_grow_and_shrink_under_load(ctx: Ctx) -> Outcome {
    const TASKS: u32 = 6;
    const ROUNDS: u32 = 5;
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let (number, out) = (Arc::new(AtomicU32::new(2)), Arc::new(AtomicU32::new(0)));
    let changer = {
        let (stm, number) = (stms[0].clone(), Arc::clone(&number));
        async move {
            let mut semaphore = stm.semaphore("/s", 2)?;
            for next in [4, 1, 3, 2, 4, 2] {
                semaphore = semaphore.set_permits(next).await?;
                number.store(next, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, Error>(())
        }
    };
    let users = (0..TASKS).map(|task| {
        let (stm, number, out) = (stms[task as usize % 2].clone(), Arc::clone(&number), Arc::clone(&out));
        async move {
            for _ in 0..ROUNDS {
                let permit = loop {
                    match stm.semaphore("/s", number.load(Ordering::SeqCst))?.acquire().await {
                        Ok(permit) => break permit,
                        Err(error) if error.kind() == ErrorKind::Mismatch => tokio::task::yield_now().await,
                        Err(error) => return Err(error.into()),
                    }
                };
                let now = out.fetch_add(1, Ordering::SeqCst) + 1;
                assert!(now <= 4, "{now} permits are out");
                tokio::task::yield_now().await;
                out.fetch_sub(1, Ordering::SeqCst);
                permit.release().await?;
            }
            Ok(())
        }
    });
    let users = tokio::spawn(together(users.collect::<Vec<_>>()));
    let changed = tokio::spawn(changer);
    within(SOON * 2, "the changes", changed).await.expect("no panic")?;
    within(SOON * 2, "all turns", users).await.expect("no panic")?;
    let semaphore = stms[0].semaphore("/s", 2)?;
    let both = semaphore.acquire_many(2).await?;
    assert!(semaphore.try_acquire().await?.is_none());
    both.release().await?;
    Ok(())
}

/// What was counted down stays so when the number changes. Who waits goes on when the new number is reached, and is told if the latch is
/// destroyed, also if it is made again at once.
async fn a_latch_is_changed_and_destroyed_while_it_is_waited_for(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let waiter = |from: u64| {
        let latch = b.latch("/l", from);
        tokio::spawn(async move { latch?.wait().await })
    };
    let three = a.latch("/l", 3)?;
    assert_eq!(three.count_down().await?, 2);
    let first = waiter(3);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let five = three.set_count(5).await?;
    assert_eq!((five.left().await?, five.count_down().await?), (4, 3));
    let second = waiter(5);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!first.is_finished() && !second.is_finished());
    let two = five.set_count(2).await?;
    for waiter in [first, second] {
        within(SOON, "a waiter", waiter).await.expect("no panic")?;
    }
    let nine = two.set_count(9).await?;
    assert_eq!((nine.left().await?, nine.count_down().await?), (0, 0), "one that is open stays open");
    within(SOON, "an open latch", nine.wait()).await?;

    nine.destroy().await?;
    let four = a.latch("/l", 4)?;
    assert_eq!(four.count_down().await?, 3);
    let told = [waiter(4), waiter(4)];
    tokio::time::sleep(Duration::from_millis(200)).await;
    four.destroy().await?;
    let seven = a.latch("/l", 7)?;
    assert_eq!(seven.count_down().await?, 6);
    for waiter in told {
        let ended = within(SOON, "a waiter", waiter).await.expect("no panic").expect_err("it is not open");
        // One that looks only now finds another latch.
        assert!(matches!(ended.kind(), ErrorKind::NotFound | ErrorKind::Mismatch), "{ended:?}");
    }
    // Nobody has used it before it is waited for.
    let unused = b.latch("/unused", 1)?;
    let told = tokio::spawn(async move { unused.wait().await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    a.latch("/unused", 1)?.destroy().await?;
    refused(within(SOON, "a waiter", told).await.expect("no panic"), ErrorKind::NotFound, "a latch that was destroyed");
    Ok(())
}

/// Who waits at a barrier goes on when there are as many as the new number; one that is waited at is not destroyed.
async fn a_barrier_is_changed_while_it_is_waited_at(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let party = |parties: u32| {
        let barrier = b.barrier("/b", parties);
        tokio::spawn(async move { barrier?.wait().await })
    };
    let three = a.barrier("/b", 3)?;
    let early = [party(3), party(3)];
    // Both have come when a third would complete the round: it is known by the number of the round after a change.
    tokio::time::sleep(Duration::from_millis(300)).await;
    refused(three.destroy().await, ErrorKind::Contended, "a barrier that is waited at");
    let four = three.set_parties(4).await?;
    refused(four.wait_timeout(Duration::from_millis(100)).await, ErrorKind::Timeout, "three of four");
    assert!(early.iter().all(|party| !party.is_finished()));
    let two = four.set_parties(2).await?;
    for party in early {
        let passed = within(SOON, "a party", party).await.expect("no panic")?;
        assert_eq!((passed.round, passed.is_last), (1, false));
    }
    let other = party(2);
    assert_eq!(within(SOON, "the second round", two.wait()).await?.round, 2);
    within(SOON, "the other", other).await.expect("no panic")?;
    two.destroy().await?;
    let one = a.barrier("/b", 1)?;
    let passed = within(SOON, "another number", one.wait()).await?;
    assert!(passed.is_last && passed.round > 2);
    Ok(())
}

/// An id that was done stays done when more or fewer are to be kept, while others go on.
async fn ids_are_remembered_when_their_number_changes(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    a.create_ref("/runs", 0_u32).await?;
    let mut once = a.once("/o", 64)?;
    let mut keep = 64;
    let mut ids = 0_u32;
    for next in [256, 32, 320, 64, 65, 64] {
        for _ in 0..24 {
            let id = ids;
            assert_eq!(once.dosync(id.to_string(), async |_| Ok(id)).await?, id);
            ids += 1;
        }
        // Others come with ids, old and new, meanwhile; with the old number or the new one.
        let others = tokio::spawn({
            let (stm, recent) = (b.clone(), ids - 24);
            async move {
                let runs = stm.open_ref::<u32>("/runs").await?;
                for id in recent..recent + 24 {
                    for _ in 0..200 {
                        let mut done = Err(Error::new(ErrorKind::Mismatch, "not tried"));
                        for keep in [keep, next] {
                            let body = async |tx: avout_core::Tx| tx.alter(&runs, |n| n + 1).await;
                            let tried = stm.once("/o", keep)?.dosync(id.to_string(), body).await;
                            if done.is_err() {
                                done = tried;
                            }
                        }
                        match done {
                            Err(error) if error.kind() == ErrorKind::Mismatch => {}
                            done => {
                                assert_eq!(done?, id, "it was done before");
                                break;
                            }
                        }
                    }
                }
                Ok::<_, Error>(())
            }
        });
        once = once.set_keep(next).await?;
        within(SOON * 2, "the others", others).await.expect("no panic")?;
        keep = next;
        for id in ids.saturating_sub(32)..ids {
            assert_eq!(once.dosync(id.to_string(), async |_| Ok(u32::MAX)).await?, id, "after {next}");
        }
    }
    assert_eq!(a.open_ref::<u32>("/runs").await?.get().await?, 0);
    Ok(())
}

/// What was done is not remembered any more once it is destroyed, and it can be made with another number.
async fn ids_that_are_destroyed_are_forgotten(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let once = stm.once("/o", 320)?;
    for id in 0..40_u32 {
        once.dosync(id.to_string(), async |_| Ok(id)).await?;
    }
    once.destroy().await?;
    once.destroy().await?;
    let once = stm.once("/o", 33)?;
    for id in 0..40_u32 {
        assert_eq!(once.dosync(id.to_string(), async |_| Ok(1000 + id)).await?, 1000 + id);
    }
    refused(once.set_keep(0).await, ErrorKind::InvalidInput, "nothing to keep");
    Ok(())
}

async fn until_waiting(semaphore: &avout_core::Semaphore, waiting: usize) {
    within(SOON, &format!("{waiting} wait"), async {
        while semaphore.status().await.expect("a status").waiting != waiting {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
