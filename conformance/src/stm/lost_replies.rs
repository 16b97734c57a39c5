//! Commits whose replies are lost.

use std::sync::Arc;
use std::time::Duration;

use avout_core::protocol::SlotState;
use avout_core::{Error, ErrorKind, Receipt, Ref, Resolution, Stm};

use super::bench::{Runs, SOON, client, large, lossy, refused, rigged, roles};
use super::rig::{Rigged, Then};
use super::rig_store::RiggedStore;
use crate::fault::{Loss, LossPlan, LossyReplies};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};

laws! { "stm":
    a_commit_lost_before_it_took_effect_is_made_again,
    a_commit_lost_after_it_took_effect_is_not_repeated,
    a_late_commit_takes_effect_once_or_never,
    a_conflict_whose_reply_was_lost_is_found_out,
    lost_fences_are_found_out,
    commutes_are_applied_once,
    counters_count_each_success_once,
    values_in_stores_survive_lost_replies,
    making_refs_survives_lost_replies,
    making_or_opening_looks_again_when_the_outcome_is_unknown,
    slots_are_used_again,
    a_slot_fenced_by_another_is_not_used_again;
    timed:
    an_unknown_outcome_is_resolved_by_another_client,
    a_receipt_is_resolved_from_its_text,
    a_resolved_commit_can_never_take_effect,
    a_conflict_on_its_own_slot_that_nothing_decides_is_unknown,
}

async fn counter(ctx: &Ctx, plan: LossPlan) -> Result<(Stm, Arc<LossyReplies>, Ref<i64>), Failure> {
    let plain = client(ctx).await?;
    plain.create_or_open_ref("/r", 0_i64).await?.set(0).await?;
    let (stm, lossy) = lossy(ctx, plan).await?;
    let r = stm.open_ref::<i64>("/r").await?;
    Ok((stm, lossy, r))
}

/// A commit whose request was lost is made again, without running the body again, and takes effect once.
async fn a_commit_lost_before_it_took_effect_is_made_again(ctx: Ctx) -> Outcome {
    let _alive = client(&ctx).await?;
    for times in 1..4 {
        let (stm, lossy, r) = counter(&ctx, LossPlan::listed(vec![Loss::BeforeApplied; times])).await?;
        let runs = Runs::default();
        stm.dosync(async |tx| {
            runs.next();
            tx.alter(&r, |n| n + 1).await
        })
        .await?;
        assert_eq!((r.get().await?, runs.count()), (1, 1), "with {times} lost");
        assert_eq!(lossy.lost(), times as u64);
    }
    Ok(())
}

/// A commit that took effect and whose reply was lost is known to have succeeded, and is not repeated.
async fn a_commit_lost_after_it_took_effect_is_not_repeated(ctx: Ctx) -> Outcome {
    let _alive = client(&ctx).await?;
    let (stm, lossy, r) = counter(&ctx, LossPlan::listed([Loss::AfterApplied, Loss::None, Loss::AfterApplied])).await?;
    for n in 1..=5 {
        let runs = Runs::default();
        stm.dosync(async |tx| {
            runs.next();
            tx.alter(&r, |n| n + 1).await
        })
        .await?;
        assert_eq!((r.get().await?, runs.count()), (n, 1));
    }
    assert_eq!((lossy.lost(), stm.stats().resolved), (2, 2));
    Ok(())
}

/// A commit that arrives after its reply was given up, be it before, during or after the outcome is found out, takes
/// effect once if the transaction succeeded by it, and never if that was made again.
async fn a_late_commit_takes_effect_once_or_never(ctx: Ctx) -> Outcome {
    let _alive = client(&ctx).await?;
    for delay in [0, 200, 500, 1000, 3000] {
        let plan = LossPlan::listed([Loss::Delayed(Duration::from_micros(delay)), Loss::None, Loss::None]);
        let (_stm, lossy, r) = counter(&ctx, plan).await?;
        r.alter(|n| n + 1).await?;
        lossy.settle().await;
        assert_eq!(r.get().await?, 1, "with a delay of {delay} µs");
        r.alter(|n| n + 1).await?;
        assert_eq!(r.get().await?, 2, "afterwards");
    }
    let (_stm, lossy, r) = counter(&ctx, LossPlan::listed([Loss::Held])).await?;
    r.alter(|n| n + 1).await?;
    for outcome in lossy.deliver().await? {
        crate::sample::conflict(outcome);
    }
    assert_eq!(r.get().await?, 1, "delivered after the fence");
    Ok(())
}

/// A conflict whose reply was lost is no commit: the body is run again in the end.
async fn a_conflict_whose_reply_was_lost_is_found_out(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    let (stm, _, r) = counter(&ctx, LossPlan::listed([Loss::AfterApplied])).await?;
    let of_plain = plain.open_ref::<i64>("/r").await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        let n = tx.get(&r).await?;
        if runs.next() == 1 {
            super::bench::set_aside(&of_plain, 10).await;
        }
        tx.set(&r, n + 1).await
    })
    .await?;
    assert_eq!((r.get().await?, runs.count()), (11, 2));
    Ok(())
}

/// The replies to what finds the outcome out may be lost as well.
async fn lost_fences_are_found_out(ctx: Ctx) -> Outcome {
    let _alive = client(&ctx).await?;
    let kinds = [Loss::BeforeApplied, Loss::AfterApplied, Loss::Held, Loss::Delayed(Duration::from_millis(1))];
    for first in kinds {
        for second in kinds {
            for third in kinds {
                let (_stm, lossy, r) = counter(&ctx, LossPlan::listed([first, second, third])).await?;
                r.alter(|n| n + 1).await?;
                r.alter(|n| n + 1).await?;
                lossy.settle().await;
                let _ = lossy.deliver().await?;
                assert_eq!(r.get().await?, 2, "with {first:?}, {second:?} and {third:?}");
            }
        }
    }
    Ok(())
}

/// Commuted functions count once, however often they are applied.
async fn commutes_are_applied_once(ctx: Ctx) -> Outcome {
    let _alive = client(&ctx).await?;
    let plan = [Loss::AfterApplied, Loss::BeforeApplied, Loss::None, Loss::None, Loss::Held];
    let (stm, lossy, r) = counter(&ctx, LossPlan::listed(plan)).await?;
    for n in 1..=5 {
        let runs = Runs::default();
        stm.dosync(async |tx| {
            runs.next();
            tx.commute(&r, |n| n + 1).await
        })
        .await?;
        let _ = lossy.deliver().await?;
        assert_eq!((r.get().await?, runs.count()), (n, 1));
    }
    Ok(())
}

/// While replies are lost in every way, and tasks of two clients count in one ref, each success counts exactly once, and no
/// outcome is unknown.
async fn counters_count_each_success_once(ctx: Ctx) -> Outcome {
    const EACH: i64 = 12;
    let plain = client(&ctx).await?;
    let r = plain.create_ref("/r", 0_i64).await?;
    let plan = |stream| LossPlan::drawn(ctx.seed.wrapping_add(stream), 0.4, Duration::from_millis(2));
    let (one, of_one) = lossy(&ctx, plan(1)).await?;
    let (two, of_two) = lossy(&ctx, plan(2)).await?;
    let tasks = (0..6).map(|task| {
        let stm = if task % 2 == 0 { one.clone() } else { two.clone() };
        async move {
            let r = stm.open_ref::<i64>("/r").await?;
            let own = stm.create_ref(format!("/own/{task}"), 0_i64).await?;
            for _ in 0..EACH {
                stm.dosync(async |tx| {
                    tx.alter(&own, |n| n + 1).await?;
                    if task < 3 { tx.alter(&r, |n| n + 1).await } else { tx.commute(&r, |n| n + 1).await }
                })
                .await?;
            }
            assert_eq!(own.get().await?, EACH);
            Ok(())
        }
    });
    together(tasks).await?;
    of_one.settle().await;
    of_two.settle().await;
    assert_eq!(r.get().await?, 6 * EACH, "{} and {} were lost", of_one.lost(), of_two.lost());
    Ok(())
}

/// Values in stores are there after every success, whatever became of the replies, and nothing that lost its commit is
/// pointed at.
async fn values_in_stores_survive_lost_replies(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let small = Arc::new(Rigged::new(coordinator).small(super::bench::INLINE));
    let plan = LossPlan::drawn(ctx.seed, 0.5, Duration::from_millis(1));
    let lossy = Arc::new(LossyReplies::new(small, plan));
    let stm = ctx.stm(Arc::clone(&lossy) as _, Arc::new(RiggedStore::new(store))).cache_bytes(0).build();
    let r = stm.create_ref("/r", large(0)).history(3).await?;
    for n in 1..=20 {
        r.update(|value| value.push(n)).await?;
        assert_eq!(r.get().await?.len(), large(0).len() + usize::from(n));
    }
    lossy.settle().await;
    assert_eq!(r.get().await?.last(), Some(&20));
    assert_eq!(r.history().await?.len(), 4);
    stm.close().await;
    let (held, pointed) = super::values::versions(&ctx, r.key()).await?;
    assert_eq!(held, pointed);
    Ok(())
}

/// Making a ref whose reply is lost makes it once, with `create_ref` too.
async fn making_refs_survives_lost_replies(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    for (n, loss) in [Loss::BeforeApplied, Loss::AfterApplied, Loss::Held].into_iter().enumerate() {
        let (stm, lossy) = lossy(&ctx, LossPlan::listed([loss])).await?;
        let name = format!("/r/{n}");
        let r = stm.create_ref(&name, 5_i64).await?;
        let _ = lossy.deliver().await?;
        assert_eq!(r.get().await?, 5, "{loss:?}");
        assert_eq!(plain.open_ref::<i64>(&name).await?.get().await?, 5, "{loss:?}");
        r.destroy().await?;
    }
    Ok(())
}

/// What is made or opened is the same however often it is asked for: one whose outcome is unknown looks again, and answers.
async fn making_or_opening_looks_again_when_the_outcome_is_unknown(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let (rig, rig_store) = (Arc::new(Rigged::new(coordinator)), Arc::new(RiggedStore::new(store)));
    let stm = ctx.stm(Arc::clone(&rig) as _, Arc::clone(&rig_store) as _).seed(ctx.seed).build();
    let soon = Duration::from_millis(30);
    // Not made, again and again.
    let unknown = Then::Fail(ErrorKind::OutcomeUnknown);
    rig.commits(unknown);
    rig_store.atom_writes(unknown);
    let well = async {
        tokio::time::sleep(soon).await;
        rig.commits(Then::Pass);
        rig_store.atom_writes(Then::Pass);
    };
    let asked = async {
        tokio::join!(
            stm.create_or_open_ref("/r", 1_i64).into_future(),
            stm.create_or_open_atom("/a", 1_i64).into_future(),
            stm.counter("/c"),
        )
    };
    let ((r, atom, counter), ()) = tokio::join!(within(SOON, "all three", asked), well);
    assert_eq!((r?.get().await?, atom?.get().await?, counter?.get().await?), (1, 1, 0));
    // Made, and not told.
    let of_plain = plain.clone();
    rig_store.before_atom_write(async move {
        of_plain.create_atom("/b", 2_i64).await.expect("it is not there");
    });
    rig_store.atom_writes(unknown);
    assert_eq!(within(SOON, "an atom", stm.create_or_open_atom("/b", 1_i64).into_future()).await?.get().await?, 2);
    // Whoever wants it made and not opened is told that nobody knows.
    refused(stm.create_atom("/d", 1_i64).await, ErrorKind::OutcomeUnknown, "an atom that must not be there");
    Ok(())
}

/// Has the outcome of one increment stay unknown; gives the error, and what it was lost by.
async fn unknown(ctx: &Ctx, name: &str, loss: Loss) -> Result<(Error, Arc<LossyReplies>, Stm), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator));
    let lossy = Arc::new(LossyReplies::new(Arc::clone(&rig) as _, LossPlan::listed([loss])));
    let stm = ctx.stm(Arc::clone(&lossy) as _, store).build();
    let r = stm.open_ref::<i64>(name).await?;
    let increment = stm.transaction().deadline(Duration::from_millis(100)).dosync(async |tx| {
        tx.alter(&r, |n| n + 1).await?;
        // From here on the coordinator answers nothing but the one commit.
        rig.reads(Then::Fail(ErrorKind::Unavailable));
        Ok::<_, Error>(())
    });
    let error = refused(within(SOON, "the deadline", increment).await, ErrorKind::OutcomeUnknown, "an increment");
    assert!(error.attempts() == Some(1) && error.elapsed().is_some(), "{error:?}");
    rig.reads(Then::Pass);
    Ok((error, lossy, stm))
}

/// Only if the coordinator stays out of reach is the outcome unknown; another client then finds it out by the receipt,
/// truly, and always in the same way.
async fn an_unknown_outcome_is_resolved_by_another_client(ctx: Ctx) -> Outcome {
    let kinds = [("/1", Loss::BeforeApplied), ("/2", Loss::AfterApplied), ("/3", Loss::Held)];
    together(kinds.map(|(name, loss)| {
        let ctx = ctx.clone();
        async move { Box::pin(resolved_elsewhere(&ctx, name, loss)).await }
    }))
    .await?;
    Ok(())
}

async fn resolved_elsewhere(ctx: &Ctx, name: &str, loss: Loss) -> Outcome {
    let plain = client(ctx).await?;
    let r = plain.create_ref(name, 0_i64).await?;
    let (error, lossy, lost) = unknown(ctx, name, loss).await?;
    let receipt = error.receipt().cloned().unwrap_or_else(|| panic!("no receipt: {error:?}"));
    let resolution = plain.resolve(&receipt).await?;
    let _ = lossy.deliver().await?;
    assert_eq!(plain.resolve(&receipt).await?, resolution, "asked again, {loss:?}");
    assert_eq!(lost.resolve(&receipt).await?, resolution, "asked by the client itself, {loss:?}");
    let value = r.get().await?;
    match resolution {
        Resolution::Committed(point) => {
            assert_eq!((value, loss), (1, Loss::AfterApplied));
            assert_eq!(r.history().await?[0].point, point);
        }
        Resolution::NotCommitted => assert_eq!(value, 0, "{loss:?}"),
    }
    // The client goes on, with another slot.
    assert_eq!(lost.open_ref::<i64>(name).await?.alter(|n| n + 10).await?, value + 10);
    assert_eq!(plain.resolve(&receipt).await?, resolution, "asked after a later commit, {loss:?}");
    Ok(())
}

/// A receipt that went through its text form resolves in the same way; what is no receipt of this namespace is refused or not
/// committed.
async fn a_receipt_is_resolved_from_its_text(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    plain.create_ref("/r", 0_i64).await?;
    let (error, ..) = unknown(&ctx, "/r", Loss::AfterApplied).await?;
    let text = error.receipt().unwrap_or_else(|| panic!("no receipt: {error:?}")).to_string();
    let receipt: Receipt = text.parse()?;
    assert_eq!(Some(&receipt), error.receipt());
    assert!(matches!(plain.resolve(&receipt).await?, Resolution::Committed(_)));
    Ok(())
}

/// A commit that was resolved as not committed never takes effect, however late it arrives.
async fn a_resolved_commit_can_never_take_effect(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    let r = plain.create_ref("/r", 0_i64).await?;
    let (error, lossy, _) = unknown(&ctx, "/r", Loss::Held).await?;
    let receipt = error.receipt().cloned().unwrap_or_else(|| panic!("no receipt: {error:?}"));
    assert_eq!(plain.resolve(&receipt).await?, Resolution::NotCommitted);
    for outcome in lossy.deliver().await? {
        crate::sample::conflict(outcome);
    }
    assert_eq!(r.get().await?, 0);
    Ok(())
}

/// A client makes as many slots as it had commits in flight at once, and uses them again, also after lost replies and
/// dropped transactions.
async fn slots_are_used_again(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig.plain().yielding()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    for polls in 0..20 {
        r.set(polls).await?;
        let mut dropped = Box::pin(r.alter(|n| n + 100));
        for _ in 0..polls {
            if futures_util::poll!(dropped.as_mut()).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(dropped);
    }
    let own: avout_core::Key = avout_core::Key::from_stored("/.avout/slots")?;
    let slots = stm.coordinator().list_all(&own).await?;
    assert_eq!(slots.len(), 1, "{slots:?}");
    drop(rig);
    Ok(())
}

/// A client whose slots are fenced by somebody with a receipt, be it of its next commit or of one long after, loses no
/// commit by it.
async fn a_slot_fenced_by_another_is_not_used_again(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    let (stm, _) = rigged(&ctx, |rig| rig.plain()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let own: avout_core::Key = avout_core::Key::from_stored("/.avout/slots")?;
    let coordinator = stm.coordinator();
    let fences = [1, 1, 2, 100, 1, 3];
    for ahead in fences {
        for slot in coordinator.list_all(&own).await? {
            let entry = crate::sample::present(&*coordinator, &slot).await?;
            let sequence = SlotState::from_entry(&entry)?.sequence + ahead;
            let mut parts = slot.as_str().rsplit('/');
            let (number, client) = (parts.next().expect("a slot"), parts.next().expect("a client"));
            // Of a commit that the client has not made.
            let receipt: Receipt = format!("slot:{client}:{number}:{sequence}:0").parse()?;
            assert_eq!(plain.resolve(&receipt).await?, Resolution::NotCommitted, "{ahead} ahead");
            let fenced = SlotState::from_entry(&crate::sample::present(&*coordinator, &slot).await?)?;
            assert_eq!(fenced, SlotState { sequence, committed: false });
        }
        r.alter(|n| n + 1).await?;
    }
    assert_eq!(r.get().await?, fences.len() as i64);
    Ok(())
}

/// A commit that arrived twice is answered with a conflict on its own slot. If the slot cannot be read by then, or tells nothing
/// any more, its outcome is unknown, with a receipt: it is not made again.
async fn a_conflict_on_its_own_slot_that_nothing_decides_is_unknown(ctx: Ctx) -> Outcome {
    let plain = client(&ctx).await?;
    plain.create_ref("/r", 0_i64).await?;
    for retired in [false, true] {
        let (stm, rig) = rigged(&ctx, Rigged::plain).await?;
        let r = stm.open_ref::<i64>("/r").await?;
        r.set(0).await?;
        let (sweeper, reads) = (plain.clone(), Arc::clone(&rig));
        rig.copied(async move {
            if !retired {
                return reads.reads(Then::Fail(ErrorKind::Unavailable));
            }
            for _ in 0..3 {
                sweeper.sweep().await.expect("a sweep");
            }
        });
        let alter =
            stm.transaction().deadline(Duration::from_millis(200)).dosync(async |tx| tx.alter(&r, |n| n + 1).await);
        let error = refused(within(SOON, "the commit", alter).await, ErrorKind::OutcomeUnknown, "a commit");
        rig.reads(Then::Pass);
        assert_eq!(r.get().await?, 1, "how often it was made");
        let receipt = error.receipt().expect("a receipt").clone();
        match retired {
            true => drop(refused(stm.resolve(&receipt).await, ErrorKind::Unsupported, "a slot that was retired")),
            false => assert!(matches!(stm.resolve(&receipt).await?, Resolution::Committed(_))),
        }
        assert_eq!(r.alter(|n| n + 1).await?, 2, "the client goes on");
    }
    Ok(())
}
