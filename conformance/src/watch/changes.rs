//! Streams of a ref's changes.

use std::time::Duration;

use avout_core::{Change, Changes, Error, ErrorKind, Point, Ref, Stm};

use crate::law::{Ctx, Failure, Outcome, laws, within};
use crate::stm::bench::{SOON, client, clients, large, refused_at, rigged, small};
use crate::stm::rig::Then;

laws! { "watch":
    every_commit_is_told_once_in_order,
    many_fast_updates_are_each_told,
    what_history_no_longer_holds_is_said_to_be_skipped,
    a_change_can_be_read_when_it_is_told,
    what_does_not_commit_is_not_told,
    nothing_from_before_is_told,
    another_clients_commits_are_told,
    stored_values_are_told,
    destroying_and_making_again_are_told,
    a_watch_of_an_absent_ref_is_told_of_its_making,
    a_ref_made_again_as_another_type_is_told_as_a_mismatch,
    a_watch_survives_lost_events,
    a_watch_survives_failing_watchers,
    a_watch_survives_an_outage,
    a_dropped_wait_loses_no_change,
    an_error_is_told_once_and_not_for_ever,
}

/// The next change, which must come.
pub(crate) async fn next<T: avout_core::Value>(changes: &mut Changes<T>) -> Result<Change<T>, Failure> {
    let next = within(SOON, "a change", changes.next()).await;
    Ok(next.unwrap_or_else(|| panic!("the stream ended"))?)
}

async fn next_is(changes: &mut Changes<i64>, old: Option<i64>, new: Option<i64>) -> Result<Change<i64>, Failure> {
    let change = next(changes).await?;
    assert_eq!((change.old, change.new, change.skipped), (old, new, false), "{change:?}");
    Ok(change)
}

/// Fails if anything is told within a short while. It cannot fail by chance.
async fn nothing_comes(changes: &mut Changes<i64>, what: &str) {
    if let Ok(change) = tokio::time::timeout(Duration::from_millis(30), changes.next()).await {
        panic!("{what}: told {change:?}");
    }
}

/// The original told no old value, told some values twice and others never: here each committed value is told once, in the
/// order of commits, with the value before it and its point.
async fn every_commit_is_told_once_in_order(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let mut changes = r.watch().await?;
    for n in 1..=20 {
        r.set(n).await?;
        let change = next_is(&mut changes, Some(n - 1), Some(n)).await?;
        assert_eq!(change.point, Some(r.history().await?[0].point));
    }
    for n in 21..=25 {
        r.set(n).await?;
    }
    for n in 21..=25 {
        next_is(&mut changes, Some(n - 1), Some(n)).await?;
    }
    r.set(25).await?;
    next_is(&mut changes, Some(25), Some(25)).await?;
    nothing_comes(&mut changes, "after all changes").await;
    Ok(())
}

/// The original told 300 fast updates in 300 calls with only 221 values: here, as far as history reaches, each is told once, also
/// to a watch that reads them afterwards.
async fn many_fast_updates_are_each_told(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).history(256).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let mut watches = [r.watch().await?, of_two.watch().await?];
    let mut last = [Point::ZERO; 2];
    for updates in [1..=150, 151..=300] {
        for n in updates.clone() {
            r.set(n).await?;
        }
        for (watch, last) in watches.iter_mut().zip(&mut last) {
            for n in updates.clone() {
                let change = next_is(watch, Some(n - 1), Some(n)).await?;
                assert!(change.point > Some(*last), "{change:?} after {last:?}");
                *last = change.point.unwrap_or_default();
            }
        }
    }
    for watch in &mut watches {
        nothing_comes(watch, "after all changes").await;
    }
    for n in 301..=600 {
        r.set(n).await?;
    }
    // A watch may have looked at any moment meanwhile: the wait that was given up above leaves its look under way.
    for watch in &mut watches {
        let mut told = 300;
        while told < 600 {
            let change = next(watch).await?;
            let new = change.new.expect("it is not destroyed");
            assert!(change.old == Some(told) && new > told, "{change:?} after {told}");
            assert_eq!(change.skipped, new > told + 1, "{change:?} after {told}");
            told = new;
        }
    }
    Ok(())
}

/// Where history does not hold all that went by, the change says `skipped`, its old value is the one told before, and the last
/// value always comes.
async fn what_history_no_longer_holds_is_said_to_be_skipped(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    for history in [0_u16, 3] {
        let r = stm.create_ref(format!("/r/{history}"), 0_i64).history(history).await?;
        let mut changes = r.watch().await?;
        for n in 1..=10 {
            r.set(n).await?;
        }
        let change = next(&mut changes).await?;
        assert_eq!((change.old, change.new), (Some(0), Some(10 - i64::from(history))));
        assert!(change.skipped, "{change:?}");
        for n in (11 - i64::from(history))..=10 {
            next_is(&mut changes, Some(n - 1), Some(n)).await?;
        }
        nothing_comes(&mut changes, "after the last value").await;
    }
    Ok(())
}

/// The original told of a change before its commit: here what is told can be read at once, by any client.
async fn a_change_can_be_read_when_it_is_told(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let (r, s) = (one.create_ref("/r", 0_i64).await?, one.create_ref("/s", 0_i64).await?);
    let mut changes = r.watch().await?;
    let of_two = two.open_ref::<i64>("/s").await?;
    let writer = tokio::spawn(async move {
        for n in 1..=50 {
            one.dosync(async |tx| {
                tx.set(&r, n).await?;
                tx.set(&s, n).await
            })
            .await?;
        }
        Ok::<_, Error>(())
    });
    let mut told = 0;
    while told < 50 {
        told = next(&mut changes).await?.new.expect("it is not destroyed");
        let read = of_two.get().await?;
        assert!(read >= told, "{told} was told, and {read} is read");
    }
    writer.await.expect("the writer does not panic")?;
    Ok(())
}

/// Writes of bodies that fail, are lost or are rejected are not told.
async fn what_does_not_commit_is_not_told(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).validator(|n: &i64| *n != 13).await?;
    let mut changes = r.watch().await?;
    let aborted = stm.dosync(async |tx| {
        tx.set(&r, 5).await?;
        Err::<(), _>(Error::abort("no"))
    });
    assert!(aborted.await.is_err());
    assert!(r.set(13).await.is_err());
    stm.dosync(async |tx| {
        let n = tx.get(&r).await?;
        if tx.attempt() == 1 {
            crate::stm::bench::set_aside(&r, 1).await;
        }
        tx.set(&r, n + 100).await
    })
    .await?;
    next_is(&mut changes, Some(0), Some(1)).await?;
    next_is(&mut changes, Some(1), Some(101)).await?;
    nothing_comes(&mut changes, "after two commits").await;
    Ok(())
}

/// A watch tells what is committed after it began and nothing from before.
async fn nothing_from_before_is_told(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    r.set(1).await?;
    let mut changes = r.watch().await?;
    nothing_comes(&mut changes, "before any change").await;
    r.set(2).await?;
    next_is(&mut changes, Some(1), Some(2)).await?;
    Ok(())
}

/// A watch tells another client's commits, each once.
async fn another_clients_commits_are_told(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let mut changes = r.watch().await?;
    for n in 1..=10 {
        if n % 2 == 0 { &r } else { &of_two }.set(n).await?;
        next_is(&mut changes, Some(n - 1), Some(n)).await?;
    }
    Ok(())
}

/// Values that lie in a store are told like all others, or as skipped once they are trimmed.
async fn stored_values_are_told(ctx: Ctx) -> Outcome {
    let (one, ..) = small(&ctx).await?;
    let (two, ..) = small(&ctx).await?;
    let r = one.create_ref("/r", large(0)).history(3).await?;
    let mut changes = two.open_ref::<Vec<u8>>("/r").await?.watch().await?;
    for n in 1..=3 {
        r.set(large(n)).await?;
    }
    for n in 1..=3 {
        let change = next(&mut changes).await?;
        assert_eq!((change.old, change.new, change.skipped), (Some(large(n - 1)), Some(large(n)), false));
    }
    for n in 4..=20 {
        r.set(large(n)).await?;
    }
    one.close().await;
    let change = next(&mut changes).await?;
    assert!(change.skipped);
    assert_eq!(change.old, Some(large(3)));
    let mut last = change.new;
    while last != Some(large(20)) {
        last = next(&mut changes).await?.new;
    }
    Ok(())
}

/// Destroying is told with no new value, and making again with no old one.
async fn destroying_and_making_again_are_told(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let mut changes = r.watch().await?;
    for _ in 0..2 {
        two.open_ref::<i64>("/r").await?.destroy().await?;
        next_is(&mut changes, Some(0), None).await?;
        two.create_ref("/r", 0_i64).await?;
        next_is(&mut changes, None, Some(0)).await?;
    }
    r.destroy().await?;
    one.create_ref("/r", 7_i64).await?;
    next_is(&mut changes, Some(0), None).await?;
    next_is(&mut changes, None, Some(7)).await?;
    Ok(())
}

/// A watch that begins while the ref is destroyed tells that it is made again.
async fn a_watch_of_an_absent_ref_is_told_of_its_making(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    r.destroy().await?;
    let mut changes = r.watch().await?;
    nothing_comes(&mut changes, "while there is no ref").await;
    stm.create_ref("/r", 5_i64).await?;
    next_is(&mut changes, None, Some(5)).await?;
    Ok(())
}

/// A ref that is made again as another type is told to old watches as a `Mismatch`; a further one of the first type is told
/// again.
async fn a_ref_made_again_as_another_type_is_told_as_a_mismatch(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let mut changes = r.watch().await?;
    r.destroy().await?;
    next_is(&mut changes, Some(0), None).await?;
    let text = stm.create_ref("/r", "x".to_owned()).await?;
    let told = within(SOON, "the other type", changes.next()).await.expect("the stream goes on");
    refused_at(told, ErrorKind::Mismatch, r.key(), "the other type");
    text.destroy().await?;
    stm.create_ref("/r", 5_i64).await?;
    loop {
        let change = next(&mut changes).await?;
        if change.new == Some(5) {
            return Ok(());
        }
        assert_eq!(change.new, None, "{change:?}");
    }
}

async fn survives(stm: &Stm, r: &Ref<i64>, begin: impl FnOnce(), end: impl FnOnce()) -> Outcome {
    let other = r;
    let of_stm = stm.open_ref::<i64>("/r").await?;
    let mut changes = of_stm.watch().await?;
    other.set(1).await?;
    begin();
    other.set(2).await?;
    other.set(3).await?;
    end();
    next_is(&mut changes, Some(0), Some(1)).await?;
    next_is(&mut changes, Some(1), Some(2)).await?;
    next_is(&mut changes, Some(2), Some(3)).await?;
    Ok(())
}

/// Changes whose events were lost are told when the watcher says that something was lost.
async fn a_watch_survives_lost_events(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let r = writer.create_ref("/r", 0_i64).await?;
    let (stm, rig) = rigged(&ctx, |rig| rig.deaf()).await?;
    survives(&stm, &r, || (), || rig.say_lost()).await
}

/// Changes that came while watchers failed are told once they work again.
async fn a_watch_survives_failing_watchers(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let r = writer.create_ref("/r", 0_i64).await?;
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let failing = Then::Fail(ErrorKind::Unavailable);
    let of_stm = stm.open_ref::<i64>("/r").await?;
    let mut changes = of_stm.watch().await?;
    rig.hints(failing);
    rig.watches(failing);
    let back = async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        r.set(1).await?;
        rig.hints(Then::Pass);
        rig.watches(Then::Pass);
        Outcome::Ok(())
    };
    let (told, done) = tokio::join!(next_is(&mut changes, Some(0), Some(1)), back);
    done?;
    told?;
    r.set(2).await?;
    next_is(&mut changes, Some(1), Some(2)).await?;
    Ok(())
}

/// Changes that came while the coordinator was away are told once it is back.
async fn a_watch_survives_an_outage(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let r = writer.create_ref("/r", 0_i64).await?;
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let of_stm = stm.open_ref::<i64>("/r").await?;
    let mut changes = of_stm.watch().await?;
    rig.reads(Then::Fail(ErrorKind::Unavailable));
    r.set(1).await?;
    let back = async {
        tokio::time::sleep(Duration::from_millis(40)).await;
        r.set(2).await?;
        rig.reads(Then::Pass);
        Outcome::Ok(())
    };
    let (told, done) = tokio::join!(next_is(&mut changes, Some(0), Some(1)), back);
    done?;
    told?;
    next_is(&mut changes, Some(1), Some(2)).await?;
    Ok(())
}

/// A wait for the next change that is dropped, at whatever moment, loses none.
async fn a_dropped_wait_loses_no_change(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let r = writer.create_ref("/r", 0_i64).await?;
    let (stm, _) = rigged(&ctx, |rig| rig.yielding()).await?;
    let of_stm = stm.open_ref::<i64>("/r").await?;
    let mut changes = of_stm.watch().await?;
    for n in 1..=20_i64 {
        r.set(n).await?;
        let mut told = None;
        for polls in 0..6 {
            let mut wait = Box::pin(changes.next());
            for _ in 0..polls {
                if let std::task::Poll::Ready(change) = futures_util::poll!(wait.as_mut()) {
                    told = change;
                    break;
                }
                tokio::task::yield_now().await;
            }
            drop(wait);
            if told.is_some() {
                break;
            }
        }
        let change = match told {
            Some(change) => change?,
            None => next(&mut changes).await?,
        };
        assert_eq!((change.old, change.new, change.skipped), (Some(n - 1), Some(n), false), "{change:?}");
    }
    Ok(())
}

/// A record that cannot be read is told as `Corrupt`, once and not again and again; the watch goes on with the next commit that
/// can be read.
async fn an_error_is_told_once_and_not_for_ever(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let r = writer.create_ref("/r", 0_i64).await?;
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let of_stm = stm.open_ref::<i64>("/r").await?;
    let mut changes = of_stm.watch().await?;
    rig.poison(Some(r.key().clone()));
    r.set(1).await?;
    let told = within(SOON, "the corrupt record", changes.next()).await.expect("the stream goes on");
    refused_at(told, ErrorKind::Corrupt, r.key(), "the corrupt record");
    nothing_comes(&mut changes, "the same error").await;
    rig.poison(None);
    r.set(2).await?;
    next_is(&mut changes, Some(0), Some(1)).await?;
    next_is(&mut changes, Some(1), Some(2)).await?;
    Ok(())
}
