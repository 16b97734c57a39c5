//! More sessions, holders and waiters than fit into one request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::{Permit, Semaphore, Stm};

use super::bench::{LONG, TTL};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::noise::Noise;
use crate::stm::bench::{SOON, roles};
use crate::stm::rig::{Rigged, Then};

laws! { "lock":
    all_that_there_is_room_for_get_it_at_once;
    timed:
    whoever_dies_in_a_crowd_is_noticed,
    a_crowd_that_dies_at_once_is_followed,
}

/// The sessions of a crowd live longer than others, as all of them show signs of life through one connection.
const CROWD_TTL: Duration = TTL.saturating_mul(4);

/// Clients that have a coordinator in common, and nothing else.
async fn crowd(ctx: &Ctx, size: usize, rig: impl Fn(Rigged) -> Rigged) -> Result<Vec<(Stm, Arc<Rigged>)>, Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let one = |_| {
        let rig = Arc::new(rig(Rigged::new(Arc::clone(&coordinator))));
        (ctx.stm(Arc::clone(&rig) as _, Arc::clone(&store)).session_ttl(CROWD_TTL).build(), rig)
    };
    Ok((0..size).map(one).collect())
}

async fn acquire_each(clients: &[(Stm, Arc<Rigged>)], of: u32) -> Result<Vec<Permit>, Failure> {
    let mut permits = Vec::new();
    for (stm, _) in clients {
        permits.push(within(SOON, "a permit", stm.semaphore("/s", of)?.acquire()).await?);
    }
    Ok(permits)
}

async fn until_held(semaphore: &Semaphore, held: usize, waiting: usize) {
    within(SOON, &format!("{held} permits are held and {waiting} are waited for"), async {
        loop {
            let status = semaphore.status().await.expect("the semaphore's status");
            if (status.held, status.waiting) == (held, waiting) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// However many sessions hold something, and whichever of them dies, one that waits has it within twice the time to live.
async fn whoever_dies_in_a_crowd_is_noticed(ctx: Ctx) -> Outcome {
    let noise = Noise::new(&ctx).await?;
    let clients = crowd(&ctx, 100, |rig| rig).await?;
    // The one that waits cannot look at all of them in one request.
    let looks = crowd(&ctx, 1, |rig| rig.limited(40, usize::MAX, usize::MAX)).await?;
    let semaphore = looks[0].0.semaphore("/s", 100)?;
    let permits = acquire_each(&clients, 100).await?;
    let waiter = tokio::spawn({
        let semaphore = semaphore.clone();
        async move { semaphore.acquire().await }
    });
    until_held(&semaphore, 100, 1).await;
    clients[80].1.all(Then::Hang);
    let died = Instant::now();
    let _permit = within(SOON, "the permit of the dead", waiter).await.expect("no panic")?;
    let limit = CROWD_TTL * 2 + noise.allowance();
    assert!(died.elapsed() < limit, "after {:?}, and the time to live is {CROWD_TTL:?}", died.elapsed());
    assert!(permits.iter().enumerate().all(|(n, permit)| n == 80 || permit.is_held()), "one has died");
    Ok(())
}

/// If more holders die at once than one commit can name, those who wait have all of it within twice the time to live.
async fn a_crowd_that_dies_at_once_is_followed(ctx: Ctx) -> Outcome {
    let noise = Noise::new(&ctx).await?;
    let clients = crowd(&ctx, 30, |rig| rig.limited(24, usize::MAX, usize::MAX)).await?;
    let (mortal, others) = clients.split_at(29);
    let semaphore = others[0].0.semaphore("/s", 29)?;
    let permits = acquire_each(mortal, 29).await?;
    let waiters = (0..29).map(|_| {
        let semaphore = semaphore.clone();
        async move { Ok(semaphore.acquire().await?) }
    });
    let waiters = tokio::spawn(together(waiters.collect::<Vec<_>>()));
    until_held(&semaphore, 29, 29).await;
    for (_, rig) in mortal {
        rig.all(Then::Hang);
    }
    let died = Instant::now();
    let got = within(SOON, "the permits of the dead", waiters).await.expect("no panic")?;
    let limit = CROWD_TTL * 2 + noise.allowance();
    assert!(died.elapsed() < limit, "after {:?}, and the time to live is {CROWD_TTL:?}", died.elapsed());
    assert_eq!((got.len(), semaphore.status().await?.held), (29, 29));
    drop(permits);
    Ok(())
}

/// What comes free at once is granted at once to all that there is room for, also if that takes several commits: to nobody only when it
/// looks around.
async fn all_that_there_is_room_for_get_it_at_once(ctx: Ctx) -> Outcome {
    for limit in [usize::MAX, 12] {
        let (coordinator, store) = roles(&ctx).await?;
        let limit = limit.min(coordinator.capabilities().max_keys);
        let rig = Arc::new(Rigged::new(coordinator).limited(limit, usize::MAX, usize::MAX));
        let stm = ctx.stm(rig, store).session_ttl(LONG).build();
        let semaphore = stm.semaphore(format!("/s/{limit}"), 40)?;
        let all = semaphore.acquire_many(40).await?;
        let waiters = (0..40).map(|_| {
            let semaphore = semaphore.clone();
            async move { Ok(semaphore.acquire().await?) }
        });
        let waiters = tokio::spawn(together(waiters.collect::<Vec<_>>()));
        until_held(&semaphore, 1, 40).await;
        // Each has looked around, and will not for long.
        tokio::time::sleep(Duration::from_millis(300)).await;
        all.release().await?;
        let got = within(SOON, "all permits", waiters).await.expect("no panic")?;
        assert_eq!(got.len(), 40);
    }
    Ok(())
}
