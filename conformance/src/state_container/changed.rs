//! Waiting for an atom to change.

use std::sync::Arc;
use std::time::Duration;

use avout_core::Revision;
use avout_core::backend::StateContainer;

use super::current;
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::{bytes, key, state};

laws! { "state_container":
    changed_returns_at_once_when_it_has,
    changed_is_woken_by_any_client,
    changed_sees_the_first_state_and_a_destroy,
    a_dropped_wait_loses_no_change,
    many_waits_all_end,
}

async fn containers(ctx: &Ctx) -> Result<[Arc<dyn StateContainer>; 2], Failure> {
    let containers = ctx.stores().await?.map(|store| store.state(&key("/a")));
    containers[0].init().await?;
    Ok(containers)
}

/// Waits by `changed` alone until the revision is not `since`.
async fn changed(ctx: &Ctx, container: &dyn StateContainer, since: Option<&Revision>) -> Outcome {
    let change = async {
        loop {
            container.changed(since.cloned()).await?;
            if container.state().await?.as_ref().map(|(_, revision)| revision) != since {
                return Ok(());
            }
        }
    };
    ctx.hinted("the end of a wait for a change", change).await
}

/// Where the current revision is another one already, `changed` returns at once: no change is waited for that has been.
async fn changed_returns_at_once_when_it_has(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let first = one.set_state(state("first")).await?;
    changed(&ctx, &*one, None).await?;
    two.set_state(state("second")).await?;
    changed(&ctx, &*one, Some(&first)).await?;
    changed(&ctx, &*two, Some(&first)).await
}

/// A write by this or another client ends a wait.
async fn changed_is_woken_by_any_client(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    let mut since = containers[0].set_state(state("0")).await?;
    for round in 1..=6 {
        let (ended, written) = tokio::join!(changed(&ctx, &*containers[0], Some(&since)), async {
            // Let the wait begin, most times; the law holds in any case.
            tokio::time::sleep(Duration::from_millis(5)).await;
            containers[round % 2].set_state(state(round.to_string())).await
        });
        ended?;
        since = written?;
    }
    Ok(())
}

/// The first state is a change of none, and a destroy is a change of any.
async fn changed_sees_the_first_state_and_a_destroy(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let pause = || tokio::time::sleep(Duration::from_millis(5));
    let (ended, revision) = tokio::join!(changed(&ctx, &*one, None), async {
        pause().await;
        two.set_state(state("first")).await
    });
    ended?;
    let revision = revision?;
    let (ended, destroyed) = tokio::join!(changed(&ctx, &*one, Some(&revision)), async {
        pause().await;
        two.destroy().await
    });
    destroyed?;
    ended
}

/// Waits that are dropped at any moment leave nothing behind: the next one sees the change.
async fn a_dropped_wait_loses_no_change(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut since = one.set_state(state("0")).await?;
    for round in 0..15_u64 {
        let writer = {
            let two = two.clone();
            tokio::spawn(async move { two.set_state(state(round.to_string())).await })
        };
        for pause in 0..6 {
            let _ = tokio::time::timeout(Duration::from_micros(pause * 150), one.changed(Some(since.clone()))).await;
        }
        let written = writer.await.expect("the writer does not panic")?;
        changed(&ctx, &*one, Some(&since)).await?;
        since = written;
    }
    Ok(())
}

/// One change ends all waits, of both clients.
async fn many_waits_all_end(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    let since = containers[0].set_state(state("0")).await?;
    let delay = ctx.fixture.hint_delay();
    let waits: Vec<_> = (0..40)
        .map(|n| {
            let (container, since) = (containers[n % 2].clone(), since.clone());
            tokio::spawn(async move {
                loop {
                    container.changed(Some(since.clone())).await?;
                    let (value, revision) = current(&*container).await?;
                    if revision != since {
                        return Ok::<_, Failure>(bytes(&value).clone());
                    }
                }
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(5)).await;
    containers[1].set_state(state("1")).await?;
    let ended = waits.into_iter().map(|wait| async move {
        within(delay, "the end of each of 40 waits", wait).await.expect("the wait does not panic")
    });
    for value in together(ended).await? {
        assert_eq!(&value[..], b"1");
    }
    Ok(())
}
