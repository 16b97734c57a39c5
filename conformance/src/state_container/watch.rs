//! Hints that an atom has changed.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::{StateContainer, Watcher};
use avout_core::{Error, ErrorKind, Revision};

use crate::coordinator::cut::cut;
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::{bytes, key, state};

laws! { "state_container":
    a_watch_is_in_place_when_it_is_given,
    a_change_before_the_first_wait_is_not_lost,
    a_watch_sees_the_writes_of_any_client,
    a_watch_sees_the_first_state_and_a_destroy,
    no_hint_comes_before_its_change,
    a_dropped_wait_loses_no_hint,
    many_watchers_of_one_state_are_all_woken,
    a_watch_outlives_a_cut,
}

async fn containers(ctx: &Ctx) -> Result<[Arc<dyn StateContainer>; 2], Failure> {
    let containers = ctx.stores().await?.map(|store| store.state(&key("/a")));
    containers[0].init().await?;
    Ok(containers)
}

async fn revision(container: &dyn StateContainer) -> Result<Option<Revision>, Failure> {
    Ok(container.state().await?.map(|(_, revision)| revision))
}

/// Waits until the revision is not `since`, by hints alone.
async fn seen(
    ctx: &Ctx,
    watcher: &mut dyn Watcher,
    container: &dyn StateContainer,
    since: Option<&Revision>,
) -> Outcome {
    let change = async {
        loop {
            watcher.changed().await?;
            if revision(container).await?.as_ref() != since {
                return Ok(());
            }
        }
    };
    ctx.hinted("a hint that the state changed", change).await
}

/// A change that another client makes as soon as a watch was given is hinted, though nothing else changes afterwards: also while
/// many watches are begun.
async fn a_watch_is_in_place_when_it_is_given(ctx: Ctx) -> Outcome {
    let stores = ctx.stores().await?;
    let tasks = (0..8).map(|task| {
        let (one, two) = (stores[task % 2].clone(), stores[1 - task % 2].clone());
        let ctx = ctx.clone();
        async move {
            for round in 0..4 {
                let [one, two] = [&one, &two].map(|store| store.state(&key(&format!("/k/{task}/{round}"))));
                two.init().await?;
                let before = match round % 2 {
                    0 => None,
                    _ => Some(two.set_state(state("1")).await?),
                };
                let mut watcher = one.watch().await?;
                two.set_state(state("2")).await?;
                seen(&ctx, &mut *watcher, &*one, before.as_ref()).await?;
            }
            Ok(())
        }
    });
    together(tasks).await.map(drop)
}

/// A change after `watch` returned and before `changed` is first called, or between two calls, gives a hint.
async fn a_change_before_the_first_wait_is_not_lost(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut watcher = one.watch().await?;
    let mut since = None;
    for round in 0..3 {
        let written = two.set_state(state(round.to_string())).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen(&ctx, &mut *watcher, &*one, since.as_ref()).await?;
        since = Some(written);
    }
    Ok(())
}

/// A write by this or another client wakes a watcher, each time.
async fn a_watch_sees_the_writes_of_any_client(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    let mut since = containers[0].set_state(state("0")).await?;
    let mut watcher = containers[0].watch().await?;
    for round in 1..=6 {
        let (ended, written) = tokio::join!(seen(&ctx, &mut *watcher, &*containers[0], Some(&since)), async {
            // Let the wait begin, most times; the law holds in any case.
            tokio::time::sleep(Duration::from_millis(5)).await;
            containers[round % 2].set_state(state(round.to_string())).await
        });
        ended?;
        since = written?;
    }
    Ok(())
}

/// The first state is a change of none, a destroy is a change of any, and so is a state that is made again.
async fn a_watch_sees_the_first_state_and_a_destroy(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut watcher = one.watch().await?;
    for _ in 0..2 {
        let made = two.set_state(state("first")).await?;
        seen(&ctx, &mut *watcher, &*one, None).await?;
        two.destroy().await?;
        seen(&ctx, &mut *watcher, &*one, Some(&made)).await?;
    }
    Ok(())
}

/// When a hint comes its change can be read already. A hint without a change is allowed, but not as a rule.
async fn no_hint_comes_before_its_change(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut since = Some(one.set_state(state("0")).await?);
    let mut watcher = one.watch().await?;
    let mut premature = 0;
    for round in 1..=20 {
        let writer = {
            let two = two.clone();
            tokio::spawn(async move { two.set_state(state(round.to_string())).await })
        };
        let hinted = async {
            watcher.changed().await?;
            let mut hints = 0;
            while revision(&*one).await? == since {
                hints += 1;
                watcher.changed().await?;
            }
            Ok::<_, Failure>(hints)
        };
        premature += u32::from(ctx.hinted("a hint when the change can be read", hinted).await? > 0);
        since = Some(writer.await.expect("the writer does not panic")?);
    }
    assert!(premature < 10, "in {premature} of 20 rounds a hint came before its change could be read");
    Ok(())
}

/// A wait that is dropped, at whatever moment, takes no hint with it.
async fn a_dropped_wait_loses_no_hint(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut since = one.set_state(state("0")).await?;
    let mut watcher = one.watch().await?;
    for round in 0..15_u64 {
        let writer = {
            let two = two.clone();
            tokio::spawn(async move { two.set_state(state(round.to_string())).await })
        };
        let mut hinted = false;
        for pause in 0..10 {
            // Dropped after the first poll, or some time later; a wait that ended has had its hint.
            hinted = tokio::time::timeout(Duration::from_micros(pause * 150), watcher.changed()).await.is_ok();
            if hinted {
                break;
            }
        }
        let written = writer.await.expect("the writer does not panic")?;
        if !hinted {
            seen(&ctx, &mut *watcher, &*one, Some(&since)).await?;
        }
        since = written;
    }
    Ok(())
}

/// One change wakes all watchers, of both clients.
async fn many_watchers_of_one_state_are_all_woken(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    let since = containers[0].set_state(state("0")).await?;
    let mut watchers = Vec::new();
    for n in 0..40 {
        watchers.push((containers[n % 2].clone(), containers[n % 2].watch().await?));
    }
    containers[1].set_state(state("1")).await?;
    together(watchers.into_iter().map(|(container, mut watcher)| {
        let (ctx, since) = (ctx.clone(), since.clone());
        async move { seen(&ctx, &mut *watcher, &*container, Some(&since)).await }
    }))
    .await
    .map(drop)
}

/// Asks a client whose connections were cut, as often as it takes.
async fn at_last<T, F>(ctx: &Ctx, ask: impl Fn() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<T, Error>>,
{
    let answered = async {
        loop {
            match ask().await {
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::OutcomeUnknown) => {}
                answer => return Ok(answer?),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(ctx.fixture.time_limit() / 3, "an answer after the connections were cut", answered).await
}

/// A watch tells of a cut, or of the changes meanwhile, and is a whole watch again afterwards.
async fn a_watch_outlives_a_cut(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    let mut watcher = one.watch().await?;
    for round in 0..6 {
        if round % 2 == 0 {
            cut(&ctx).await?;
        }
        let value = round.to_string();
        at_last(&ctx, || two.set_state(state(value.clone()))).await?;
        let told = async {
            loop {
                // An error is no end of a watch, unless it is one of the final kinds.
                if let Err(error) = watcher.changed().await {
                    assert!(!matches!(error.kind(), ErrorKind::Closed | ErrorKind::StoreLost), "{error:?}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let found = at_last(&ctx, || one.state()).await?;
                if found.is_some_and(|(found, _)| bytes(&found)[..] == *value.as_bytes()) {
                    return Ok::<_, Failure>(());
                }
            }
        };
        let limit = ctx.fixture.hint_delay() + ctx.fixture.time_limit() / 6;
        within(limit, "a hint after the connections were cut", told).await?;
    }
    Ok(())
}
