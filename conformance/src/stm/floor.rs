//! The floor: what began under an older one cannot commit.

use std::sync::Arc;
use std::task::Poll;

use avout_core::protocol::{Floor, Put};
use avout_core::{Coordinator, ErrorKind, Payload, Receipt};

use super::bench::{INLINE, Runs, SOON, aside, client, gate, large, refused, rigged, roles};
use super::rig::Rigged;
use super::rig_store::RiggedStore;
use crate::law::{Ctx, Outcome, laws, within};
use crate::sample::{committed, entry, puts};

laws! { "stm":
    an_attempt_from_below_the_floor_is_run_again,
    values_are_written_under_the_floors_epoch,
    what_a_blind_set_left_is_of_no_use_under_another_floor,
    merged_commutes_from_below_the_floor_are_run_again,
    commutes_go_on_after_the_floor_was_raised,
    a_receipt_from_below_the_floor_tells_no_lie,
    a_floor_that_went_back_is_followed,
}

/// Raises the floor by one epoch, as a sweeper does.
async fn raise(coordinator: &dyn Coordinator) -> Outcome {
    let current = entry(coordinator, &Floor::key()).await?;
    let epoch = Floor::from_entry(current.as_ref())?.epoch + 1;
    let revision = current.map(|entry| entry.revision);
    let put = Put { key: Floor::key(), revision, record: Arc::new(Floor { epoch }.to_record()) };
    committed(coordinator.commit(&puts([put])).await?);
    Ok(())
}

/// A transaction that has values in a store, or whose coordinator may give a revision twice, cannot commit under a floor that
/// was raised since it began: it is run again, and then commits.
async fn an_attempt_from_below_the_floor_is_run_again(ctx: Ctx) -> Outcome {
    for (name, stored, fresh) in [("/1", true, true), ("/2", false, true), ("/3", true, false), ("/4", false, false)] {
        let (coordinator, store) = roles(&ctx).await?;
        let rig = Rigged::new(Arc::clone(&coordinator)).plain().small(INLINE);
        let rig = if fresh { rig } else { rig.stale() };
        let stm = ctx.stm(Arc::new(rig), Arc::new(RiggedStore::new(store))).build();
        let value = |n: u8| if stored { large(n) } else { vec![n] };
        let r = stm.create_ref(name, value(0)).await?;
        for blind in [false, true] {
            let runs = Runs::default();
            stm.dosync(async |tx| {
                if !blind {
                    tx.get(&r).await?;
                }
                if runs.next() == 1 {
                    let coordinator = Arc::clone(&coordinator);
                    super::bench::aside(async move { raise(&*coordinator).await.expect("the floor is raised") }).await;
                }
                tx.set(&r, value(7)).await
            })
            .await?;
            assert_eq!(runs.count(), 2, "{name}, blind: {blind}");
            assert_eq!(r.get().await?, value(7));
            r.set(value(1)).await?;
        }
    }
    Ok(())
}

/// A value in a store carries the epoch of the floor under which its attempt began, in new clients and in old ones.
async fn values_are_written_under_the_floors_epoch(ctx: Ctx) -> Outcome {
    let (coordinator, _) = roles(&ctx).await?;
    let (old, ..) = super::bench::small(&ctx).await?;
    let r = old.create_ref("/r", large(0)).await?;
    for epoch in 1..4_u64 {
        raise(&*coordinator).await?;
        let (new, ..) = super::bench::small(&ctx).await?;
        let of_new = new.open_ref::<Vec<u8>>("/r").await?;
        for r in [&r, &of_new] {
            r.update(|value| value.push(1)).await?;
            let record = crate::sample::present(&*coordinator, r.key()).await?.record;
            let Payload::Stored { version, .. } = &record.payload else {
                panic!("{:?} is not in the store", record.payload);
            };
            assert_eq!(version.epoch, epoch, "of {version}");
        }
    }
    assert_eq!(r.get().await?.len(), large(0).len() + 6);
    Ok(())
}

/// Under another floor the revision of what a blind set has left may stand for something else: the next one reads it again.
async fn what_a_blind_set_left_is_of_no_use_under_another_floor(ctx: Ctx) -> Outcome {
    let (coordinator, _) = roles(&ctx).await?;
    let (stm, ..) = super::bench::small(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let stored = stm.create_ref("/stored", large(0)).await?;
    for n in 1..4_i64 {
        r.set(n).await?;
        r.set(n + 10).await?;
        raise(&*coordinator).await?;
        // A value in the store needs the floor that there is now.
        stored.set(large(n as u8)).await?;
        let before = stm.stats();
        r.set(n + 20).await?;
        let after = stm.stats();
        assert_eq!((after.reads - before.reads, after.commits - before.commits), (1, 1), "reads and commits");
        assert_eq!(r.get().await?, n + 20);
    }
    Ok(())
}

/// Commutes that are merged and committed together read their record under the floor that was known before. If it is raised
/// before the read's reply comes, they do not commit under the new one, though the client knows that by then: their bodies run
/// again.
async fn merged_commutes_from_below_the_floor_are_run_again(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let rig = Arc::new(Rigged::new(Arc::clone(&coordinator)).plain().small(INLINE));
    let stm = ctx.stm(Arc::clone(&rig) as _, Arc::new(RiggedStore::new(store))).seed(ctx.seed).build();
    let r = stm.create_ref("/r", 0_i64).await?;
    let stored = stm.create_ref("/stored", large(0)).await?;

    let (open, opened) = gate();
    let (commits, is_committed) = gate();
    rig.before_commit(async move {
        drop(commits);
        opened.await;
    });
    let commute = |runs: Arc<Runs>| {
        let (stm, r) = (stm.clone(), r.clone());
        Box::pin(async move {
            stm.dosync(async |tx| {
                tx.commute(&r, |n| n + 1).await?;
                runs.next();
                Ok::<_, avout_core::Error>(())
            })
            .await
        })
    };
    let (of_first, of_second) = (Arc::new(Runs::default()), Arc::new(Runs::default()));
    let first = tokio::spawn(commute(Arc::clone(&of_first)));
    within(SOON, "the first's commit", is_committed).await;
    let mut second = commute(Arc::clone(&of_second));
    // Nothing holds it up between its body and its wait for the first.
    let waits = std::future::poll_fn(|context| {
        assert!(second.as_mut().poll(context).is_pending(), "the first has not committed yet");
        if of_second.count() == 1 { Poll::Ready(()) } else { Poll::Pending }
    });
    within(SOON, "the second's wait", waits).await;
    let second = tokio::spawn(second);
    rig.after_read(aside(async move {
        raise(&*coordinator).await.expect("the floor is raised");
        stored.set(large(1)).await.expect("set under the new floor");
    }));
    drop(open);
    first.await.expect("no panic")?;
    second.await.expect("no panic")?;
    assert_eq!(r.get().await?, 2);
    assert_eq!((of_first.count(), of_second.count()), (1, 2), "runs of the first and the second");
    Ok(())
}

/// After the floor was raised, commutes, destroying and making again go on, and each counts once.
async fn commutes_go_on_after_the_floor_was_raised(ctx: Ctx) -> Outcome {
    let (coordinator, _) = roles(&ctx).await?;
    let (stm, _) = rigged(&ctx, |rig| rig.plain()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    for n in 1..4 {
        raise(&*coordinator).await?;
        stm.dosync(async |tx| tx.commute(&r, |n| n + 1).await).await?;
        assert_eq!(r.get().await?, n);
        raise(&*coordinator).await?;
        r.destroy().await?;
        raise(&*coordinator).await?;
        stm.create_ref("/r", n).await?;
    }
    Ok(())
}

/// A floor that is lower again, as after a failover that lost the raise, holds nobody up.
async fn a_floor_that_went_back_is_followed(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let rig = Rigged::new(Arc::clone(&coordinator)).plain().small(INLINE);
    let stm = ctx.stm(Arc::new(rig), Arc::new(RiggedStore::new(store))).build();
    let r = stm.create_ref("/r", large(0)).await?;
    for n in 1..4 {
        raise(&*coordinator).await?;
        r.set(large(n)).await?;
        raise(&*coordinator).await?;
        r.set(large(n + 10)).await?;
        let current = crate::sample::present(&*coordinator, &Floor::key()).await?;
        let record = Arc::new(Floor { epoch: 1 }.to_record());
        let back = Put { key: Floor::key(), revision: Some(current.revision), record };
        committed(coordinator.commit(&puts([back])).await?);
        r.set(large(n + 20)).await?;
        assert_eq!(r.get().await?, large(n + 20));
    }
    Ok(())
}

/// A receipt of a slot that was never written is fenced under its own floor; under a later one, when the slot may
/// have been retired, nothing tells any more, and the answer is `Unsupported` and not a guess.
async fn a_receipt_from_below_the_floor_tells_no_lie(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (coordinator, _) = roles(&ctx).await?;
    let receipt = |client: u32, epoch: u64| format!("slot:{client:032x}:0:1:{epoch}").parse::<Receipt>();
    assert_eq!(stm.resolve(&receipt(1, 0)?).await?, avout_core::Resolution::NotCommitted);
    raise(&*coordinator).await?;
    assert_eq!(stm.resolve(&receipt(1, 0)?).await?, avout_core::Resolution::NotCommitted, "asked again");
    refused(stm.resolve(&receipt(2, 0)?).await, ErrorKind::Unsupported, "a slot that may have been retired");
    assert_eq!(stm.resolve(&receipt(2, 1)?).await?, avout_core::Resolution::NotCommitted);
    Ok(())
}
