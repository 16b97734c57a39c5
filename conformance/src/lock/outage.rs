//! A store that is away for a while.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use avout_core::{ErrorKind, Result, Stm};

use super::bench::{LONG, Mortal, client, until_status};
use crate::fault::Counting;
use crate::law::{Ctx, Outcome, laws, within};
use crate::stm::bench::{SOON, refused, roles};
use crate::stm::rig::{Rigged, Then};

laws! { "lock":;
    timed:
    requests_given_up_in_an_outage_are_not_made,
    a_wait_given_up_in_an_outage_gives_the_lock_back,
    a_try_in_an_outage_does_not_say_that_it_is_not_free,
    leaders_are_followed_through_an_outage,
}

type Asking = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Each way to ask for something, to be given up after a moment.
fn asks(stm: &Stm) -> Result<Vec<(&'static str, Asking)>> {
    let soon = Duration::from_millis(30);
    let (lock, semaphore, rw_lock) = (stm.lock("/l")?, stm.semaphore("/s", 3)?, stm.rw_lock("/rw")?);
    let (election, barrier, latch) = (stm.election("/e")?, stm.barrier("/b", 2)?, stm.latch("/l", 2)?);
    let (queue, full) = (stm.queue::<u8>("/q", 4)?, stm.queue::<u8>("/full", 4)?);
    Ok(vec![
        (
            "a lock",
            Box::pin({
                let lock = lock.clone();
                async move { lock.acquire_timeout(soon).await.map(drop) }
            }),
        ),
        ("a lock without limit", Box::pin(async move { lock.acquire().await.map(drop) })),
        (
            "permits",
            Box::pin({
                let semaphore = semaphore.clone();
                async move { semaphore.acquire_timeout(2, soon).await.map(drop) }
            }),
        ),
        ("a permit that is tried for", Box::pin(async move { semaphore.try_acquire().await.map(drop) })),
        (
            "to read",
            Box::pin({
                let rw_lock = rw_lock.clone();
                async move { rw_lock.read_timeout(soon).await.map(drop) }
            }),
        ),
        ("to write", Box::pin(async move { rw_lock.write_timeout(soon).await.map(drop) })),
        ("to lead", Box::pin(async move { election.campaign_timeout("x", soon).await.map(drop) })),
        (
            "a barrier",
            Box::pin({
                let barrier = barrier.clone();
                async move { barrier.wait_timeout(soon).await.map(drop) }
            }),
        ),
        ("a barrier without limit", Box::pin(async move { barrier.wait().await.map(drop) })),
        ("a latch", Box::pin(async move { latch.wait_timeout(soon).await })),
        ("a value", Box::pin(async move { queue.receive(LONG).await.map(drop) })),
        ("a value that is there", Box::pin(async move { full.receive(LONG).await.map(drop) })),
    ])
}

/// What is asked for and given up while the store is away is not asked for when it is back: nothing is written then.
async fn requests_given_up_in_an_outage_are_not_made(ctx: Ctx) -> Outcome {
    // Out of reach altogether, silent, and readable only.
    let away = Then::Fail(ErrorKind::Unavailable);
    for (reads, commits) in [(away, away), (Then::Hang, Then::Hang), (Then::Pass, away)] {
        let (coordinator, store) = roles(&ctx.elsewhere()).await?;
        let counting = Arc::new(Counting::new(coordinator));
        let rig = Arc::new(Rigged::new(Arc::clone(&counting) as _));
        let stm = ctx.stm(Arc::clone(&rig) as _, store).seed(ctx.seed).session_ttl(LONG);
        let stm = stm.deadline(Some(Duration::from_secs(5))).build();
        // It has a session, which is in use.
        let guard = stm.lock("/other")?.acquire().await?;
        // There is something to be received.
        let full = stm.queue::<u8>("/full", 4)?;
        full.push(1).await?;
        rig.reads(reads);
        rig.commits(commits);
        let mut asking = Vec::new();
        for (what, ask) in asks(&stm)?.into_iter().chain(asks(&stm)?) {
            asking.push(tokio::spawn(async move {
                let given_up = tokio::time::timeout(Duration::from_millis(300), ask).await;
                assert!(!matches!(given_up, Ok(Ok(()))), "{what}: there is no store");
            }));
        }
        for asking in asking {
            within(SOON, "what was given up", asking).await.expect("no panic");
        }
        counting.take();
        rig.all(Then::Pass);
        // Whoever still asks would get to it.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let counts = counting.take();
        assert_eq!(counts.commits, 0, "reads {reads:?}, commits {commits:?}, and then: {counts:?}");
        assert!(guard.is_held());
        guard.release().await?;
        // It goes on as before.
        within(SOON, "the lock", stm.lock("/l")?.acquire()).await?.release().await?;
        let value = within(SOON, "the value", full.receive(LONG)).await?;
        assert_eq!(value.times(), 1, "it was handed out to nobody before");
        value.ack().await?;
    }
    Ok(())
}

/// A lock that is tried for while the store is away is not told to be held: nobody knows.
async fn a_try_in_an_outage_does_not_say_that_it_is_not_free(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator));
    let stm = ctx.stm(Arc::clone(&rig) as _, store).deadline(Some(Duration::from_millis(150))).build();
    for then in [Then::Fail(ErrorKind::Unavailable), Then::Hang] {
        rig.all(then);
        let tried = within(SOON, "a try", stm.lock("/lock")?.try_acquire()).await;
        refused(tried, ErrorKind::Unavailable, "a try while the store is away");
        // Also for more than the handle says there are.
        let permits = stm.semaphore("/s", 3)?;
        let tried = within(SOON, "permits", permits.acquire_timeout(4, Duration::from_millis(20))).await;
        refused(tried, ErrorKind::Timeout, "more permits than there are, while the store is away");
        rig.all(Then::Pass);
        within(SOON, "the lock", stm.lock("/lock")?.acquire()).await?.release().await?;
    }
    Ok(())
}

/// A wait for a condition that is given up while the store is away, before it began, gives the lock back when the store is back.
async fn a_wait_given_up_in_an_outage_gives_the_lock_back(ctx: Ctx) -> Outcome {
    let Mortal { stm, rig } = Mortal::new(&ctx, LONG).await?;
    let (lock, other) = (stm.lock("/lock")?, client(&ctx, LONG).await?.lock("/lock")?);
    let guard = lock.acquire().await?;
    let next = tokio::spawn({
        let other = other.clone();
        async move { other.acquire().await }
    });
    until_status(&other, 1, 1).await;
    rig.all(Then::Fail(ErrorKind::Unavailable));
    drop(tokio::time::timeout(Duration::from_millis(50), lock.condition("c")?.wait(guard)).await);
    rig.all(Then::Pass);
    let guard = within(SOON, "the lock", next).await.expect("no panic")?;
    assert!(!other.condition("c")?.notify_one(&guard).await?, "nobody waits");
    guard.release().await?;
    Ok(())
}

/// Whoever follows the leaders is told of the next one after an outage, though that is longer than the client's deadline.
async fn leaders_are_followed_through_an_outage(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator));
    let stm = ctx.stm(Arc::clone(&rig) as _, store).deadline(Some(Duration::from_millis(150))).build();
    let mut leaders = stm.election("/e")?.observe();
    rig.all(Then::Fail(ErrorKind::Unavailable));
    let first = tokio::spawn(async move {
        let first = leaders.next().await;
        (leaders, first)
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!first.is_finished(), "it waits through outages");
    rig.all(Then::Pass);
    let (mut leaders, first) = within(SOON, "the first answer", first).await.expect("no panic");
    assert_eq!(first?, None);
    let next = tokio::spawn(async move { leaders.next().await });
    // It waits for a change by then.
    tokio::time::sleep(Duration::from_millis(200)).await;
    rig.all(Then::Fail(ErrorKind::Unavailable));
    let leader = client(&ctx, LONG).await?.election("/e")?.campaign("next").await?;
    tokio::time::sleep(Duration::from_millis(600)).await;
    rig.all(Then::Pass);
    let next = within(SOON, "the next leader", next).await.expect("no panic")?;
    assert_eq!(next.map(|next| next.term), Some(leader.token()));
    leader.resign().await?;
    Ok(())
}
