//! Values: those that no record points at are deleted, and no others.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::Store;
use avout_core::protocol::Version;
use avout_core::{Coordinator, Key, Ref, Stm, SweepReport};
use avout_local::Local;

use crate::fault::{Loss, LossPlan, LossyReplies};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::{conflict, entry};
use crate::stm::bench::{INLINE, Runs, SOON, eventually, gate, large, roles};
use crate::stm::cancel::dropped_after;
use crate::stm::rig::{Rigged, Then};
use crate::stm::rig_store::RiggedStore;

laws! { "sweep":
    an_orphan_is_gone_after_a_sweep,
    a_value_in_use_stays,
    a_client_asleep_before_its_commit_points_at_nothing_that_is_gone,
    a_commit_that_arrives_after_the_sweep_does_not_take_effect,
    commits_go_on_beside_sweeps,
    sweeps_at_once_do_no_harm,
    a_sweep_dropped_anywhere_does_no_harm,
    values_of_another_coordinator_stay,
    what_cannot_be_swept_is_told_and_left,
    background_sweeps_go_on_and_end_with_their_clients,
}

/// A client as if outside the process, which keeps nothing in memory, with slots or as the backend is.
async fn cold(ctx: &Ctx, slots: bool) -> Result<(Stm, Arc<Rigged>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rig = Rigged::new(coordinator).small(INLINE);
    let rig = Arc::new(if slots { rig.plain() } else { rig });
    let store = Arc::new(RiggedStore::new(store));
    let stm = ctx.stm(Arc::clone(&rig) as _, store).cache_bytes(0).seed(ctx.seed).build();
    Ok((stm, rig))
}

/// The versions that a store holds for a key, and those of them that the record points at.
async fn held(coordinator: &dyn Coordinator, store: &dyn Store, key: &Key) -> Result<[Vec<Version>; 2], Failure> {
    let held = store.versioned_state(key).versions().await?;
    let entry = entry(coordinator, key).await?;
    let stored = entry.iter().flat_map(|entry| entry.record.stored());
    let mut pointed: Vec<_> = stored.filter(|(realm, _)| *realm == store.realm()).map(|(_, version)| version).collect();
    pointed.sort_unstable();
    Ok([held, pointed])
}

/// Nothing is held but what the records point at.
async fn nothing_is_left(stm: &Stm, store: &dyn Store, names: &[&str], what: &str) -> Outcome {
    for name in names {
        let [held, pointed] = held(&*stm.coordinator(), store, &crate::sample::key(name)).await?;
        assert_eq!(held, pointed, "{what}: of {name}");
    }
    Ok(())
}

/// Leaves a value behind: a client writes it and is gone before its commit is made.
async fn orphan(ctx: &Ctx, name: &str, beside: Option<&Arc<dyn Store>>) -> Outcome {
    let (stm, rig) = cold(ctx, false).await?;
    if let Some(store) = beside {
        stm.attach(store);
    }
    let r = stm.open_ref::<Vec<u8>>(name).await?;
    rig.commits(Then::Hang);
    tokio::select! {
        done = r.set(large(99)) => panic!("a commit that hangs is done: {done:?}"),
        () = eventually("the commit is sent", || stm.stats().commits > 0) => {}
    }
    Ok(())
}

/// A value whose client died between writing it and the commit is gone after one sweep, in the home store and in a second one.
async fn an_orphan_is_gone_after_a_sweep(ctx: Ctx) -> Outcome {
    for slots in [false, true] {
        let (one, _) = cold(&ctx, slots).await?;
        let (two, _) = cold(&ctx, slots).await?;
        let second: Arc<dyn Store> = Arc::new(RiggedStore::new(Local::new().store()));
        two.attach(&second);
        let a = one.create_ref("/a", large(0)).await?;
        let b = one.create_ref("/b", large(1)).in_store(&second).await?;
        orphan(&ctx, "/a", None).await?;
        orphan(&ctx, "/b", Some(&second)).await?;
        for (r, store) in [(&a, &one.store()), (&b, &second)] {
            let [held, pointed] = held(&*two.coordinator(), &**store, r.key()).await?;
            assert_eq!((held.len(), pointed.len()), (2, 1), "before the sweep, with slots: {slots}");
        }
        let report = two.sweep().await?;
        assert_eq!(report.values.get(&one.store().realm()), Some(&1), "{report:?}");
        assert_eq!(report.values.get(&second.realm()), Some(&1), "{report:?}");
        assert_eq!((report.skipped.len(), report.all_values()), (0, 2), "{report:?}");
        nothing_is_left(&two, &*one.store(), &[a.key().as_str()], "after the sweep").await?;
        nothing_is_left(&two, &*second, &[b.key().as_str()], "after the sweep").await?;
        assert_eq!((a.get().await?, b.get().await?), (large(0), large(1)));
        // The client that was swept beside goes on.
        a.set(large(2)).await?;
        assert_eq!(two.open_ref::<Vec<u8>>(a.key()).await?.get().await?, large(2));
        a.destroy().await?;
        b.destroy().await?;
        one.close().await;
        two.sweep().await?;
    }
    Ok(())
}

/// Values that records point at stay, current and earlier ones, whatever epoch they are of.
async fn a_value_in_use_stays(ctx: Ctx) -> Outcome {
    let (one, _) = cold(&ctx, false).await?;
    let (two, _) = cold(&ctx, true).await?;
    let r = one.create_ref("/r", large(0)).history(8).await?;
    let quiet = one.create_ref("/quiet", large(100)).await?;
    let of_two = two.open_ref::<Vec<u8>>("/r").await?;
    let mut written = vec![large(0)];
    for n in 1..6 {
        if n % 2 == 0 { &r } else { &of_two }.set(large(n)).await?;
        written.push(large(n));
        // What an attempt wrote that was lost to the floor is deleted by then.
        only_what_is_pointed_at(&one, r.key()).await?;
        let report = if n % 3 == 0 { &one } else { &two }.sweep().await?;
        assert_eq!((report.all_values(), report.containers, &report.skipped[..]), (0, 0, &[][..]), "{report:?}");
        for r in [&r, &of_two] {
            let history: Vec<_> = r.history().await?.into_iter().filter_map(|past| past.value).collect();
            let newest_first: Vec<_> = written.iter().rev().cloned().collect();
            assert_eq!(history, newest_first, "after sweep {n}");
        }
    }
    assert_eq!(two.open_ref::<Vec<u8>>("/quiet").await?.get().await?, quiet.get().await?);
    Ok(())
}

/// A client that wrote its values, and then slept while another one swept, runs again and commits; what its record points at is
/// there. So it is with values in the record, and with slots.
async fn a_client_asleep_before_its_commit_points_at_nothing_that_is_gone(ctx: Ctx) -> Outcome {
    let (sweeper, _) = cold(&ctx, false).await?;
    for (slots, stored) in [(false, true), (true, true), (true, false), (false, false)] {
        let (sleeper, rig) = cold(&ctx, slots).await?;
        let value = |n: u8| if stored { large(n) } else { vec![n] };
        let r = sleeper.create_or_open_ref(format!("/{slots}/{stored}"), value(0)).await?;
        let (wake, asleep) = gate();
        let (sent, is_sent) = tokio::sync::oneshot::channel();
        rig.before_commit(async move {
            let _ = sent.send(());
            asleep.await;
        });
        let runs = Arc::new(Runs::default());
        let (stm, of_task, counted) = (sleeper.clone(), r.clone(), Arc::clone(&runs));
        let task = tokio::spawn(async move {
            stm.dosync(async |tx| {
                counted.next();
                let mut value = tx.get(&of_task).await?;
                value.push(7);
                tx.set(&of_task, value).await
            })
            .await
        });
        within(SOON, "the commit is about to be sent", is_sent).await.expect("the hook was run");
        for _ in 0..2 {
            let report = sweeper.sweep().await?;
            assert_eq!(report.skipped, [], "{report:?}");
        }
        let [held, pointed] = held(&*sweeper.coordinator(), &*sleeper.store(), r.key()).await?;
        assert_eq!(held, pointed, "what the sleeper wrote is swept");
        drop(wake);
        within(SOON, "the sleeper's transaction", task).await.expect("no panic")?;
        let mut expected = value(0);
        expected.push(7);
        assert_eq!(r.get().await?, expected, "slots: {slots}, stored: {stored}");
        assert_eq!(sweeper.open_ref::<Vec<u8>>(r.key()).await?.get().await?, expected);
        assert!(!stored || runs.count() == 2, "{} runs", runs.count());
        sleeper.close().await;
    }
    Ok(())
}

/// A commit of a dead client that arrives after its values were swept does not take effect.
async fn a_commit_that_arrives_after_the_sweep_does_not_take_effect(ctx: Ctx) -> Outcome {
    let (sweeper, _) = cold(&ctx, true).await?;
    let (coordinator, store) = roles(&ctx).await?;
    sweeper.create_ref("/r", large(0)).await?;
    let lossy = Arc::new(LossyReplies::new(coordinator, LossPlan::listed([Loss::Held])));
    let rig = Arc::new(Rigged::new(Arc::clone(&lossy) as _).small(INLINE).plain());
    let dying = ctx.stm(Arc::clone(&rig) as _, Arc::new(RiggedStore::new(store))).build();
    let r = dying.open_ref::<Vec<u8>>("/r").await?;
    let task = {
        let (rig, r) = (Arc::clone(&rig), r.clone());
        tokio::spawn(async move {
            let hangs = Arc::clone(&rig);
            // It asks for nothing any more once its commit is on its way.
            rig.before_commit(async move { hangs.reads(Then::Hang) });
            r.set(large(1)).await
        })
    };
    eventually("the commit is under way", || lossy.lost() == 1).await;
    task.abort();
    let _ = task.await;
    let report = sweeper.sweep().await?;
    assert_eq!((report.all_values(), report.skipped.len()), (1, 0), "{report:?}");
    for outcome in lossy.deliver().await? {
        conflict(outcome);
    }
    let r = sweeper.open_ref::<Vec<u8>>("/r").await?;
    assert_eq!(r.get().await?, large(0));
    r.set(large(2)).await?;
    Ok(())
}

/// Eight clients commit on while others sweep: nothing is lost, everything can be read, and nothing is left.
async fn commits_go_on_beside_sweeps(ctx: Ctx) -> Outcome {
    const EACH: usize = 6;
    let names = ["/a", "/b", "/c"];
    let (sweeper, _) = cold(&ctx, false).await?;
    for name in names {
        sweeper.create_ref(name, large(0)).history(2).await?;
    }
    let mut clients = Vec::new();
    for n in 0..8 {
        clients.push(cold(&ctx, n % 2 == 0).await?.0);
    }
    let done = Arc::new(Runs::default());
    let work = clients.iter().enumerate().map(|(n, stm)| {
        let (stm, done) = (stm.clone(), Arc::clone(&done));
        async move {
            let one = stm.open_ref::<Vec<u8>>(names[n % 3]).await?;
            let other = stm.open_ref::<Vec<u8>>(names[(n + 1) % 3]).await?;
            for _ in 0..EACH {
                stm.dosync(async |tx| {
                    tx.update(&one, |value| value.push(1)).await?;
                    tx.update(&other, |value| value.push(1)).await
                })
                .await?;
                done.next();
            }
            Ok(())
        }
    });
    let sweeps = {
        let (stm, done) = (sweeper.clone(), Arc::clone(&done));
        async move {
            let mut sweeps = 0;
            while sweeps < 3 || (done.count() < 8 * EACH as u32 && sweeps < 1000) {
                let report = stm.sweep().await?;
                assert_eq!(report.skipped, [], "{report:?}");
                sweeps += 1;
                // Each sweep makes all that is under way run again.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(())
        }
    };
    let all = work.map(|work| Box::pin(work) as std::pin::Pin<Box<dyn Future<Output = Outcome> + Send>>);
    together(all.chain([Box::pin(sweeps) as _])).await?;
    let mut sum = 0;
    for name in names {
        sum += sweeper.open_ref::<Vec<u8>>(name).await?.get().await?.len() - large(0).len();
    }
    assert_eq!(sum, 2 * 8 * EACH);
    for stm in &clients {
        stm.close().await;
    }
    sweeper.sweep().await?;
    nothing_is_left(&sweeper, &*sweeper.store(), &names, "in the end").await
}

/// Sweeps at the same time, by several clients, come to an end, and between them delete what is to be deleted.
async fn sweeps_at_once_do_no_harm(ctx: Ctx) -> Outcome {
    let (one, _) = cold(&ctx, true).await?;
    let r = one.create_ref("/r", large(0)).await?;
    let gone = one.create_ref("/gone", large(1)).await?;
    for _ in 0..3 {
        orphan(&ctx, "/r", None).await?;
    }
    gone.destroy().await?;
    let mut sweepers = Vec::new();
    for n in 0..4 {
        sweepers.push(cold(&ctx, n % 2 == 0).await?.0);
    }
    let sweeps = sweepers.iter().cloned().map(|stm| async move { Ok(stm.sweep().await?) });
    let reports: Vec<SweepReport> = together(sweeps).await?;
    assert!(reports.iter().all(|report| report.epoch > 0), "{reports:?}");
    // One that lost its turn to another leaves records to the next sweep.
    one.sweep().await?;
    nothing_is_left(&one, &*one.store(), &["/r", "/gone"], "after the sweeps").await?;
    assert!(entry(&*one.coordinator(), gone.key()).await?.is_none());
    assert_eq!(r.get().await?, large(0));
    r.set(large(5)).await?;
    Ok(())
}

/// A sweep whose future is dropped at any await leaves what is in use as it is, and the next one does the rest.
async fn a_sweep_dropped_anywhere_does_no_harm(ctx: Ctx) -> Outcome {
    let (one, _) = cold(&ctx, true).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let yielding = Arc::new(Rigged::new(coordinator).small(INLINE).plain().yielding());
    let store = Arc::new(RiggedStore::new(store).yielding());
    let sweeper = ctx.stm(yielding, store).cache_bytes(0).build();
    let r = one.create_ref("/r", large(0)).history(1).await?;
    let mut waits = 0;
    loop {
        let name = format!("/gone/{waits}");
        one.create_ref(&name, large(1)).await?.destroy().await?;
        orphan(&ctx, "/r", None).await?;
        let done = within(SOON, "a sweep", dropped_after(waits, sweeper.sweep())).await;
        r.update(|value| value[0] = value[0].wrapping_add(1)).await?;
        assert_eq!(r.history().await?.len(), 2, "after a sweep that was dropped after {waits} waits");
        if let Some(done) = done {
            done?;
            break;
        }
        waits += if waits < 20 { 3 } else { 17 };
        assert!(waits < 5000, "a sweep has no end");
    }
    assert!(waits > 0, "nothing was dropped at all");
    one.close().await;
    // A removal of one that was dropped may have come between, and have cost the last one its turn.
    sweeper.sweep().await?;
    nothing_is_left(&one, &*one.store(), &["/r"], "in the end").await?;
    assert_eq!(sweeper.list("/gone").await?, []);
    assert_eq!(one.coordinator().list_all(&crate::sample::key("/gone")).await?, []);
    Ok(())
}

/// Where two coordinators keep values in one store, the sweep of each leaves the other's alone.
async fn values_of_another_coordinator_stay(ctx: Ctx) -> Outcome {
    let (one, _) = cold(&ctx, false).await?;
    let (_, shared) = roles(&ctx).await?;
    let elsewhere = Arc::new(Rigged::new(Local::new().coordinator()).small(INLINE));
    let other = ctx.stm(elsewhere, Arc::new(RiggedStore::new(shared))).cache_bytes(0).build();
    let r = one.create_ref("/r", large(0)).await?;
    let same = other.create_ref("/r", large(1)).await?;
    let own = other.create_ref("/own", large(2)).await?;
    orphan(&ctx, "/r", None).await?;
    for _ in 0..2 {
        assert_eq!(other.sweep().await?.all_values(), 0);
    }
    assert_eq!(one.sweep().await?.all_values(), 1);
    assert_eq!((r.get().await?, same.get().await?, own.get().await?), (large(0), large(1), large(2)));
    same.set(large(3)).await?;
    assert_eq!((r.get().await?, same.get().await?), (large(0), large(3)));
    Ok(())
}

/// A store that the sweeping client does not know is told with its realm, a record that cannot be read with its key; what
/// they may point at is left, and all else is swept.
async fn what_cannot_be_swept_is_told_and_left(ctx: Ctx) -> Outcome {
    let (one, _) = cold(&ctx, false).await?;
    let (two, of_two) = cold(&ctx, false).await?;
    let second: Arc<dyn Store> = Arc::new(RiggedStore::new(Local::new().store()));
    let a = one.create_ref("/a", large(0)).await?;
    let b = one.create_ref("/b", large(1)).await?;
    let c = one.create_ref("/c", large(2)).in_store(&second).await?;
    for name in ["/a", "/b", "/c"] {
        orphan(&ctx, name, Some(&second)).await?;
    }
    of_two.poison(Some(b.key().clone()));
    let report = two.sweep().await?;
    assert_eq!(report.all_values(), 1, "{report:?}");
    let told = |what: &str| report.skipped.iter().any(|skipped| skipped.what.contains(what));
    assert!(told(&second.realm().to_string()) && told("/b") && !told("/a"), "{report:?}");
    let count = async |r: &Ref<Vec<u8>>, store: Arc<dyn Store>| store.versioned_state(r.key()).versions().await;
    let counts = (
        count(&a, one.store()).await?.len(),
        count(&b, one.store()).await?.len(),
        count(&c, Arc::clone(&second)).await?.len(),
    );
    assert_eq!(counts, (1, 2, 2));
    of_two.poison(None);
    two.attach(&second);
    let report = two.sweep().await?;
    assert_eq!((report.all_values(), report.skipped.len()), (2, 0), "{report:?}");
    assert_eq!((a.get().await?, b.get().await?, c.get().await?), (large(0), large(1), large(2)));
    Ok(())
}

/// Clients sweep in the background, again and again, while they live. Their sweeping ends with `close`, and keeps no client
/// alive that is dropped.
async fn background_sweeps_go_on_and_end_with_their_clients(ctx: Ctx) -> Outcome {
    let (one, _) = cold(&ctx, false).await?;
    let r = one.create_ref("/r", large(0)).history(0).await?;
    let open = async || {
        let (coordinator, store) = roles(&ctx).await?;
        let coordinator = Arc::new(Rigged::new(coordinator).small(INLINE));
        let store = Arc::new(RiggedStore::new(store));
        let every = Some(Duration::from_millis(10));
        let stm = ctx.stm(Arc::clone(&coordinator) as _, store).cache_bytes(0).sweep_every(every).build();
        stm.open_ref::<Vec<u8>>("/r").await?;
        Ok::<_, Failure>((stm, coordinator))
    };
    let (closed, of_closed) = open().await?;
    let (dropped, of_dropped) = open().await?;
    for round in 0..3 {
        orphan(&ctx, "/r", None).await?;
        within(SOON, &format!("a sweep in the background, round {round}"), async {
            while one.store().versioned_state(r.key()).versions().await?.len() > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, Failure>(())
        })
        .await?;
        r.set(large(round)).await?;
        only_what_is_pointed_at(&one, r.key()).await?;
    }
    closed.close().await;
    let calls = of_closed.calls();
    drop(dropped);
    eventually("what the dropped client had is let go", || Arc::strong_count(&of_dropped) == 1).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(of_closed.calls(), calls, "requests after close");
    assert_eq!(r.get().await?, large(2));
    Ok(())
}

/// Waits until clients have deleted what they replaced.
async fn only_what_is_pointed_at(stm: &Stm, key: &Key) -> Outcome {
    within(SOON, "the deletion of what was replaced", async {
        loop {
            let [held, pointed] = held(&*stm.coordinator(), &*stm.store(), key).await?;
            if held == pointed {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}
