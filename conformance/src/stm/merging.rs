//! Transactions that only commute one ref, committed together.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use avout_core::{ErrorKind, Point, Ref, Stm};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::bench::{Outside, Runs, SOON, eventually, gate, let_others_run, outside};
use super::rig::Rigged;
use crate::law::{Ctx, Failure, Outcome, laws, within};

laws! { "stm":
    concurrent_commutes_are_merged_and_each_counts_once,
    a_merged_commute_fails_alone,
    a_dropped_commute_holds_up_no_other,
    a_commute_dropped_before_its_commit_is_sent_is_not_in_it,
    a_merged_commute_keeps_its_own_deadline;
    timed:
    a_commute_that_waits_for_another_keeps_its_deadline,
    a_commute_that_was_not_sent_yet_keeps_its_deadline,
}

const TASKS: u64 = 16;

/// What a commute answered, and where it took effect.
type Answer = (Vec<u64>, Option<Point>);

/// Begins to commute: `number` is put at the end of the list, once.
fn push(stm: &Stm, r: &Ref<Vec<u64>>, number: u64, runs: &Arc<Runs>) -> JoinHandle<avout_core::Result<Answer>> {
    let (stm, r, runs) = (stm.clone(), r.clone(), Arc::clone(runs));
    tokio::spawn(async move {
        let told = Arc::new(Mutex::new(None));
        let tell = Arc::clone(&told);
        let shown = stm.dosync(async |tx| {
            let shown = tx
                .commute(&r, move |mut list| {
                    list.push(number);
                    list
                })
                .await?;
            let tell = Arc::clone(&tell);
            tx.on_commit(move |point| *tell.lock().expect("no panic under the lock") = Some(point));
            runs.next();
            Ok::<_, avout_core::Error>(shown)
        });
        let shown = shown.await?;
        let point = *told.lock().expect("no panic under the lock");
        Ok((shown, point))
    })
}

/// So many commutes of one ref, in the order of their numbers: the first one's commit is held back until the gate is dropped, and
/// the others wait for that.
async fn behind_the_first(
    stm: &Stm,
    rig: &Rigged,
    r: &Ref<Vec<u64>>,
    count: u32,
) -> (oneshot::Sender<()>, Vec<JoinHandle<avout_core::Result<Answer>>>) {
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    rig.before_commit(opened);
    let mut tasks = Vec::new();
    for number in 0..count {
        tasks.push(push(stm, r, number.into(), &runs));
        have_run(&runs, number + 1).await;
    }
    (open, tasks)
}

/// Waits until so many bodies have run, and what follows them has begun.
async fn have_run(runs: &Runs, count: u32) {
    eventually("the bodies", || runs.count() == count).await;
    let_others_run().await;
}

async fn done<T>(task: JoinHandle<avout_core::Result<T>>) -> Result<avout_core::Result<T>, Failure> {
    Ok(within(SOON, "a commute", task).await.expect("no panic and no drop"))
}

async fn all_done<T>(tasks: Vec<JoinHandle<avout_core::Result<T>>>) -> Outcome {
    for task in tasks {
        done(task).await??;
    }
    Ok(())
}

/// Commutes of one ref that come while another one's commit is in flight are committed together: fewer commits than
/// commutes, each applied once, each told the point of the commit that it is in.
async fn concurrent_commutes_are_merged_and_each_counts_once(ctx: Ctx) -> Outcome {
    let Outside { stm, rig, counts, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let r = stm.create_ref("/r", Vec::<u64>::new()).history(TASKS as u16 + 2).await?;
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    counts.take();
    rig.before_commit(opened);
    let tasks: Vec<_> = (0..TASKS).map(|number| push(&stm, &r, number, &runs)).collect();
    have_run(&runs, TASKS as u32).await;
    drop(open);
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(done(task).await??);
    }
    let commits = counts.take().commits;
    let mut list = r.get().await?;
    list.sort_unstable();
    assert_eq!(list, (0..TASKS).collect::<Vec<_>>(), "each counts once");
    assert!(commits <= TASKS / 2, "{commits} commits for {TASKS} commutes");
    assert_eq!(runs.count(), TASKS as u32, "runs of the bodies");
    let history = r.history().await?;
    let native = stm.coordinator().capabilities().native_snapshots;
    for (number, (shown, point)) in (0..).zip(answers) {
        assert_eq!(shown.last(), Some(&number), "what the body saw: {shown:?}");
        // A coordinator with snapshots of its own may give entries an earlier point than their commit's.
        let place = history.iter().position(|past| match native {
            true => Some(past.point) <= point,
            false => Some(past.point) == point,
        });
        let place = place.unwrap_or_else(|| panic!("{number} was told {point:?}, where nothing was committed"));
        let holds = |place: usize| history[place].value.as_ref().is_some_and(|list| list.contains(&number));
        assert!(holds(place) && !holds(place + 1), "{number} took effect elsewhere than at {point:?}");
    }
    Ok(())
}

/// Of commutes that are committed together, one whose validator refuses is `Rejected`, and one whose function panics when it is
/// applied again panics in its own task; the others commit, once each.
async fn a_merged_commute_fails_alone(ctx: Ctx) -> Outcome {
    let Outside { stm, rig, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let r = stm.create_ref("/r", Vec::<u64>::new()).await?;
    let strict = stm.open_ref::<Vec<u64>>("/r").await?;
    strict.set_validator(|list: &Vec<u64>| list.len() < 2);
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    rig.before_commit(opened);
    let mut tasks: Vec<_> = (0..4).map(|number| push(&stm, &r, number, &runs)).collect();
    have_run(&runs, 4).await;
    let refused = push(&stm, &strict, 100, &runs);
    let panics = {
        let (stm, r, runs) = (stm.clone(), r.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            stm.dosync(async |tx| {
                let shown = tx.commute(&r, |list| {
                    assert!(list.is_empty(), "a panic of a commuted function, by plan");
                    vec![200]
                });
                shown.await?;
                runs.next();
                Ok::<_, avout_core::Error>(())
            })
            .await
        })
    };
    tasks.extend((4..8).map(|number| push(&stm, &r, number, &runs)));
    have_run(&runs, 10).await;
    drop(open);
    for task in tasks {
        done(task).await??;
    }
    super::bench::refused_at(done(refused).await?, ErrorKind::Rejected, r.key(), "the refused one");
    let panicked = within(SOON, "the one that panics", panics).await;
    assert!(panicked.is_err_and(|error| error.is_panic()), "a panic must go through to its caller");
    let mut list = r.get().await?;
    list.sort_unstable();
    assert_eq!(list, (0..8).collect::<Vec<_>>());
    Ok(())
}

/// A commute whose future is dropped while it waits for the one in flight leaves nothing, and the one in flight takes effect once or
/// never. The others commit.
async fn a_dropped_commute_holds_up_no_other(ctx: Ctx) -> Outcome {
    for dropped in [0, 1] {
        let Outside { stm, rig, .. } = outside(&ctx, |rig| rig, |store| store).await?;
        let r = stm.create_ref(format!("/r/{dropped}"), Vec::<u64>::new()).await?;
        let (open, tasks) = behind_the_first(&stm, &rig, &r, 6).await;
        tasks[dropped as usize].abort();
        let_others_run().await;
        drop(open);
        for (number, task) in (0..).zip(tasks) {
            match within(SOON, "the others", task).await {
                Ok(done) => drop(done?),
                Err(error) => assert!(error.is_cancelled() && number == dropped, "{number}: {error}"),
            }
        }
        let mut list = r.get().await?;
        list.sort_unstable();
        let others: Vec<u64> = (0..6).filter(|number| *number != dropped).collect();
        let all: Vec<u64> = (0..6).collect();
        assert!(list == others || (list == all && dropped == 0), "{list:?}, and {dropped} was dropped");
    }
    Ok(())
}

/// A commute that is dropped while the commit that is to hold it reads or writes values, and is not sent yet, is not in it.
async fn a_commute_dropped_before_its_commit_is_sent_is_not_in_it(ctx: Ctx) -> Outcome {
    for in_store in [false, true] {
        let make = |rig: Rigged| if in_store { rig.small(8) } else { rig };
        let Outside { stm, rig, store, .. } = outside(&ctx, make, |store| store).await?;
        let r = stm.create_ref(format!("/r/{in_store}"), vec![100, 101, 102]).await?;
        let (open, tasks) = behind_the_first(&stm, &rig, &r, 4).await;
        // The others' commit comes as far as the reply to its read, or to the write of its value.
        let (go_on, held) = gate();
        let (reached, reaches) = gate();
        let hold = async move {
            drop(reached);
            held.await;
        };
        match in_store {
            true => store.after_value_write(hold),
            false => rig.after_read(hold),
        }
        drop(open);
        within(SOON, "the commit of the others", reaches).await;
        tasks[2].abort();
        let_others_run().await;
        drop(go_on);
        for (number, task) in (0..).zip(tasks) {
            match within(SOON, "the others", task).await {
                Ok(done) => drop(done?),
                Err(error) => assert!(error.is_cancelled() && number == 2, "{number}: {error}"),
            }
        }
        let mut list = r.get().await?;
        list.sort_unstable();
        assert_eq!(list, [0, 1, 3, 100, 101, 102], "in a store: {in_store}");
    }
    Ok(())
}

/// A commute that waits for another one's commit ends at its own deadline, as a `Timeout` with nothing written.
async fn a_commute_that_waits_for_another_keeps_its_deadline(ctx: Ctx) -> Outcome {
    let Outside { stm, rig, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let r = stm.create_ref("/r", Vec::<u64>::new()).await?;
    let (open, tasks) = behind_the_first(&stm, &rig, &r, 1).await;
    let late = push_within(Duration::from_millis(100), &stm, &r, 1);
    super::bench::refused_at(done(late).await?, ErrorKind::Timeout, r.key(), "one that waits");
    drop(open);
    all_done(tasks).await?;
    assert_eq!(r.get().await?, [0]);
    assert_eq!(done(push(&stm, &r, 2, &Arc::default())).await??.0, [0, 2]);
    Ok(())
}

/// Begins to commute within a deadline: `number` is put at the end of the list, once.
fn push_within(
    deadline: Duration,
    stm: &Stm,
    r: &Ref<Vec<u64>>,
    number: u64,
) -> JoinHandle<avout_core::Result<Vec<u64>>> {
    let (stm, r) = (stm.clone(), r.clone());
    tokio::spawn(async move {
        let run = stm.transaction().deadline(deadline).dosync(async |tx| {
            tx.commute(&r, move |mut list| {
                list.push(number);
                list
            })
            .await
        });
        run.await
    })
}

/// A commute whose deadline passes while the commit that is to hold it reads, and is not sent yet, ends as a `Timeout` and is not in it.
async fn a_commute_that_was_not_sent_yet_keeps_its_deadline(ctx: Ctx) -> Outcome {
    let Outside { stm, rig, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let r = stm.create_ref("/r", Vec::<u64>::new()).await?;
    let (open, tasks) = behind_the_first(&stm, &rig, &r, 2).await;
    let late = push_within(Duration::from_millis(300), &stm, &r, 2);
    let_others_run().await;
    let (go_on, held) = gate();
    rig.after_read(held);
    drop(open);
    super::bench::refused_at(done(late).await?, ErrorKind::Timeout, r.key(), "one that was not sent");
    drop(go_on);
    all_done(tasks).await?;
    assert_eq!(r.get().await?, [0, 1]);
    Ok(())
}

/// While the commit hangs that holds several commutes, one with a short deadline ends soon after that as `OutcomeUnknown`, and the others
/// wait for it as long as they may.
async fn a_merged_commute_keeps_its_own_deadline(ctx: Ctx) -> Outcome {
    let Outside { stm, rig, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let r = stm.create_ref("/r", Vec::<u64>::new()).await?;
    let (open, mut tasks) = behind_the_first(&stm, &rig, &r, 2).await;
    let other = tasks.pop().expect("two tasks");
    let hasty = push_within(Duration::from_secs(1), &stm, &r, 2);
    let_others_run().await;
    let (go_on, hangs) = gate();
    rig.before_commit(hangs);
    drop(open);
    all_done(tasks).await?;
    let unknown = super::bench::refused_at(done(hasty).await?, ErrorKind::OutcomeUnknown, r.key(), "the hasty one");
    let definite = stm.coordinator().capabilities().definite_replies;
    assert!(definite || unknown.receipt().is_some(), "it has no receipt: {unknown:?}");
    assert!(!other.is_finished(), "the other one has time");
    drop(go_on);
    done(other).await??;
    assert_eq!(r.get().await?, [0, 1, 2]);
    Ok(())
}
