//! What sessions leave that have ended.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::Coordinator;
use avout_core::protocol::Entry;
use avout_core::{ErrorKind, Key, Payload, Stm};

use super::bench::{LONG, Mortal, TTL, client, until_status};
use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::stm::bench::{SOON, roles};
use crate::stm::rig::{Rigged, Then};

laws! { "lock":
    a_client_that_is_closed_leaves_no_session;
    timed:
    a_session_lost_in_an_outage_is_ended_after_it,
    whoever_ends_a_session_removes_what_it_leaves,
    a_sweep_removes_what_dead_sessions_leave,
    a_sweep_ends_no_session_that_lives,
}

/// The keys of sessions, and which of them hold something.
async fn left(coordinator: &Arc<dyn Coordinator>) -> Result<(Vec<Key>, Vec<Key>), Failure> {
    let keys = coordinator.list_all(&Key::from_stored("/.avout/sessions")?).await?;
    let entries = coordinator.read(&keys, None).await?.entries;
    let holds =
        |entry: &Option<Entry>| entry.as_ref().is_some_and(|entry| !matches!(entry.record.payload, Payload::Deleted));
    let holding = keys.iter().zip(&entries).filter(|(_, entry)| holds(entry)).map(|(key, _)| key.clone()).collect();
    Ok((keys, holding))
}

async fn until_nothing_holds(coordinator: &Arc<dyn Coordinator>) -> Outcome {
    let mut last = Vec::new();
    let nothing = async {
        loop {
            last = left(coordinator).await?.1;
            if last.is_empty() {
                return Ok::<_, Failure>(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(SOON, nothing).await {
        Ok(done) => done,
        Err(_) => panic!("records of sessions are left: {last:?}"),
    }
}

/// Has a client wait for the lock until it is granted, which writes its seat, and gives the guard.
async fn granted(waits: &Stm, holds: &Stm) -> Result<avout_core::LockGuard, Failure> {
    let guard = holds.lock("/lock")?.acquire().await?;
    let lock = waits.lock("/lock")?;
    let waiter = tokio::spawn(async move { lock.acquire().await });
    until_status(&holds.lock("/lock")?, 1, 1).await;
    guard.release().await?;
    Ok(within(SOON, "a turn", waiter).await.expect("no panic")?)
}

/// A session that was lost while the store was away is ended when the store is back, by the client that lost it, with its seats: others need
/// not wait until it is late.
async fn a_session_lost_in_an_outage_is_ended_after_it(ctx: Ctx) -> Outcome {
    const DEADLINE: Duration = Duration::from_millis(500);
    let coordinator = ctx.coordinator().await?;
    let (rigged, store) = roles(&ctx).await?;
    let rig = Arc::new(Rigged::new(rigged));
    let loses = ctx.stm(Arc::clone(&rig) as _, store).seed(ctx.seed).session_ttl(TTL).deadline(Some(DEADLINE)).build();
    let holds = client(&ctx, LONG).await?;
    let guard = granted(&loses, &holds).await?;
    holds.close().await;
    assert!(!left(&coordinator).await?.1.is_empty(), "a session, or a seat");
    rig.all(Then::Fail(ErrorKind::Unavailable));
    within(SOON, "the loss", guard.lost()).await;
    // The first that it tells others has failed.
    tokio::time::sleep(DEADLINE * 2).await;
    rig.all(Then::Pass);
    until_nothing_holds(&coordinator).await
}

/// A client that is closed has removed its session and the seats of its waiters, and after a sweep nothing is left of them.
async fn a_client_that_is_closed_leaves_no_session(ctx: Ctx) -> Outcome {
    let (a, b, coordinator) = (client(&ctx, LONG).await?, client(&ctx, LONG).await?, ctx.coordinator().await?);
    granted(&b, &a).await?.release().await?;
    granted(&a, &b).await?.release().await?;
    assert!(!left(&coordinator).await?.1.is_empty(), "they have seats");
    a.close().await;
    b.close().await;
    assert_eq!(left(&coordinator).await?.1, [], "what is left of closed clients");
    client(&ctx, LONG).await?.sweep().await?;
    assert_eq!(left(&coordinator).await?.0, [], "what is left after a sweep");
    Ok(())
}

/// Whoever takes over from a dead client removes its session and the seats of its waiters.
async fn whoever_ends_a_session_removes_what_it_leaves(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let coordinator = ctx.coordinator().await?;
    let _guard = granted(&mortal.stm, &other).await?;
    // A sign of life tells others of the seat.
    tokio::time::sleep(TTL / 2).await;
    mortal.die();
    within(SOON, "a turn", other.lock("/lock")?.acquire()).await?.release().await?;
    other.close().await;
    until_nothing_holds(&coordinator).await
}

/// Sessions of dead clients whose end nobody noticed, and the seats of their waiters, are gone after the second sweep that comes after their
/// last sign of life.
async fn a_sweep_removes_what_dead_sessions_leave(ctx: Ctx) -> Outcome {
    let (mortal, other) = (Mortal::new(&ctx, TTL).await?, client(&ctx, TTL).await?);
    let coordinator = ctx.coordinator().await?;
    let _guard = granted(&mortal.stm, &other).await?;
    mortal.die();
    other.close().await;
    let sweeper = client(&ctx, LONG).await?;
    // Where the store itself knows who lives, it knows by then.
    tokio::time::sleep(TTL * 2).await;
    let first = sweeper.sweep().await?;
    let second = within(SOON, "a sweep", sweeper.sweep()).await?;
    assert!(first.sessions + second.sessions > 0, "{first:?} and {second:?}");
    assert_eq!(left(&coordinator).await?.0, [], "{first:?} and {second:?}");
    // It was all that was needed to know that it is dead.
    within(SOON, "the lock", sweeper.lock("/lock")?.acquire()).await?.release().await?;
    Ok(())
}

/// A session that shows signs of life keeps what it holds through any number of sweeps. One that was idle, and was ended, is followed by
/// another one when it is needed; and one that comes back after it was ended finds out.
async fn a_sweep_ends_no_session_that_lives(ctx: Ctx) -> Outcome {
    let (holds, idle, stalled) = (client(&ctx, TTL).await?, client(&ctx, TTL).await?, Mortal::new(&ctx, TTL).await?);
    let guard = granted(&holds, &idle).await?;
    let late = stalled.stm.lock("/late")?.acquire().await?;
    let sweeper = client(&ctx, LONG).await?;
    stalled.rig.all(Then::Hang);
    for _ in 0..4 {
        within(SOON, "a sweep", sweeper.sweep()).await?;
        holds.dosync(async |tx| tx.require(&guard).await).await?;
        assert!(guard.is_held());
    }
    // Where the store itself knows who lives, no sweep waits for it.
    tokio::time::sleep(TTL * 3 / 2).await;
    stalled.rig.all(Then::Pass);
    within(SOON, "the loss", late.lost()).await;
    for stm in [&idle, &stalled.stm] {
        within(SOON, "another lock", stm.lock("/idle")?.acquire()).await?.release().await?;
    }
    let waits = idle.lock("/lock")?;
    let waiter = tokio::spawn(async move { waits.acquire().await });
    until_status(&holds.lock("/lock")?, 1, 1).await;
    guard.release().await?;
    within(SOON, "a turn", waiter).await.expect("no panic")?.release().await?;
    Ok(())
}
