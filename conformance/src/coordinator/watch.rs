//! Hints that keys have changed.

use std::time::Duration;

use avout_core::backend::{Coordinator, Watcher};
use avout_core::protocol::Commit;
use avout_core::{Key, Revision};

use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::{committed, delete, entry, increment, key, keys, number, put, puts, write};

laws! { "coordinator":
    a_watch_sees_its_own_clients_commit,
    a_watch_sees_another_clients_commit,
    a_change_before_the_first_wait_is_not_lost,
    a_watch_sees_a_record_made_and_deleted,
    a_watch_sees_each_of_its_keys,
    no_hint_comes_before_its_change,
    the_last_of_many_changes_is_seen,
    a_dropped_wait_loses_no_hint,
    many_watchers_of_one_key_are_all_woken,
    dropped_watchers_disturb_no_others,
    a_watch_is_in_place_when_it_is_given,
}

async fn revision(client: &dyn Coordinator, key: &Key) -> Result<Option<Revision>, Failure> {
    Ok(entry(client, key).await?.map(|entry| entry.revision))
}

/// Waits until the key has another revision than `since`, by hints alone.
async fn seen(
    ctx: &Ctx,
    watcher: &mut dyn Watcher,
    client: &dyn Coordinator,
    key: &Key,
    since: Option<&Revision>,
) -> Outcome {
    let change = async {
        loop {
            watcher.changed().await?;
            if revision(client, key).await?.as_ref() != since {
                return Ok(());
            }
        }
    };
    ctx.hinted(&format!("a hint that {key} changed"), change).await
}

async fn sees(ctx: &Ctx, watching: &dyn Coordinator, writing: &dyn Coordinator) -> Outcome {
    let key = key("/a");
    let mut watcher = watching.watch(std::slice::from_ref(&key)).await?;
    let mut since = None;
    for round in 0..5 {
        let (changed, written) = tokio::join!(seen(ctx, &mut *watcher, watching, &key, since.as_ref()), async {
            // Let the wait begin, most times; the law holds in any case.
            tokio::time::sleep(Duration::from_millis(5)).await;
            write(writing, &key, round).await
        });
        changed?;
        since = written?.revisions.into_iter().next();
    }
    Ok(())
}

/// A client's commit wakes its own watcher, each time.
async fn a_watch_sees_its_own_clients_commit(ctx: Ctx) -> Outcome {
    let client = ctx.coordinator().await?;
    sees(&ctx, &*client, &*client).await
}

/// A client's commit wakes another client's watcher, each time.
async fn a_watch_sees_another_clients_commit(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    sees(&ctx, &*one, &*two).await
}

/// A change after `watch` returned and before `changed` is first called, or between two calls, gives a hint.
async fn a_change_before_the_first_wait_is_not_lost(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let mut watcher = one.watch(std::slice::from_ref(&key)).await?;
    let mut since = None;
    for round in 0..3 {
        let written = write(&*two, &key, round).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        seen(&ctx, &mut *watcher, &*one, &key, since.as_ref()).await?;
        since = written.revisions.into_iter().next();
    }
    Ok(())
}

/// Making the first record of a key is a change, and so is deleting it, and making it again.
async fn a_watch_sees_a_record_made_and_deleted(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let mut watcher = one.watch(std::slice::from_ref(&key)).await?;
    for round in 0..2 {
        let made = committed(two.commit(&puts([put(&key, None, round)])).await?).revisions.remove(0);
        seen(&ctx, &mut *watcher, &*one, &key, None).await?;
        let deletes = vec![delete(&key, &made)];
        committed(two.commit(&Commit { deletes, ..Commit::default() }).await?);
        seen(&ctx, &mut *watcher, &*one, &key, Some(&made)).await?;
    }
    Ok(())
}

/// A watcher of many keys is woken by a change of each of them, at whatever place.
async fn a_watch_sees_each_of_its_keys(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let all = keys("k", 40.min(one.capabilities().max_keys));
    let mut watcher = one.watch(&all).await?;
    for key in [&all[0], &all[all.len() / 2], &all[all.len() - 1], &all[1], &all[0]] {
        let since = revision(&*one, key).await?;
        write(&*two, key, 1).await?;
        seen(&ctx, &mut *watcher, &*one, key, since.as_ref()).await?;
    }
    Ok(())
}

/// When a hint comes its change can be read already. A hint without a change is allowed, but not as a rule.
async fn no_hint_comes_before_its_change(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    write(&*one, &key, 0).await?;
    let mut watcher = one.watch(std::slice::from_ref(&key)).await?;
    let mut premature = 0;
    for round in 1..=20 {
        let since = revision(&*one, &key).await?;
        let writer = {
            let (two, key) = (two.clone(), key.clone());
            tokio::spawn(async move { write(&*two, &key, round).await })
        };
        let hinted = async {
            watcher.changed().await?;
            let mut hints = 0;
            while revision(&*one, &key).await? == since {
                hints += 1;
                watcher.changed().await?;
            }
            Ok::<_, Failure>(hints)
        };
        premature += u32::from(ctx.hinted("a hint when the change can be read", hinted).await? > 0);
        writer.await.expect("the writer does not panic")?;
    }
    assert!(premature < 10, "in {premature} of 20 rounds a hint came before its change could be read");
    Ok(())
}

/// Whoever reads after each hint ends with the last value, however many changes were merged.
async fn the_last_of_many_changes_is_seen(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let key = key("/a");
    let mut watcher = clients[0].watch(std::slice::from_ref(&key)).await?;
    let reader = clients[0].clone();
    let name = key.clone();
    let follower = tokio::spawn(async move {
        let mut last = 0;
        while last < 60 {
            watcher.changed().await?;
            let value = entry(&*reader, &name).await?.as_ref().map_or(0, number);
            assert!(value >= last, "{value} is read after {last}");
            last = value;
        }
        Ok::<_, Failure>(())
    });
    together((0..4).map(|task| {
        let (client, key) = (clients[task % 2].clone(), key.clone());
        async move {
            for _ in 0..15 {
                increment(&*client, &key).await?;
            }
            Ok(())
        }
    }))
    .await?;
    ctx.hinted("the last of 60 changes", follower).await.expect("the follower does not panic")
}

/// A wait that is dropped, at whatever moment, takes no hint with it.
async fn a_dropped_wait_loses_no_hint(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let mut watcher = one.watch(std::slice::from_ref(&key)).await?;
    for round in 0..15 {
        let since = revision(&*one, &key).await?;
        let writer = {
            let (two, key) = (two.clone(), key.clone());
            tokio::spawn(async move { write(&*two, &key, round).await })
        };
        let mut hinted = false;
        for pause in 0..10 {
            // Dropped after the first poll, or some time later; a wait that ended has had its hint.
            let pause = Duration::from_micros(pause * 150);
            hinted = tokio::time::timeout(pause, watcher.changed()).await.is_ok();
            if hinted {
                break;
            }
        }
        writer.await.expect("the writer does not panic")?;
        if !hinted || revision(&*one, &key).await? == since {
            seen(&ctx, &mut *watcher, &*one, &key, since.as_ref()).await?;
        }
    }
    Ok(())
}

/// One change wakes every watcher of its key.
async fn many_watchers_of_one_key_are_all_woken(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let key = key("/a");
    let mut watchers = Vec::new();
    for n in 0..60 {
        watchers.push(clients[n % 2].watch(std::slice::from_ref(&key)).await?);
    }
    write(&*clients[0], &key, 1).await?;
    let waits = watchers.into_iter().map(|mut watcher| {
        let delay = ctx.fixture.hint_delay();
        async move { Ok(within(delay, "a hint for each of 60 watchers", watcher.changed()).await?) }
    });
    together(waits).await.map(drop)
}

/// Watchers come and go, and those that stay are woken as before.
async fn dropped_watchers_disturb_no_others(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let both = keys("a", 2);
    let mut stays = one.watch(&both).await?;
    for round in 0..20 {
        let mut goes = one.watch(&both[round % 2..]).await?;
        let _ = tokio::time::timeout(Duration::from_micros(50), goes.changed()).await;
        drop(goes);
    }
    let since = revision(&*one, &both[1]).await?;
    write(&*two, &both[1], 1).await?;
    seen(&ctx, &mut *stays, &*one, &both[1], since.as_ref()).await
}

/// A change that another client commits as soon as a watch was given is hinted, though nothing else changes afterwards: also
/// while many watches are begun.
async fn a_watch_is_in_place_when_it_is_given(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let tasks = (0..8).map(|task| {
        let (one, two) = (clients[task % 2].clone(), clients[1 - task % 2].clone());
        let ctx = ctx.clone();
        async move {
            for round in 0..6_u64 {
                let key = key(&format!("/k/{task}/{round}"));
                let before = match round % 2 {
                    0 => None,
                    _ => Some(write(&*two, &key, 1).await?.revisions.remove(0)),
                };
                let mut watcher = one.watch(std::slice::from_ref(&key)).await?;
                committed(two.commit(&puts([put(&key, before.as_ref(), 2)])).await?);
                seen(&ctx, &mut *watcher, &*one, &key, before.as_ref()).await?;
            }
            Ok(())
        }
    });
    crate::law::together(tasks).await.map(drop)
}
