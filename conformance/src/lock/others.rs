//! What is built of the same parts as a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use avout_core::ErrorKind;

use super::bench::{LONG, Mortal, TTL, client, until_status};
use crate::law::{Ctx, Outcome, laws, together, within};
use crate::stm::bench::{SOON, refused};

laws! { "lock":
    readers_share_and_writers_do_not,
    a_waiting_writer_is_not_overtaken,
    a_downgrade_lets_readers_in_and_no_writer,
    a_semaphore_keeps_its_limit,
    permits_of_the_dead_come_back,
    a_wait_releases_the_lock_and_a_notification_ends_it,
    notifications_go_in_the_order_of_waits,
    a_wait_ends_with_its_time,
    a_leader_is_followed_and_terms_grow,
    a_barrier_opens_with_the_last,
    a_queue_takes_part_in_transactions,
    once_is_once,
    once_forgets_no_recent_id;
    timed:
    a_latch_opens_at_zero,
    a_queue_is_first_in_first_out,
    what_is_not_acknowledged_is_handed_out_again,
}

/// A wait was given up in time. A store that is slow may not have answered until then.
fn in_time<T>(waited: avout_core::Result<T>, what: &str) {
    match waited {
        Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {}
        Err(error) => panic!("{what}: {error:?}"),
        Ok(_) => panic!("{what}: it was not waited for"),
    }
}

/// Any number hold it to read, one alone to write.
async fn readers_share_and_writers_do_not(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?.rw_lock("/lock")?, client(&ctx, LONG).await?.rw_lock("/lock")?);
    let readers = [a.read().await?, b.read().await?, b.try_read().await?.expect("readers share")];
    assert!(a.try_write().await?.is_none());
    let c = client(&ctx, LONG).await?.rw_lock("/lock")?;
    refused(c.write_timeout(Duration::from_millis(30)).await, ErrorKind::Timeout, "a lock that is read");
    refused(a.write_timeout(Duration::from_millis(30)).await, ErrorKind::Timeout, "a lock that this task reads");
    for reader in readers {
        reader.release().await?;
    }
    let writer = a.write_timeout(SOON).await?;
    assert!(b.try_read().await?.is_none() && b.try_write().await?.is_none());
    writer.release().await?;
    b.read().await?.release().await?;
    Ok(())
}

/// A reader that comes after a waiting writer waits behind it.
async fn a_waiting_writer_is_not_overtaken(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?.rw_lock("/lock")?, client(&ctx, LONG).await?.rw_lock("/lock")?);
    let reader = a.read().await?;
    let writer = tokio::spawn({
        let b = b.clone();
        async move { b.write().await }
    });
    within(SOON, "the writer in the line", async {
        while b.status().await.expect("a status").waiting == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert!(a.try_read().await?.is_none(), "a reader overtakes a writer");
    reader.release().await?;
    within(SOON, "the writer", writer).await.expect("no panic")?.release().await?;
    assert!(a.try_read().await?.is_some());
    Ok(())
}

/// After a downgrade readers get in, waiting ones too, and no writer.
async fn a_downgrade_lets_readers_in_and_no_writer(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?.rw_lock("/lock")?, client(&ctx, LONG).await?.rw_lock("/lock")?);
    let writer = a.write().await?;
    let token = writer.token();
    let reader = tokio::spawn({
        let b = b.clone();
        async move { b.read().await }
    });
    within(SOON, "the reader in the line", async {
        while b.status().await.expect("a status").waiting == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    let mine = writer.downgrade().await?;
    assert_eq!(mine.token(), token);
    let other = within(SOON, "the reader", reader).await.expect("no panic")?;
    assert!(b.try_write().await?.is_none());
    mine.release().await?;
    other.release().await?;
    assert!(b.try_write().await?.is_some());
    Ok(())
}

/// No more permits are out than there are, whoever asks for how many; another number of permits is refused.
async fn a_semaphore_keeps_its_limit(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let (out, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let tasks = (0..8_u32).map(|task| {
        let (stm, out, most) = (stms[task as usize % 2].clone(), Arc::clone(&out), Arc::clone(&most));
        async move {
            let semaphore = stm.semaphore("/s", 3)?;
            for round in 0..3 {
                let many = 1 + (task + round) % 3;
                let permit = semaphore.acquire_many(many).await?;
                most.fetch_max(out.fetch_add(many, Ordering::SeqCst) + many, Ordering::SeqCst);
                tokio::task::yield_now().await;
                out.fetch_sub(many, Ordering::SeqCst);
                permit.release().await?;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert!(most.load(Ordering::SeqCst) <= 3);
    let semaphore = stms[0].semaphore("/s", 3)?;
    refused(semaphore.acquire_many(4).await, ErrorKind::InvalidInput, "more than there are");
    refused(stms[0].semaphore("/s", 4)?.acquire().await, ErrorKind::Mismatch, "another number");
    let all = semaphore.acquire_many(3).await?;
    assert!(semaphore.try_acquire().await?.is_none());
    all.release().await?;
    Ok(())
}

/// Permits of one who died are given to others.
async fn permits_of_the_dead_come_back(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let _one = mortal.stm.semaphore("/s", 2)?.acquire().await?;
    let semaphore = other.semaphore("/s", 2)?;
    let two = semaphore.acquire().await?;
    mortal.die();
    let three = semaphore.acquire_timeout(1, SOON).await?;
    assert_eq!(semaphore.status().await?.held, 2);
    two.release().await?;
    three.release().await?;
    Ok(())
}

/// While one waits others can have the lock; it goes on, with the lock, when it was notified and the lock is free, and not before.
async fn a_wait_releases_the_lock_and_a_notification_ends_it(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?.lock("/lock")?, client(&ctx, LONG).await?.lock("/lock")?);
    let guard = a.acquire().await?;
    let token = guard.token();
    let condition = a.condition("c")?;
    let waiter = tokio::spawn(async move { condition.wait(guard).await });
    let other = within(SOON, "the lock", b.acquire()).await?;
    let condition = b.condition("c")?;
    assert!(!waiter.is_finished());
    assert!(condition.notify_one(&other).await?);
    assert!(!condition.notify_one(&other).await?, "nobody waits any more");
    let status = b.status().await?;
    assert_eq!((status.held, status.waiting), (1, 1), "it waits for the lock");
    assert!(!waiter.is_finished());
    other.release().await?;
    let guard = within(SOON, "the notified one", waiter).await.expect("no panic")?;
    assert!(guard.is_held() && guard.token() > token);
    guard.release().await?;
    until_status(&b, 0, 0).await;
    Ok(())
}

/// Those who wait are notified in the order in which they came, one at a time or all.
async fn notifications_go_in_the_order_of_waits(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    let observer = stms[0].lock("/lock")?;
    for number in 0..4_usize {
        let (lock, order) = (stms[number % 2].lock("/lock")?, Arc::clone(&order));
        let guard = lock.acquire().await?;
        waiters.push(tokio::spawn(async move {
            let guard = lock.condition("c")?.wait(guard).await?;
            order.lock().expect("no panic").push(number);
            guard.release().await
        }));
        // It waits when the lock is free again.
        until_status(&observer, 0, 0).await;
    }
    let (lock, condition) = (stms[0].lock("/lock")?, stms[0].lock("/lock")?.condition("c")?);
    let guard = lock.acquire().await?;
    assert!(condition.notify_one(&guard).await?);
    assert_eq!(condition.notify_all(&guard).await?, 3);
    guard.release().await?;
    for waiter in waiters {
        within(SOON, "a waiter", waiter).await.expect("no panic")?;
    }
    assert_eq!(*order.lock().expect("no panic"), [0, 1, 2, 3]);
    Ok(())
}

/// A wait ends when its time is over, with the lock held.
async fn a_wait_ends_with_its_time(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let lock = stm.lock("/lock")?;
    let condition = lock.condition("c")?;
    let guard = lock.acquire().await?;
    let (guard, timed_out) = within(SOON, "the wait", condition.wait_timeout(guard, Duration::from_millis(40))).await?;
    assert!(timed_out && guard.is_held());
    stm.dosync(async |tx| tx.require(&guard).await).await?;
    assert!(!condition.notify_one(&guard).await?, "nobody waits");
    // A wait that is dropped ends in the background, and holds nothing.
    drop(tokio::time::timeout(Duration::from_millis(20), condition.wait(guard)).await);
    let nobody_waits = async {
        loop {
            let guard = lock.acquire().await?;
            let notified = condition.notify_one(&guard).await?;
            guard.release().await?;
            if !notified {
                return Ok::<_, avout_core::Error>(());
            }
        }
    };
    within(SOON, "the end of the dropped wait", nobody_waits).await?;
    until_status(&lock, 0, 0).await;
    Ok(())
}

/// One leads at a time; observers see who, and the numbers of terms grow.
async fn a_leader_is_followed_and_terms_grow(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?);
    let (election, other) = (a.election("/e")?, b.election("/e")?);
    let mut leaders = other.observe();
    assert_eq!(within(SOON, "nobody", leaders.next()).await?, None);
    let first = election.campaign("first").await?;
    let seen = within(SOON, "the first", leaders.next()).await?.expect("a leader");
    assert_eq!((&*seen.name, seen.term), ("first", first.token()));
    refused(other.campaign_timeout("x", Duration::from_millis(30)).await, ErrorKind::Timeout, "a second leader");
    let second = tokio::spawn(async move { other.campaign("second").await });
    let term = first.token();
    tokio::time::sleep(Duration::from_millis(20)).await;
    first.resign().await?;
    let second = within(SOON, "the second", second).await.expect("no panic")?;
    assert!(second.token() > term);
    within(SOON, "the second seen", async {
        loop {
            if leaders.next().await?.is_some_and(|leader| leader.name == "second") {
                return Ok::<_, avout_core::Error>(());
            }
        }
    })
    .await?;
    Ok(())
}

/// All go on when the last has come, once each round, and one of them is told that it was the last.
async fn a_barrier_opens_with_the_last(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    for round in 1..=3_u64 {
        let early = stms.iter().take(2).map(|stm| stm.barrier("/b", 3)).collect::<Result<Vec<_>, _>>()?;
        let early: Vec<_> =
            early.into_iter().map(|barrier| tokio::spawn(async move { barrier.wait().await })).collect();
        // One that goes away has not arrived.
        let barrier = stms[2].barrier("/b", 4)?;
        drop(barrier);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(early.iter().all(|party| !party.is_finished()), "two of three have come");
        let mut passed = vec![within(SOON, "the last", stms[2].barrier("/b", 3)?.wait()).await?];
        for party in early {
            passed.push(within(SOON, "a party", party).await.expect("no panic")?);
        }
        assert!(passed.iter().all(|passed| passed.round == round), "{passed:?}");
        assert_eq!(passed.iter().filter(|passed| passed.is_last).count(), 1);
        refused(
            stms[0].barrier("/b", 3)?.wait_timeout(Duration::from_millis(20)).await,
            ErrorKind::Timeout,
            "a barrier with one party",
        );
    }
    Ok(())
}

/// Those who wait go on when the count is zero, and later ones at once.
async fn a_latch_opens_at_zero(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?.latch("/l", 3)?, client(&ctx, LONG).await?.latch("/l", 3)?);
    let waiter = tokio::spawn({
        let b = b.clone();
        async move { b.wait().await }
    });
    assert_eq!((a.count_down().await?, a.count_down().await?), (2, 1));
    in_time(b.wait_timeout(Duration::from_millis(300)).await, "a latch at one");
    assert!(!waiter.is_finished());
    assert_eq!((b.count_down().await?, b.count_down().await?), (0, 0));
    within(SOON, "the waiter", waiter).await.expect("no panic")?;
    a.wait().await?;
    Ok(())
}

/// Values come out in the order in which they went in, each once, and never more are in it than there is room for.
async fn a_queue_is_first_in_first_out(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, LONG).await?.queue::<u32>("/q", 4)?, client(&ctx, LONG).await?.queue::<u32>("/q", 4)?);
    assert_eq!(b.try_pop().await?, None);
    for round in 0..3 {
        for n in 0..4 {
            a.push(round * 10 + n).await?;
        }
        refused(a.push(99).await, ErrorKind::Full, "a queue that is full");
        for n in 0..4 {
            assert_eq!(b.pop().await?, round * 10 + n);
        }
        assert!(a.is_empty().await?);
    }
    let waiter = tokio::spawn(async move { b.pop().await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    a.push(7).await?;
    assert_eq!(within(SOON, "the value", waiter).await.expect("no panic")?, 7);
    in_time(a.pop_timeout(Duration::from_millis(300)).await, "an empty queue");
    Ok(())
}

/// To push and pop inside a transaction takes effect with it or not at all, several times in one too.
async fn a_queue_takes_part_in_transactions(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let queue = stm.queue::<u32>("/q", 2)?;
    let done = stm.create_ref("/done", 0_u32).await?;
    let failed = stm.dosync(async |tx| {
        queue.push_in(&tx, 1).await?;
        Err::<(), _>(avout_core::Error::abort("no"))
    });
    refused(failed.await, ErrorKind::Aborted, "a body that gives up");
    assert!(queue.is_empty().await?);
    let popped = stm.dosync(async |tx| {
        queue.push_in(&tx, 1).await?;
        queue.push_in(&tx, 2).await?;
        let first = queue.pop_in(&tx).await?;
        queue.push_in(&tx, 3).await?;
        tx.set(&done, 5).await?;
        Ok(first)
    });
    assert_eq!(popped.await?, Some(1));
    assert_eq!((queue.pop().await?, queue.pop().await?, queue.try_pop().await?), (2, 3, None));
    Ok(())
}

/// A value whose receiver drops it, hides it for too long or dies is handed out again, in its place; one that is acknowledged is not.
async fn what_is_not_acknowledged_is_handed_out_again(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let hours = Duration::from_secs(3600);
    let queue = other.queue::<u32>("/q", 10)?;
    queue.push(1).await?;
    let dropped = queue.receive(hours).await?;
    assert_eq!((*dropped.value(), dropped.times()), (1, 1));
    drop(dropped);
    let again = within(SOON, "the first again", queue.receive(hours)).await?;
    assert_eq!((*again.value(), again.times()), (1, 2));
    again.ack().await?;
    queue.push(2).await?;
    queue.push(3).await?;
    let dead = within(SOON, "the second", mortal.stm.queue::<u32>("/q", 10)?.receive(hours)).await?;
    assert_eq!(*dead.value(), 2);
    mortal.die();
    let late = queue.receive(Duration::from_millis(50)).await?;
    assert_eq!(*late.value(), 3);
    let mut got = Vec::new();
    for _ in 0..2 {
        let next = within(SOON, "what was handed out", queue.receive(hours)).await?;
        assert_eq!(next.times(), 2);
        got.push(next.ack().await?);
    }
    got.sort_unstable();
    assert_eq!(got, [2, 3]);
    refused(late.ack().await, ErrorKind::Lost, "what was handed to another");
    assert!(queue.is_empty().await?);
    Ok(())
}

/// However often and wherever an id comes, its effect is once, and all are given its result.
async fn once_is_once(ctx: Ctx) -> Outcome {
    let stms = [client(&ctx, LONG).await?, client(&ctx, LONG).await?];
    stms[0].create_ref("/count", 0_u32).await?;
    let tasks = (0..12_usize).map(|task| {
        let stm = stms[task % 2].clone();
        async move {
            let count = stm.open_ref::<u32>("/count").await?;
            let id = format!("id {}", task % 3);
            Ok((task % 3, stm.dosync_once(id, async |tx| tx.alter(&count, |n| n + 1).await).await?))
        }
    });
    let results = together(tasks).await?;
    assert_eq!(stms[0].open_ref::<u32>("/count").await?.get().await?, 3);
    for id in 0..3 {
        let mut of_id = results.iter().filter(|(of, _)| *of == id).map(|(_, result)| *result);
        let first = of_id.next().expect("four of them");
        assert!(of_id.all(|result| result == first), "{results:?}");
    }
    let failed = stms[0].dosync_once("fails", async |_| Err::<u32, _>(avout_core::Error::abort("no"))).await;
    refused(failed, ErrorKind::Aborted, "a body that gives up");
    assert_eq!(stms[0].dosync_once("fails", async |_| Ok(7_u32)).await?, 7, "nothing is remembered of it");
    refused(stms[0].once("/default", 5)?.dosync("id", async |_| Ok(0)).await, ErrorKind::Mismatch, "another keep");
    Ok(())
}

/// Of so many ids as are to be kept, each is remembered, and not all that came before.
async fn once_forgets_no_recent_id(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let once = stm.once("/once", 32)?;
    for id in 0..130_u32 {
        assert_eq!(once.dosync(id.to_string(), async |_| Ok(id)).await?, id);
    }
    for id in 98..130_u32 {
        assert_eq!(once.dosync(id.to_string(), async |_| Ok(0_u32)).await?, id, "it is remembered");
    }
    assert_eq!(once.dosync("0", async |_| Ok(1000_u32)).await?, 1000, "it is forgotten");
    Ok(())
}
