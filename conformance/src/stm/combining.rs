//! Swaps of one atom, written together.

use std::sync::Arc;

use avout_core::{Atom, ErrorKind};
use tokio::task::JoinHandle;

use super::bench::{Outside, Runs, SOON, eventually, gate, let_others_run, outside, refused_at};
use crate::law::{Ctx, Failure, Outcome, laws, within};

laws! { "stm":
    concurrent_swaps_are_combined_and_each_counts_once,
    a_combined_swap_fails_alone,
    a_dropped_swap_holds_up_no_other,
    combined_swaps_give_way_to_another_client,
}

const TASKS: u64 = 32;

/// Begins a swap: `number` is put at the end of the list, once.
fn push(atom: &Atom<Vec<u64>>, number: u64, runs: &Arc<Runs>) -> JoinHandle<avout_core::Result<Vec<u64>>> {
    let (atom, runs) = (atom.clone(), Arc::clone(runs));
    tokio::spawn(async move {
        atom.swap(|mut list| {
            runs.next();
            list.push(number);
            list
        })
        .await
    })
}

/// Waits until the functions have been called so often.
async fn have_run(runs: &Runs, count: u32) {
    eventually("the functions", || runs.count() >= count).await;
    let_others_run().await;
}

async fn done<T>(task: JoinHandle<avout_core::Result<T>>) -> Result<avout_core::Result<T>, Failure> {
    Ok(within(SOON, "a swap", task).await.expect("no panic and no drop"))
}

/// Each swap gave the list as it was when its number had just been put at the end.
fn assert_in_order(list: &[u64], answers: &[(u64, Vec<u64>)]) {
    for (number, answer) in answers {
        assert!(list.starts_with(answer), "{answer:?} was never the value, on the way to {list:?}");
        assert_eq!(answer.last(), Some(number), "what the swap of {number} gave");
    }
}

/// Swaps of one atom that come while a write of it is in flight are written together: fewer writes than swaps, each applied
/// once, each with the value that it made.
async fn concurrent_swaps_are_combined_and_each_counts_once(ctx: Ctx) -> Outcome {
    let Outside { stm, store, store_counts, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    store_counts.take();
    store.before_atom_write(opened);
    let tasks: Vec<_> = (0..TASKS).map(|number| push(&atom, number, &runs)).collect();
    have_run(&runs, TASKS as u32).await;
    drop(open);
    let mut answers = Vec::new();
    for (number, task) in (0..).zip(tasks) {
        answers.push((number, done(task).await??));
    }
    let writes = store_counts.take().state_writes;
    let list = atom.get().await?;
    assert_in_order(&list, &answers);
    let mut numbers = list;
    numbers.sort_unstable();
    assert_eq!(numbers, (0..TASKS).collect::<Vec<_>>(), "each counts once");
    assert!(writes <= TASKS / 2, "{writes} writes for {TASKS} swaps");
    Ok(())
}

/// Of swaps that are written together, one whose function panics, one whose value is refused, and one that makes the value
/// too large for the store fail by themselves; the others take effect, once each.
async fn a_combined_swap_fails_alone(ctx: Ctx) -> Outcome {
    let Outside { stm, store, .. } = outside(&ctx, |rig| rig, |store| store.limited(1000)).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    atom.set_validator(|list: &Vec<u64>| !list.contains(&100));
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    store.before_atom_write(opened);
    let mut tasks = vec![push(&atom, 0, &runs)];
    have_run(&runs, 1).await;
    tasks.extend((1..4).map(|number| push(&atom, number, &runs)));
    have_run(&runs, 4).await;
    let refused = push(&atom, 100, &runs);
    have_run(&runs, 5).await;
    let panics = {
        let (atom, runs) = (atom.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            atom.swap(|_| {
                runs.next();
                panic!("a panic of a function, by plan")
            })
            .await
        })
    };
    have_run(&runs, 6).await;
    let too_large = {
        let (atom, runs) = (atom.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            atom.swap(|mut list| {
                runs.next();
                list.extend([u64::MAX; 1000]);
                list
            })
            .await
        })
    };
    have_run(&runs, 7).await;
    tasks.extend((4..8).map(|number| push(&atom, number, &runs)));
    have_run(&runs, 11).await;
    drop(open);
    let mut answers = Vec::new();
    for (number, task) in (0..).zip(tasks) {
        answers.push((number, done(task).await??));
    }
    refused_at(done(refused).await?, ErrorKind::Rejected, atom.key(), "the refused one");
    refused_at(done(too_large).await?, ErrorKind::TooLarge, atom.key(), "the one that is too large");
    let panicked = within(SOON, "the one that panics", panics).await;
    assert!(panicked.is_err_and(|error| error.is_panic()), "a panic must go through to its caller");
    let list = atom.get().await?;
    assert_in_order(&list, &answers);
    assert_eq!(list.len(), 8, "{list:?}");
    Ok(())
}

/// A swap whose future is dropped, be it the one in flight or one that is built on it, takes effect once or never, and the others
/// take effect.
async fn a_dropped_swap_holds_up_no_other(ctx: Ctx) -> Outcome {
    for dropped in [0, 1, 2] {
        let Outside { stm, store, .. } = outside(&ctx, |rig| rig, |store| store).await?;
        let atom = stm.create_atom(format!("/a/{dropped}"), Vec::<u64>::new()).await?;
        let runs = Arc::new(Runs::default());
        let (open, opened) = gate();
        store.before_atom_write(opened);
        let mut tasks = Vec::new();
        for number in 0..6 {
            tasks.push(push(&atom, number, &runs));
            have_run(&runs, number as u32 + 1).await;
        }
        tasks[dropped as usize].abort();
        let_others_run().await;
        drop(open);
        let mut answers = Vec::new();
        for (number, task) in (0..).zip(tasks) {
            match within(SOON, "the others", task).await {
                Ok(done) => answers.push((number, done?)),
                Err(error) => assert!(error.is_cancelled() && number == dropped, "{number}: {error}"),
            }
        }
        let list = atom.get().await?;
        assert_in_order(&list, &answers);
        let count = |number| list.iter().filter(|found| **found == number).count();
        assert!((0..6).all(|number| count(number) == 1 || (number == dropped && count(number) == 0)), "{list:?}");
    }
    Ok(())
}

/// Swaps that were built on a write which another client came before are applied again to what that has left.
async fn combined_swaps_give_way_to_another_client(ctx: Ctx) -> Outcome {
    let Outside { stm, store, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let other = super::bench::client(&ctx).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    let of_other = other.open_atom::<Vec<u64>>("/a").await?;
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    store.before_atom_write(opened);
    let mut tasks = Vec::new();
    for number in 0..6 {
        tasks.push(push(&atom, number, &runs));
        have_run(&runs, number as u32 + 1).await;
    }
    of_other.reset(vec![100]).await?;
    drop(open);
    let mut answers = Vec::new();
    for (number, task) in (0..).zip(tasks) {
        answers.push((number, done(task).await??));
    }
    let list = of_other.get().await?;
    assert_in_order(&list, &answers);
    assert_eq!((list.len(), list[0]), (7, 100), "{list:?}");
    Ok(())
}
