//! A lock whose holders and waiters die, or sleep too long.

use std::time::{Duration, Instant};

use avout_core::ErrorKind;

use super::bench::{LONG, Mortal, TTL, client, until_status};
use crate::fault::{CrashAt, CrashPoint, Death, LossPlan, LossyReplies, Moment};
use crate::law::{Ctx, Outcome, laws, needs, together, within};
use crate::noise::Noise;
use crate::stm::bench::{SOON, aside, refused, roles};
use crate::stm::rig::Then;

laws! { "lock":
    requests_that_begin_a_session_together_share_it,
    lost_replies_leave_nothing_behind;
    timed:
    a_dead_holder_is_followed_within_twice_the_ttl,
    a_dead_holder_is_followed_by_its_own_time,
    a_dead_waiter_is_passed_over,
    those_who_die_together_are_noticed_together,
    a_living_holder_keeps_it,
    a_try_finds_a_dead_holder_in_the_end,
    who_was_cut_off_notices_before_others_have_it,
    a_required_commit_does_not_outlive_the_guard,
    a_waiter_that_was_cut_off_waits_on,
    an_idle_session_is_not_taken_for_dead,
    whoever_dies_at_any_call_holds_nobody_up,
}

/// If the holder dies, the first waiter has the lock within twice its time to live, and not before its end.
async fn a_dead_holder_is_followed_within_twice_the_ttl(ctx: Ctx) -> Outcome {
    let (mortal, noise) = (Mortal::new(&ctx, TTL).await?, Noise::new(&ctx).await?);
    let other = client(&ctx, TTL).await?;
    let guard = mortal.stm.lock("/lock")?.acquire().await?;
    let lock = other.lock("/lock")?;
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    until_status(&lock, 1, 1).await;
    let died = mortal.die();
    let next = within(SOON, "a turn", waiter).await.expect("no panic")?;
    let after = died.elapsed();
    // A sign of life may have been sent up to a quarter of the time before.
    let earliest = (TTL * 3 / 4).saturating_sub(noise.allowance());
    assert!(
        (earliest..TTL * 2 + noise.allowance()).contains(&after),
        "it was followed after {after:?}, and its time to live is {TTL:?}"
    );
    assert!(next.token() > guard.token());
    assert!(!guard.is_held());
    Ok(())
}

/// How soon a dead holder is followed goes by its own time to live, however long that of those who wait is.
async fn a_dead_holder_is_followed_by_its_own_time(ctx: Ctx) -> Outcome {
    needs(ctx.coordinator().await?.sessions().is_none(), "native sessions do not tell their time to live")?;
    let (mortal, noise) = (Mortal::new(&ctx, TTL).await?, Noise::new(&ctx).await?);
    let lock = client(&ctx, LONG).await?.lock("/lock")?;
    let _guard = mortal.stm.lock("/lock")?.acquire().await?;
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    until_status(&lock, 1, 1).await;
    let died = mortal.die();
    within(SOON, "a turn", waiter).await.expect("no panic")?.release().await?;
    assert!(died.elapsed() < TTL * 2 + noise.allowance(), "after {:?}", died.elapsed());
    Ok(())
}

/// A waiter that died does not get the lock, and leaves nothing in the line.
async fn a_dead_waiter_is_passed_over(ctx: Ctx) -> Outcome {
    let (mortal, a, b) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let guard = a.lock("/lock")?.acquire().await?;
    let dead = mortal.stm.lock("/lock")?;
    let dead = tokio::spawn(async move { dead.acquire().await });
    let lock = b.lock("/lock")?;
    until_status(&lock, 1, 1).await;
    mortal.die();
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    // It is removed though the lock is still held.
    until_status(&lock, 1, 2).await;
    until_status(&lock, 1, 1).await;
    guard.release().await?;
    within(SOON, "a turn", waiter).await.expect("no panic")?.release().await?;
    assert!(!dead.is_finished());
    dead.abort();
    until_status(&lock, 0, 0).await;
    Ok(())
}

/// If a holder and the waiters behind it die at once, the first one that lives has the lock as soon as if only one had died.
async fn those_who_die_together_are_noticed_together(ctx: Ctx) -> Outcome {
    let mortals = [Mortal::new(&ctx, TTL).await?, Mortal::new(&ctx, TTL).await?, Mortal::new(&ctx, TTL).await?];
    let noise = Noise::new(&ctx).await?;
    let lock = client(&ctx, TTL).await?.lock("/lock")?;
    let guard = mortals[0].stm.lock("/lock")?.acquire().await?;
    for (waiting, mortal) in mortals[1..].iter().enumerate() {
        let lock_of = mortal.stm.lock("/lock")?;
        tokio::spawn(async move { lock_of.acquire().await });
        until_status(&lock, 1, waiting + 1).await;
    }
    let waiter = tokio::spawn({
        let lock = lock.clone();
        async move { lock.acquire().await }
    });
    until_status(&lock, 1, 3).await;
    let died = mortals.each_ref().map(Mortal::die)[0];
    let next = within(SOON, "a turn", waiter).await.expect("no panic")?;
    assert!(died.elapsed() < TTL * 2 + noise.allowance(), "after {:?}", died.elapsed());
    let status = lock.status().await?;
    assert_eq!((status.held, status.waiting), (1, 0));
    assert!(!guard.is_held());
    next.release().await?;
    Ok(())
}

/// A holder that lives keeps the lock for longer than its session's time to live, however many wait.
async fn a_living_holder_keeps_it(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let guard = a.lock("/lock")?.acquire().await?;
    let lock = b.lock("/lock")?;
    refused(lock.acquire_timeout(TTL * 2 + TTL / 2).await, ErrorKind::Timeout, "a lock that is held");
    assert!(guard.is_held());
    a.dosync(async |tx| tx.require(&guard).await).await?;
    guard.release().await?;
    Ok(())
}

/// One who only ever tries gets the lock of a dead holder, once it has seen it held for long enough.
async fn a_try_finds_a_dead_holder_in_the_end(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let noise = Noise::new(&ctx).await?;
    let _guard = mortal.stm.lock("/lock")?.acquire().await?;
    let lock = other.lock("/lock")?;
    assert!(lock.try_acquire().await?.is_none());
    let died = mortal.die();
    let got = within(SOON, "the lock", async {
        loop {
            if let Some(guard) = lock.try_acquire().await? {
                return Ok::<_, avout_core::Error>(guard);
            }
            tokio::time::sleep(TTL / 10).await;
        }
    });
    got.await?.release().await?;
    assert!(died.elapsed() < TTL * 2 + noise.allowance(), "after {:?}", died.elapsed());
    Ok(())
}

/// A holder that was cut off notices by its own clock, before anybody else can have the lock: the guard says so, `lost` returns,
/// and so does `release`, with an error.
async fn who_was_cut_off_notices_before_others_have_it(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let guard = mortal.stm.lock("/lock")?.acquire().await?;
    let waiter = other.lock("/lock")?;
    let waiter = tokio::spawn(async move { waiter.acquire().await });
    until_status(&other.lock("/lock")?, 1, 1).await;
    assert!(futures_util::poll!(Box::pin(guard.lost())).is_pending());
    mortal.die();
    within(SOON, "the loss", guard.lost()).await;
    assert!(!guard.is_held());
    let next = within(SOON, "a turn", waiter).await.expect("no panic")?;
    mortal.rig.all(Then::Pass);
    assert!(!guard.is_held(), "what is lost stays lost");
    refused(guard.release().await, ErrorKind::Lost, "a guard that was lost");
    // It goes on in another session.
    next.release().await?;
    within(SOON, "a turn", mortal.stm.lock("/lock")?.acquire()).await?.release().await?;
    Ok(())
}

/// A transaction that requires a guard does not commit after another client has got the lock, even if that happened between the look at
/// the guard and the commit.
async fn a_required_commit_does_not_outlive_the_guard(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let value = mortal.stm.create_ref("/value", 0_u64).await?;
    let guard = mortal.stm.lock("/lock")?.acquire().await?;
    let (rig, lock) = (std::sync::Arc::clone(&mortal.rig), other.lock("/lock")?);
    let (told, next) = tokio::sync::oneshot::channel();
    let write = mortal.stm.dosync(async |tx| {
        tx.require(&guard).await?;
        tx.set(&value, guard.token()).await
    });
    mortal.rig.before_commit(async move {
        // The process stops here until another client has the lock.
        rig.all(Then::Hang);
        told.send(within(SOON, "a turn", lock.acquire()).await).expect("the law waits");
        rig.all(Then::Pass);
    });
    refused(within(SOON, "the transaction", write).await, ErrorKind::Lost, "a commit after the loss");
    let next = next.await.expect("it was told")?;
    assert_eq!(other.open_ref::<u64>("/value").await?.get().await?, 0, "nothing was written");
    let value = other.open_ref::<u64>("/value").await?;
    let write = other.dosync(async |tx| {
        tx.require(&next).await?;
        tx.set(&value, next.token()).await
    });
    write.await?;
    assert_eq!(value.get().await?, next.token());
    Ok(())
}

/// A waiter that was cut off for too long loses its place, and waits on in another session.
async fn a_waiter_that_was_cut_off_waits_on(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, LONG).await?);
    let guard = other.lock("/lock")?.acquire().await?;
    let lock = mortal.stm.lock("/lock")?;
    let waiter = tokio::spawn(async move { lock.acquire().await });
    until_status(&other.lock("/lock")?, 1, 1).await;
    // Each call ends with an error, as those of a store that cannot be reached do.
    mortal.rig.all(Then::Fail(ErrorKind::Unavailable));
    tokio::time::sleep(TTL * 3 / 2).await;
    mortal.rig.all(Then::Pass);
    guard.release().await?;
    let guard = within(SOON, "a turn", waiter).await.expect("no panic")?;
    assert!(guard.is_held());
    guard.release().await?;
    until_status(&other.lock("/lock")?, 0, 0).await;
    Ok(())
}

/// A session that held nothing for longer than its time to live is not taken for dead when it is used again.
async fn an_idle_session_is_not_taken_for_dead(ctx: Ctx) -> Outcome {
    let (a, b) = (client(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let (of_a, of_b) = (a.lock("/lock")?, b.lock("/lock")?);
    let guard = of_a.acquire().await?;
    assert!(of_b.try_acquire().await?.is_none(), "b has seen a's session");
    guard.release().await?;
    tokio::time::sleep(TTL * 3 / 2).await;
    let guard = of_a.acquire().await?;
    for _ in 0..3 {
        assert!(of_b.try_acquire().await?.is_none(), "a lives, and holds it");
    }
    assert!(guard.is_held());
    guard.release().await?;
    Ok(())
}

/// The first requests of a client come at once, and one of them is answered between another's look and its commit: they share
/// the session that the one has begun, and both keep what they got.
async fn requests_that_begin_a_session_together_share_it(ctx: Ctx) -> Outcome {
    let Mortal { stm, rig } = Mortal::new(&ctx, LONG).await?;
    let (first, second) = (stm.lock("/first")?, stm.lock("/second")?);
    let (told, got) = tokio::sync::oneshot::channel();
    rig.after_read(aside(async move { drop(told.send(first.acquire().await)) }));
    let second = second.acquire().await?;
    let first = got.await.expect("the first request was answered")?;
    assert!(first.is_held() && second.is_held(), "both are held");
    second.release().await?;
    first.release().await?;
    Ok(())
}

/// Whichever requests and replies are lost, one holds it at a time and nothing is left behind.
async fn lost_replies_leave_nothing_behind(ctx: Ctx) -> Outcome {
    let mut stms = Vec::new();
    for number in 0..3_u64 {
        let (coordinator, store) = roles(&ctx).await?;
        let plan = LossPlan::drawn(ctx.seed ^ number, 0.3, Duration::from_millis(3));
        let lossy = std::sync::Arc::new(LossyReplies::new(coordinator, plan));
        stms.push(ctx.stm(lossy, store).seed(ctx.seed).session_ttl(LONG).build());
    }
    let whole = client(&ctx, LONG).await?;
    whole.create_ref("/count", 0_u64).await?;
    let tasks = stms.iter().flat_map(|stm| [stm.clone(), stm.clone()]).enumerate().map(|(task, stm)| {
        let whole = whole.clone();
        async move {
            let lock = stm.lock("/lock")?;
            let count = whole.open_ref::<u64>("/count").await?;
            for round in 0..6 {
                if (task + round) % 3 == 0 {
                    // Some go away before it is their turn.
                    let _ = tokio::time::timeout(Duration::from_millis(2), lock.acquire()).await;
                }
                let guard = within(SOON, "a turn", lock.acquire()).await?;
                let before = count.get().await?;
                tokio::task::yield_now().await;
                count.set(before + 1).await?;
                guard.release().await?;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(whole.open_ref::<u64>("/count").await?.get().await?, 36);
    until_status(&whole.lock("/lock")?, 0, 0).await;
    Ok(())
}

/// Whichever call a process dies at while it acquires, holds or releases the lock, or waits for it, another one has the lock within
/// twice the time to live, and nothing is left behind.
async fn whoever_dies_at_any_call_holds_nobody_up(ctx: Ctx) -> Outcome {
    let never = CrashPoint::never();
    let calls = {
        let (coordinator, store) = roles(&ctx).await?;
        let stm = ctx.stm(std::sync::Arc::new(CrashAt::new(coordinator, never.clone())), store).build();
        stm.lock("/first")?.acquire().await?.release().await?;
        never.calls()
    };
    needs(calls > 0, "it makes no calls")?;
    let noise = std::sync::Arc::new(Noise::new(&ctx).await?);
    let deaths = (1..=calls).flat_map(|at| [(at, Moment::Before), (at, Moment::After)]);
    let tasks = deaths.map(|(at, moment)| {
        let (ctx, noise) = (ctx.clone(), std::sync::Arc::clone(&noise));
        async move {
            let key = format!("/lock/{at}/{moment:?}");
            let (coordinator, store) = roles(&ctx).await?;
            let point = CrashPoint::new(at, moment, Death::Hang);
            let crashing = std::sync::Arc::new(CrashAt::new(coordinator, point.clone()));
            let stm = ctx.stm(crashing, store).session_ttl(TTL).build();
            let lock = stm.lock(&key)?;
            let process = tokio::spawn(async move { lock.acquire().await?.release().await });
            within(SOON, "its death", point.crashed()).await;
            let died = Instant::now();
            let survivor = client(&ctx, TTL).await?.lock(&key)?;
            let guard = within(SOON, "a turn", survivor.acquire()).await?;
            assert!(died.elapsed() < TTL * 2 + noise.allowance(), "{key}: after {:?}", died.elapsed());
            guard.release().await?;
            let status = survivor.status().await?;
            assert_eq!((status.held, status.waiting), (0, 0), "{key}");
            process.abort();
            Ok(())
        }
    });
    together(tasks).await?;
    Ok(())
}
