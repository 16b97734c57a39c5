//! Swaps of one atom, written together.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use avout_core::{Atom, ErrorKind, Stm};
use serde::{Deserialize, Serialize, Serializer};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::bench::{Outside, Runs, SOON, eventually, gate, let_others_run, outside, refused_at, roles};
use super::rig::Then;
use super::rig_store::RiggedStore;
use crate::law::{Ctx, Failure, Outcome, laws, within};

laws! { "stm":
    concurrent_swaps_are_combined_and_each_counts_once,
    a_combined_swap_fails_alone,
    a_value_that_panics_when_it_is_encoded_fails_alone,
    a_dropped_swap_holds_up_no_other,
    combined_swaps_give_way_to_another_client,
    combined_swaps_keep_their_deadline,
    what_writes_nothing_depends_on_no_later_write,
    a_swap_that_waits_for_a_reader_keeps_its_deadline,
    a_slow_function_holds_up_no_other_swap,
    a_function_may_use_its_own_atom,
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

/// A swap whose future is dropped while it is built on the one in flight leaves nothing, and is in no value that another one gave; the one
/// in flight itself takes effect once or never. The others take effect, once each.
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
        let least = |number| usize::from(number != dropped);
        let most = |number| usize::from(number != dropped || number == 0);
        let fine = |number| (least(number)..=most(number)).contains(&count(number));
        assert!((0..6).all(fine), "{list:?}, and {dropped} was dropped");
    }
    Ok(())
}

/// Numbers that panic when they are encoded with a 13 among them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unlucky(#[serde(serialize_with = "panic_at_13")] Vec<u64>);

fn panic_at_13<S: Serializer>(numbers: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    assert!(!numbers.contains(&13), "a panic of an encoder, by plan");
    numbers.serialize(serializer)
}

/// Puts a number at the end.
fn pushed(number: u64) -> impl Fn(Unlucky) -> Unlucky + Send + Sync + 'static {
    move |mut list| {
        list.0.push(number);
        list
    }
}

/// Of swaps that are written together, and of commutes that are committed together, one whose value panics when it is encoded is
/// `Codec`; the others take effect, once each.
async fn a_value_that_panics_when_it_is_encoded_fails_alone(ctx: Ctx) -> Outcome {
    let Outside { stm, store, rig, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let atom = stm.create_atom("/a", Unlucky(Vec::new())).await?;
    let r = stm.create_ref("/r", Unlucky(Vec::new())).await?;
    let swap = |number| {
        let atom = atom.clone();
        tokio::spawn(async move { atom.swap(pushed(number)).await.map(drop) })
    };
    let commute = |number| {
        let (stm, r) = (stm.clone(), r.clone());
        tokio::spawn(async move { stm.dosync(async |tx| tx.commute(&r, pushed(number)).await).await.map(drop) })
    };
    let (open, opened) = gate();
    let (open_too, opened_too) = gate();
    store.before_atom_write(opened);
    rig.before_commit(opened_too);
    let mut tasks = Vec::new();
    for number in [0, 1, 13, 2] {
        tasks.push((number, atom.key(), swap(number)));
        tasks.push((number, r.key(), commute(number)));
        let_others_run().await;
    }
    drop((open, open_too));
    for (number, key, task) in tasks {
        match (number, done(task).await?) {
            (13, told) => drop(refused_at(told, ErrorKind::Codec, key, "the unlucky one")),
            (_, told) => told?,
        }
    }
    for Unlucky(mut list) in [atom.get().await?, r.get().await?] {
        list.sort_unstable();
        assert_eq!(list, [0, 1, 2]);
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

const DEADLINE: Duration = Duration::from_secs(1);

/// A client whose operations have a deadline, and its store.
async fn impatient(ctx: &Ctx) -> Result<(Stm, Arc<RiggedStore>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let store = Arc::new(RiggedStore::new(store));
    Ok((ctx.stm(coordinator, Arc::clone(&store) as _).seed(ctx.seed).deadline(Some(DEADLINE)).build(), store))
}

/// While the write that holds several swaps hangs, each of them ends at its deadline as `OutcomeUnknown`, and those that wait for it as
/// `Timeout`, or take effect after all. What comes later is not held up.
async fn combined_swaps_keep_their_deadline(ctx: Ctx) -> Outcome {
    let (stm, store) = impatient(&ctx).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    store.before_atom_write(opened);
    let first = push(&atom, 0, &runs);
    have_run(&runs, 1).await;
    let (never, hangs) = gate();
    store.before_atom_write(hangs);
    let combined: Vec<_> = [1, 2].map(|number| push(&atom, number, &runs)).into();
    have_run(&runs, 3).await;
    drop(open);
    done(first).await??;
    let_others_run().await;
    let waiting = push(&atom, 3, &runs);
    for swap in combined {
        let told = within(DEADLINE * 2, "a combined swap", swap).await.expect("no panic and no drop");
        refused_at(told, ErrorKind::OutcomeUnknown, atom.key(), "a swap in the write that hangs");
    }
    let told = within(DEADLINE * 2, "one that waits", waiting).await.expect("no panic and no drop");
    let waited = told.is_ok();
    if !waited {
        refused_at(told, ErrorKind::Timeout, atom.key(), "a swap that waits for the one that hangs");
    }
    drop(never);
    let list = done(push(&atom, 4, &runs)).await??;
    assert_eq!((list[0], list.contains(&3), list.last()), (0, waited, Some(&4)), "{list:?}");
    Ok(())
}

/// A comparison that failed and a swap that was refused are told so when what they have looked at is written, though a later swap's
/// write hangs. One that has looked at what hangs ends at its own deadline, surely without effect.
async fn what_writes_nothing_depends_on_no_later_write(ctx: Ctx) -> Outcome {
    let (stm, store) = impatient(&ctx).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    atom.set_validator(|list: &Vec<u64>| !list.contains(&100));
    let compare = || {
        let atom = atom.clone();
        tokio::spawn(async move { atom.compare_and_set(&vec![99], vec![98]).await })
    };
    let runs = Arc::new(Runs::default());
    let (open, opened) = gate();
    store.before_atom_write(opened);
    let first = push(&atom, 0, &runs);
    have_run(&runs, 1).await;
    let compared = compare();
    let refused = push(&atom, 100, &runs);
    have_run(&runs, 2).await;
    let (never, hangs) = gate();
    store.before_atom_write(hangs);
    let later = push(&atom, 1, &runs);
    have_run(&runs, 3).await;
    let on_top = compare();
    let_others_run().await;
    drop(open);
    done(first).await??;
    assert!(!done(compared).await??, "it was another value");
    refused_at(done(refused).await?, ErrorKind::Rejected, atom.key(), "a swap that the validator refuses");
    refused_at(done(later).await?, ErrorKind::OutcomeUnknown, atom.key(), "the swap whose write hangs");
    refused_at(done(on_top).await?, ErrorKind::Timeout, atom.key(), "a comparison with what hangs");
    drop(never);
    Ok(())
}

/// While another swap reads and gets no answer, whatever waits for what it reads ends at its own deadline, surely without effect.
async fn a_swap_that_waits_for_a_reader_keeps_its_deadline(ctx: Ctx) -> Outcome {
    let (stm, store) = impatient(&ctx).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    let runs = Arc::new(Runs::default());
    store.atom_reads(Then::Hang);
    let first = push(&atom, 0, &runs);
    let_others_run().await;
    let writes = async {
        let swap = async { atom.swap(|list| list).await.map(drop) };
        let set = async { atom.compare_and_set(&Vec::new(), vec![1]).await.map(drop) };
        tokio::join!(swap, set, atom.update(|list| list.push(2)), atom.reset(vec![3]))
    };
    let (swap, set, update, reset) = Box::pin(within(DEADLINE * 2, "those that wait", writes)).await;
    for told in [swap, set, update, reset, done(first).await?.map(drop)] {
        let error = told.expect_err("nothing was answered");
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    }
    store.atom_reads(Then::Pass);
    assert_eq!((atom.get().await?, runs.count()), (Vec::new(), 0));
    Ok(())
}

/// Begins a swap whose function is held up: `number` is put at the end of the list when it is let go.
fn held(
    atom: &Atom<Vec<u64>>,
    number: u64,
    runs: &Arc<Runs>,
) -> (mpsc::Sender<()>, JoinHandle<avout_core::Result<Vec<u64>>>) {
    let (go, held) = mpsc::channel();
    let (atom, runs, handle) = (atom.clone(), Arc::clone(runs), Handle::current());
    let task = spawn_blocking(move || {
        handle.block_on(atom.swap(|mut list| {
            if runs.next() == 1 {
                held.recv_timeout(SOON / 2).expect("it is let go");
            }
            list.push(number);
            list
        }))
    });
    (go, task)
}

/// While the function of one swap takes its time, others take effect, whether that one came first or on top of a write in flight.
async fn a_slow_function_holds_up_no_other_swap(ctx: Ctx) -> Outcome {
    for in_flight in [false, true] {
        let Outside { stm, store, .. } = outside(&ctx, |rig| rig, |store| store).await?;
        let atom = stm.create_atom(format!("/a/{in_flight}"), Vec::<u64>::new()).await?;
        let (runs, of_slow) = (Arc::new(Runs::default()), Arc::new(Runs::default()));
        let (open, opened) = gate();
        let mut others = Vec::new();
        if in_flight {
            store.before_atom_write(opened);
            others.push((1, push(&atom, 1, &runs)));
            have_run(&runs, 1).await;
        }
        let (go, slow) = held(&atom, 0, &of_slow);
        have_run(&of_slow, 1).await;
        others.extend((2..5).map(|number| (number, push(&atom, number, &runs))));
        drop(open);
        let mut answers = Vec::new();
        for (number, other) in others {
            answers.push((number, done(other).await??));
        }
        go.send(()).expect("it still waits: the others did not have to");
        answers.push((0, done(slow).await??));
        let list = atom.get().await?;
        assert_in_order(&list, &answers);
        assert_eq!(list.len(), answers.len(), "{list:?}");
    }
    Ok(())
}

/// A function that waits for another swap of its own atom, or reads it, is applied again to what that has left.
async fn a_function_may_use_its_own_atom(ctx: Ctx) -> Outcome {
    let Outside { stm, .. } = outside(&ctx, |rig| rig, |store| store).await?;
    let atom = stm.create_atom("/a", Vec::<u64>::new()).await?;
    let (of_inner, handle) = (Arc::new(Runs::default()), Handle::current());
    let outer = {
        let atom = atom.clone();
        let runs = Runs::default();
        spawn_blocking(move || {
            handle.clone().block_on(atom.swap(|mut list| {
                if runs.next() == 1 {
                    let (tell, told) = mpsc::channel();
                    let (atom, inner) = (atom.clone(), push(&atom, 1, &of_inner));
                    handle.spawn(async move {
                        let swapped = inner.await.expect("no panic and no drop");
                        drop(tell.send((swapped, atom.get().await)));
                    });
                    let (swapped, read) = told.recv_timeout(SOON / 2).expect("both end");
                    assert_eq!((swapped.ok(), read.ok()), (Some(vec![1]), Some(vec![1])));
                }
                list.push(2);
                list
            }))
        })
    };
    assert_eq!(done(outer).await??, [1, 2]);
    Ok(())
}
