//! Records: slots of dead clients and tombstones are removed for good, and what comes after is not harmed.

use std::sync::Arc;

use avout_core::protocol::SlotState;
use avout_core::{ErrorKind, Receipt, Resolution, Stm};

use crate::fault::{Loss, LossPlan, LossyReplies};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::sample::{conflict, entry};
use crate::stm::bench::{INLINE, SOON, client, eventually, gate, large, refused, rigged, roles, small};
use crate::stm::rig::Rigged;
use crate::stm::rig_store::RiggedStore;

laws! { "sweep":
    slots_of_dead_clients_are_retired,
    a_closed_client_leaves_no_slots,
    a_live_client_whose_slot_was_retired_goes_on,
    a_lost_reply_is_decided_rightly_beside_sweeps,
    a_slot_that_was_retired_is_not_fenced_anew,
    a_fenced_commit_stays_fenced_though_slots_were_retired,
    destroyed_refs_are_gone_and_can_be_made_again,
    a_late_removal_takes_no_ref_that_was_made_again,
    a_watch_is_told_of_a_ref_that_was_swept,
}

async fn slots(stm: &Stm) -> Result<usize, Failure> {
    Ok(stm.coordinator().list_all(&SlotState::prefix()).await?.len())
}

/// A client that has slots.
async fn slotted(ctx: &Ctx) -> Result<Stm, Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let coordinator = Arc::new(Rigged::new(coordinator).small(INLINE).plain());
    Ok(ctx.stm(coordinator, Arc::new(RiggedStore::new(store))).seed(ctx.seed).build())
}

/// After the first sweep that comes after a client's last commit there may be slots of it, and after the next one there are
/// none.
async fn slots_of_dead_clients_are_retired(ctx: Ctx) -> Outcome {
    let sweeper = client(&ctx).await?;
    let r = sweeper.create_ref("/r", 0_i64).await?;
    let before = slots(&sweeper).await?;
    for _ in 0..3 {
        let stm = slotted(&ctx).await?;
        let r = stm.open_ref::<i64>("/r").await?;
        let tasks = (0..4).map(|n| {
            let (stm, r) = (stm.clone(), r.clone());
            async move {
                let own = stm.create_or_open_ref(format!("/own/{n}"), 0_i64).await?;
                stm.dosync(async |tx| {
                    tx.alter(&own, |n| n + 1).await?;
                    tx.commute(&r, |n| n + 1).await
                })
                .await?;
                Ok(())
            }
        });
        together(tasks).await?;
    }
    assert!(slots(&sweeper).await? >= before + 3, "each client has a slot");
    let mut retired = 0;
    for _ in 0..2 {
        retired += sweeper.sweep().await?.slots;
    }
    assert!(retired >= 3, "{retired} slots retired");
    assert_eq!(slots(&sweeper).await?, 0, "no slot is left");
    assert_eq!(r.get().await?, 12);
    Ok(())
}

/// A client that is closed removes its slots, but for those in which a reply was lost: that commit may come late. What it
/// committed stays.
async fn a_closed_client_leaves_no_slots(ctx: Ctx) -> Outcome {
    let other = client(&ctx).await?;
    other.create_ref("/r", 0_i64).await?;
    let before = slots(&other).await?;
    let stm = slotted(&ctx).await?;
    let r = stm.open_ref::<i64>("/r").await?;
    together((0..8).map(|_| {
        let r = r.clone();
        async move { Ok(r.alter(|n| n + 1).await?) }
    }))
    .await?;
    assert!(slots(&other).await? > before, "it had slots");
    stm.close().await;
    assert_eq!(slots(&other).await?, before, "slots are left");
    assert_eq!(other.open_ref::<i64>("/r").await?.alter(|n| n + 1).await?, 9);

    let before = slots(&other).await?;
    let (coordinator, store) = roles(&ctx).await?;
    let lossy = Arc::new(LossyReplies::new(coordinator, LossPlan::listed([Loss::Held])));
    let late = ctx.stm(Arc::new(Rigged::new(lossy.clone() as _).plain()), store).seed(ctx.seed).build();
    assert_eq!(late.open_ref::<i64>("/r").await?.alter(|n| n + 1).await?, 10);
    late.close().await;
    assert_eq!(slots(&other).await?, before + 1, "the slot of a commit that may come late is kept");
    lossy.deliver().await?;
    assert_eq!(other.open_ref::<i64>("/r").await?.get().await?, 10, "a commit that was fenced came late");
    Ok(())
}

/// A client that made no commit for several sweeps goes on, and each of its commits counts once. So does one that has commits
/// under way.
async fn a_live_client_whose_slot_was_retired_goes_on(ctx: Ctx) -> Outcome {
    let sweeper = client(&ctx).await?;
    sweeper.create_ref("/r", 0_i64).await?;
    for unique in [false, true] {
        let (stm, _) = rigged(&ctx, |rig| if unique { rig } else { rig.plain() }).await?;
        let r = stm.open_ref::<i64>("/r").await?;
        r.set(0).await?;
        let commits = stm.stats().commits;
        for n in 1..=4 {
            for _ in 0..3 {
                sweeper.sweep().await?;
            }
            assert_eq!(r.alter(|n| n + 1).await?, n);
            assert_eq!(sweeper.open_ref::<i64>("/r").await?.get().await?, n);
        }
        let tries = stm.stats().commits - commits;
        assert!(tries <= 16, "{tries} commits for four");
    }
    Ok(())
}

/// Replies are lost while sweeps retire slots as fast as they can: what is reported as done is done once, and what is
/// reported as not done is not; an outcome may stay unknown.
async fn a_lost_reply_is_decided_rightly_beside_sweeps(ctx: Ctx) -> Outcome {
    let sweeper = client(&ctx).await?;
    let total = sweeper.create_ref("/total", 0_i64).await?;
    let (mut least, mut most) = (0, 0);
    for loss in [Loss::BeforeApplied, Loss::AfterApplied, Loss::Held] {
        for sweeps in 0..4 {
            let (coordinator, store) = roles(&ctx).await?;
            let plan = LossPlan::listed([Loss::None, loss]);
            let lossy = Arc::new(LossyReplies::new(coordinator, plan));
            let rig = Arc::new(Rigged::new(Arc::clone(&lossy) as _));
            let stm = ctx.stm(Arc::clone(&rig) as _, store).build();
            let r = stm.open_ref::<i64>("/total").await?;
            assert_eq!(r.alter(|n| n + 1).await?, least + 1, "the first commit of the slot");
            (least, most) = (least + 1, most + 1);
            // The client sleeps between the lost reply and the look at its slot.
            let (wake, asleep) = gate();
            rig.after_lost(asleep);
            let task = tokio::spawn(async move { r.alter(|n| n + 1).await });
            eventually("the reply is lost", || lossy.lost() == 1).await;
            for _ in 0..sweeps {
                sweeper.sweep().await?;
            }
            drop(wake);
            let what = format!("{loss:?}, {sweeps} sweeps");
            let done = within(SOON, &what, task).await.expect("no panic");
            let _ = lossy.deliver().await?;
            match done {
                Ok(_) => (least, most) = (least + 1, most + 1),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{what}: {error:?}");
                    assert!(sweeps > 0, "{what}: {error:?}");
                    most += 1;
                    let receipt = error.receipt().expect("a receipt").clone();
                    refused(sweeper.resolve(&receipt).await, ErrorKind::Unsupported, &what);
                }
            }
            let now = total.get().await?;
            assert!((least..=most).contains(&now), "{what}: {now} after {least} to {most}");
            (least, most) = (now, now);
        }
    }
    Ok(())
}

/// A receipt of a commit whose slot was retired is told as lost, and not decided by a slot made anew.
async fn a_slot_that_was_retired_is_not_fenced_anew(ctx: Ctx) -> Outcome {
    let sweeper = client(&ctx).await?;
    let stm = slotted(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let slot = stm.coordinator().list_all(&SlotState::prefix()).await?.pop().expect("the client has a slot");
    let mut parts = slot.as_str().rsplit('/');
    let (number, owner) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let receipt = |sequence: u64, epoch: u64| format!("slot:{owner}:{number}:{sequence}:{epoch}").parse::<Receipt>();
    let known = sweeper.resolve(&receipt(1, 0)?).await?;
    assert!(matches!(known, Resolution::Committed(_)), "{known:?}");
    for _ in 0..2 {
        sweeper.sweep().await?;
    }
    assert!(entry(&*sweeper.coordinator(), &slot).await?.is_none(), "the slot is retired");
    refused(sweeper.resolve(&receipt(1, 0)?).await, ErrorKind::Unsupported, "after it was retired");
    r.alter(|n| n + 1).await?;
    assert!(entry(&*sweeper.coordinator(), &slot).await?.is_none(), "it is never made again");
    assert_eq!(r.get().await?, 1);
    Ok(())
}

/// A client goes on after its slot was retired, and its first commit is late and is fenced off: it never takes effect, though a
/// slot that was made anew may have the revision that the old one had.
async fn a_fenced_commit_stays_fenced_though_slots_were_retired(ctx: Ctx) -> Outcome {
    let sweeper = client(&ctx).await?;
    sweeper.create_ref("/r", 0_i64).await?;
    let (coordinator, store) = roles(&ctx).await?;
    // The one after the first loses to the floor.
    let plan = LossPlan::listed([Loss::None, Loss::None, Loss::Held]);
    let lossy = Arc::new(LossyReplies::new(coordinator, plan));
    let rig = Arc::new(Rigged::new(Arc::clone(&lossy) as _).plain());
    let stm = ctx.stm(Arc::clone(&rig) as _, store).build();
    let r = stm.open_ref::<i64>("/r").await?;
    r.set(1).await?;
    for _ in 0..2 {
        sweeper.sweep().await?;
    }
    let (delivered, is_delivered) = tokio::sync::oneshot::channel();
    let (of_fence, of_next, held) = (Arc::clone(&rig), Arc::clone(&rig), Arc::clone(&lossy));
    rig.after_lost(async move {
        // The next one is the fence, and the one after that is the same commit again.
        of_fence.before_commit(async move {
            of_next.before_commit(async move {
                let _ = delivered.send(held.deliver().await);
            });
        });
    });
    assert_eq!(r.alter(|n| n + 1).await?, 2);
    for outcome in within(SOON, "the late commit", is_delivered).await.expect("it was delivered")? {
        conflict(outcome);
    }
    assert_eq!(r.get().await?, 2);
    Ok(())
}

/// Of a destroyed ref nothing is left after a sweep, neither its record nor its values, and it can be made again as another
/// type, by whoever knew it and by others.
async fn destroyed_refs_are_gone_and_can_be_made_again(ctx: Ctx) -> Outcome {
    let two = slotted(&ctx).await?;
    for round in 0..3_u8 {
        let (one, ..) = small(&ctx).await?;
        let r = one.create_ref("/r", large(round)).await?;
        r.set(large(round + 10)).await?;
        let of_two = two.open_ref::<Vec<u8>>("/r").await?;
        r.destroy().await?;
        let report = if round == 1 { &two } else { &one }.sweep().await?;
        assert_eq!((report.tombstones, report.containers, report.skipped.len()), (1, 1, 0), "{report:?}");
        assert!(entry(&*one.coordinator(), r.key()).await?.is_none(), "its record");
        assert_eq!(one.store().versioned_state(r.key()).versions().await?, [], "its values");
        refused(r.get().await, ErrorKind::NotFound, "get");
        refused(of_two.set(large(1)).await, ErrorKind::NotFound, "set by another client");
        let text = two.create_ref("/r", "x".repeat(INLINE * 2)).await?;
        refused(of_two.get().await, ErrorKind::Mismatch, "get as it was");
        text.destroy().await?;
        one.close().await;
        assert_eq!(two.sweep().await?.tombstones, 1);
    }
    Ok(())
}

/// A removal that is held up on its way, while another sweep removes the tombstone and the ref is made again, removes
/// nothing, whatever the new record's revision is.
async fn a_late_removal_takes_no_ref_that_was_made_again(ctx: Ctx) -> Outcome {
    let two = client(&ctx).await?;
    for changes in 0..4_i64 {
        let r = two.create_ref("/r", 0_i64).await?;
        r.destroy().await?;
        let (coordinator, store) = roles(&ctx).await?;
        let lossy = Arc::new(LossyReplies::new(coordinator, LossPlan::listed([Loss::None, Loss::Held])));
        let one = ctx.stm(Arc::clone(&lossy) as _, store).build();
        let report = one.sweep().await?;
        assert_eq!((report.tombstones, report.skipped.len()), (0, 1), "its removal is not answered: {report:?}");
        assert_eq!(two.sweep().await?.tombstones, 1);
        let r = two.create_ref("/r", 0_i64).await?;
        for n in 1..=changes {
            r.set(n).await?;
        }
        for outcome in lossy.deliver().await? {
            conflict(outcome);
        }
        assert_eq!(r.get().await?, changes, "made again and set {changes} times");
        r.destroy().await?;
        two.sweep().await?;
    }
    Ok(())
}

/// A watch that comes to look only after the tombstone was removed is told that the ref was destroyed, and that values may have
/// been skipped.
async fn a_watch_is_told_of_a_ref_that_was_swept(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let mut changes = r.watch().await?;
    r.set(2).await?;
    r.destroy().await?;
    stm.sweep().await?;
    let mut told = Vec::new();
    while told.last() != Some(&None) {
        let change = ctx.hinted("a change", changes.next()).await.expect("watches do not end")?;
        told.push(change.new);
        assert!(told.len() <= 3, "{told:?}");
        assert!(change.skipped || told == [Some(2)] || told == [Some(2), None], "{told:?}");
    }
    let again = stm.create_ref("/r", 3_i64).await?;
    let change = ctx.hinted("a change", changes.next()).await.expect("watches do not end")?;
    assert_eq!((change.old, change.new), (None, Some(3)));
    drop(again);
    Ok(())
}
