//! Group `state_container`: the contracts of [`StateContainer`], and of
//! [`Store`](avout_core::backend::Store) as far as it makes them.

pub(crate) mod keys;
pub(crate) mod lost_reply;
pub(crate) mod stalled;
pub(crate) mod watch;
pub(crate) mod wiped;

use std::sync::Arc;

use avout_core::backend::{CasOutcome, StateContainer};
use avout_core::protocol::State;
use avout_core::{ErrorKind, Revision};
use bytes::Bytes;

use crate::law::{Ctx, Failure, Outcome, laws, needs, together};
use crate::sample::{big, bytes, key, state};

laws! { "state_container":
    absent_is_none_and_init_gives_no_state,
    init_keeps_the_state,
    what_is_set_is_read_by_all,
    cas_expects_absence_with_none,
    cas_expects_the_current_revision,
    cas_with_another_revision_changes_nothing,
    cas_on_an_absent_state_expects_none,
    a_revision_never_returns,
    destroy_removes_and_is_idempotent,
    no_concurrent_cas_is_lost,
    of_racing_creators_one_wins,
    values_of_all_sizes_come_back,
    a_value_over_the_limit_is_refused,
    shared_values_come_back_as_they_are,
    survives_reopening,
}

/// The state and revision of a container that has one.
pub(crate) async fn current(container: &dyn StateContainer) -> Result<(State, Revision), Failure> {
    Ok(container.state().await?.expect("a state that was written is there"))
}

#[track_caller]
fn set(outcome: CasOutcome) -> Revision {
    match outcome {
        CasOutcome::Set(revision) => revision,
        CasOutcome::Stale(found) => panic!("stale, though the revision is the current one: {found:?}"),
    }
}

#[track_caller]
fn stale(outcome: CasOutcome) -> Option<(State, Revision)> {
    match outcome {
        CasOutcome::Stale(found) => found,
        CasOutcome::Set(revision) => panic!("set, as {revision:?}, though the revision is not the current one"),
    }
}

async fn containers(ctx: &Ctx) -> Result<[Arc<dyn StateContainer>; 2], Failure> {
    Ok(ctx.stores().await?.map(|store| store.state(&key("/a"))))
}

/// There is no state before the first write; `init` may be repeated and gives none.
async fn absent_is_none_and_init_gives_no_state(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    for container in [&one, &two, &one] {
        container.init().await?;
        assert!(one.state().await?.is_none() && two.state().await?.is_none(), "a state that nobody wrote");
    }
    Ok(())
}

/// `init` of a container that has a state, by any client, keeps it.
async fn init_keeps_the_state(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.init().await?;
    let revision = one.set_state(state("kept")).await?;
    two.init().await?;
    one.init().await?;
    let (found, at) = current(&*two).await?;
    assert_eq!((&bytes(&found)[..], at), (&b"kept"[..], revision), "opening it again changed the state");
    Ok(())
}

/// What one client sets is what every client reads then, with the revision that the writer was told.
async fn what_is_set_is_read_by_all(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    containers[0].init().await?;
    for round in 0..20 {
        let text = format!("value {round}");
        let revision = containers[round % 2].set_state(state(&text)).await?;
        for container in &containers {
            let (found, at) = current(&**container).await?;
            assert_eq!((&bytes(&found)[..], &at), (text.as_bytes(), &revision));
        }
    }
    Ok(())
}

/// `None` expects that there is no state, and creates the first one.
async fn cas_expects_absence_with_none(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.init().await?;
    let first = set(one.compare_and_set_state(None, state("first")).await?);
    let found = stale(two.compare_and_set_state(None, state("second")).await?);
    let (found, at) = found.expect("a stale reply carries the state that was found");
    assert_eq!((&bytes(&found)[..], &at), (&b"first"[..], &first));
    let (found, at) = current(&*one).await?;
    assert_eq!((&bytes(&found)[..], &at), (&b"first"[..], &first), "a stale compare-and-set changed the state");
    Ok(())
}

/// The current revision, whoever wrote it, lets a compare-and-set succeed, also with the same value again.
async fn cas_expects_the_current_revision(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.init().await?;
    let first = one.set_state(state("first")).await?;
    let second = set(two.compare_and_set_state(Some(first.clone()), state("second")).await?);
    let third = set(one.compare_and_set_state(Some(second.clone()), state("second")).await?);
    assert!(first != second && second != third, "a write that did not change the revision");
    let (found, at) = current(&*two).await?;
    assert_eq!((&bytes(&found)[..], at), (&b"second"[..], third));
    Ok(())
}

/// Any other revision is stale: nothing changes and the reply carries what was found.
async fn cas_with_another_revision_changes_nothing(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.init().await?;
    let first = one.set_state(state("first")).await?;
    let second = two.set_state(state("second")).await?;
    let found = stale(one.compare_and_set_state(Some(first), state("third")).await?);
    let (found, at) = found.expect("a stale reply carries the state that was found");
    assert_eq!((&bytes(&found)[..], &at), (&b"second"[..], &second));
    let (found, at) = current(&*one).await?;
    assert_eq!((&bytes(&found)[..], at), (&b"second"[..], second), "a stale compare-and-set changed the state");
    Ok(())
}

/// Where there is no state any more every revision is stale, and the reply says so.
async fn cas_on_an_absent_state_expects_none(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.init().await?;
    let old = one.set_state(state("old")).await?;
    two.destroy().await?;
    one.init().await?;
    let found = stale(one.compare_and_set_state(Some(old), state("new")).await?);
    assert!(found.is_none(), "{found:?} was found where there is no state");
    assert!(one.state().await?.is_none(), "a stale compare-and-set made a state");
    Ok(())
}

/// Each write gives a revision that the container never had, not even before a `destroy`.
async fn a_revision_never_returns(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    let mut seen: Vec<Revision> = Vec::new();
    for round in 0..4 {
        let container = &containers[round % 2];
        container.init().await?;
        for write in 0..4 {
            let next = if write % 2 == 0 {
                container.set_state(state("same")).await?
            } else {
                set(container.compare_and_set_state(seen.last().cloned(), state("same")).await?)
            };
            assert!(!seen.contains(&next), "{next:?} is back, after {seen:?}");
            seen.push(next);
        }
        container.destroy().await?;
    }
    Ok(())
}

/// `destroy` removes the state for everyone, may be repeated, and lets the container be used again.
async fn destroy_removes_and_is_idempotent(ctx: Ctx) -> Outcome {
    let [one, two] = containers(&ctx).await?;
    one.destroy().await?;
    one.init().await?;
    one.set_state(state("old")).await?;
    two.destroy().await?;
    two.destroy().await?;
    assert!(one.state().await?.is_none() && two.state().await?.is_none(), "a destroyed state is read");
    one.init().await?;
    assert!(one.state().await?.is_none(), "init brought a destroyed state back");
    set(two.compare_and_set_state(None, state("new")).await?);
    assert_eq!(&bytes(&current(&*one).await?.0)[..], b"new");
    Ok(())
}

/// Compare-and-sets by 25 tasks on two clients at a time add up: none is lost and none counts twice.
async fn no_concurrent_cas_is_lost(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    containers[0].init().await?;
    let tasks = (0..25).map(|task| {
        let container = containers[task % 2].clone();
        async move {
            for _ in 0..4 {
                let mut seen = container.state().await?;
                loop {
                    let (count, revision) = match &seen {
                        Some((state, revision)) => (bytes(state).len(), Some(revision.clone())),
                        None => (0, None),
                    };
                    match container.compare_and_set_state(revision, state(vec![1; count + 1])).await? {
                        CasOutcome::Set(_) => break,
                        CasOutcome::Stale(found) => seen = found,
                    }
                    tokio::task::yield_now().await;
                }
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(bytes(&current(&*containers[0]).await?.0).len(), 100);
    Ok(())
}

/// Of many compare-and-sets that expect no state, at a time, exactly one succeeds, and the others are told its state.
async fn of_racing_creators_one_wins(ctx: Ctx) -> Outcome {
    let containers = containers(&ctx).await?;
    containers[0].init().await?;
    let tasks = (0..10_u8).map(|task| {
        let container = containers[usize::from(task) % 2].clone();
        async move { Ok((task, container.compare_and_set_state(None, state([task])).await?)) }
    });
    let mut won = Vec::new();
    let mut told = Vec::new();
    for (task, outcome) in together(tasks).await? {
        match outcome {
            CasOutcome::Set(_) => won.push(task),
            CasOutcome::Stale(found) => told.push(bytes(&found.expect("the winner's state").0)[0]),
        }
    }
    assert_eq!(won.len(), 1, "{} creators won", won.len());
    assert_eq!(told, [won[0]; 9], "what the losers were told");
    Ok(())
}

/// Sizes where stores change their ways: nothing, one byte, 64 KiB, and one byte less and more than 1 MB and 1 MiB.
pub(crate) const SIZES: [usize; 9] = [0, 1, 255, 65_536, 999_999, 1_000_001, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];

/// Values of all sizes up to the limit come back as they were.
async fn values_of_all_sizes_come_back(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    let limit = one.capabilities().max_value;
    let container = one.state(&key("/a"));
    container.init().await?;
    for size in SIZES.into_iter().filter(|size| *size <= limit).chain((limit < 64 << 20).then_some(limit)) {
        let value = big(size, 5);
        container.set_state(State::Bytes(value.clone())).await?;
        let (found, _) = current(&*two.state(&key("/a"))).await?;
        assert!(*bytes(&found) == value, "{} bytes came back for {size}, or others", bytes(&found).len());
    }
    Ok(())
}

/// A value of one byte more than the limit is refused as too large, and nothing is written.
async fn a_value_over_the_limit_is_refused(ctx: Ctx) -> Outcome {
    let store = ctx.store().await?;
    let limit = store.capabilities().max_value;
    needs(limit < 256 << 20, "its limit is out of reach, or it has none")?;
    let large = State::Bytes(Bytes::from(vec![7; limit + 1]));
    let container = store.state(&key("/a"));
    container.init().await?;
    let revision = container.set_state(state("small")).await?;
    let refused = [
        container.set_state(large.clone()).await.map(drop),
        container.compare_and_set_state(Some(revision.clone()), large).await.map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.expect_err("a value over the limit was taken").kind(), ErrorKind::TooLarge);
    }
    let (found, at) = current(&*container).await?;
    assert_eq!((&bytes(&found)[..], at), (&b"small"[..], revision), "a refused value changed the state");
    Ok(())
}

/// A store in this process gives back the very value that was written.
async fn shared_values_come_back_as_they_are(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.stores().await?;
    needs(one.capabilities().in_process, "it does not live in this process")?;
    let value: avout_core::protocol::Shared = Arc::new("some value".to_owned());
    one.state(&key("/a")).set_state(State::Shared(Arc::clone(&value))).await?;
    match current(&*two.state(&key("/a"))).await?.0 {
        State::Shared(found) => assert!(Arc::ptr_eq(&found, &value), "another value came back"),
        State::Bytes(_) => panic!("bytes came back for a shared value"),
    }
    Ok(())
}

/// A state, its revision and the store's realm outlive all clients, and old revisions stay old.
async fn survives_reopening(ctx: Ctx) -> Outcome {
    needs(ctx.fixture.survives_reopen(), "a namespace does not outlive its clients")?;
    let store = ctx.store().await?;
    let realm = store.realm();
    let container = store.state(&key("/a"));
    container.init().await?;
    let old = container.set_state(state("old")).await?;
    let last = container.set_state(state("last")).await?;
    drop((container, store));
    let store = ctx.store().await?;
    assert_eq!(store.realm(), realm, "the realm changed");
    let container = store.state(&key("/a"));
    container.init().await?;
    let (found, at) = current(&*container).await?;
    assert_eq!((&bytes(&found)[..], &at), (&b"last"[..], &last));
    stale(container.compare_and_set_state(Some(old.clone()), state("no")).await?);
    let next = set(container.compare_and_set_state(Some(last.clone()), state("next")).await?);
    assert!(next != old && next != last, "a revision is back after the reopening");
    Ok(())
}
