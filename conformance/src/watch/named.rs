//! Watches with names: `add_watch` and `remove_watch`.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use avout_core::{Change, ErrorKind};

use crate::law::{Ctx, Outcome, laws};
use crate::stm::bench::{client, clients, eventually, rigged};

laws! { "watch":
    a_named_watch_is_called_with_each_change,
    a_removed_watch_is_not_called_again,
    a_removed_watch_is_not_called_with_what_waits,
    a_watch_of_the_same_name_is_replaced,
    a_panic_in_a_watch_does_not_end_it,
    a_slow_watch_holds_up_no_other,
    a_dropped_handle_ends_its_watches,
    a_named_watch_does_not_spin_on_an_error,
    named_watches_of_atoms_work_alike,
}

/// What watches were called with.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<i64>>>);

impl Told {
    fn watch(&self) -> impl Fn(&Change<i64>) + Send + Sync + 'static {
        let told = self.clone();
        move |change| told.0.lock().expect("no panic under it").extend(change.new)
    }

    fn all(&self) -> Vec<i64> {
        self.0.lock().expect("no panic under it").clone()
    }

    async fn is(&self, expected: &[i64]) {
        eventually(&format!("calls with {expected:?}"), || self.all().len() >= expected.len()).await;
        assert_eq!(self.all(), expected);
    }
}

/// A named watch is called once with each committed change, of any client.
async fn a_named_watch_is_called_with_each_change(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).history(100).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let (first, second) = (Told::default(), Told::default());
    r.add_watch("first", first.watch()).await?;
    r.clone().add_watch("second", second.watch()).await?;
    for n in 1..=50 {
        if n % 2 == 0 { &r } else { &of_two }.set(n).await?;
    }
    let expected: Vec<i64> = (1..=50).collect();
    first.is(&expected).await;
    second.is(&expected).await;
    Ok(())
}

/// After `remove_watch` the watch is not called any more; it tells whether there was one.
async fn a_removed_watch_is_not_called_again(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let (removed, kept) = (Told::default(), Told::default());
    r.add_watch("removed", removed.watch()).await?;
    r.add_watch("kept", kept.watch()).await?;
    r.set(1).await?;
    removed.is(&[1]).await;
    assert!(r.clone().remove_watch("removed"));
    assert!(!r.remove_watch("removed"), "it was removed before");
    assert!(!r.remove_watch("never"));
    r.set(2).await?;
    kept.is(&[1, 2]).await;
    removed.is(&[1]).await;
    Ok(())
}

/// A gate that a watch waits at.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    /// Blocks until it is open. The runtime is told, or nobody might be left who hears the network.
    fn pass(&self) {
        tokio::task::block_in_place(|| {
            let (open, opened) = &*self.0;
            let open = open.lock().expect("no panic under it");
            drop(opened.wait_while(open, |open| !*open).expect("no panic under it"));
        });
    }

    fn open(&self) {
        *self.0.0.lock().expect("no panic under it") = true;
        self.0.1.notify_all();
    }
}

/// A watch that is removed during a call is not called with the changes that wait behind it.
async fn a_removed_watch_is_not_called_with_what_waits(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).history(50).await?;
    let (told, gate) = (Told::default(), Gate::default());
    let (inner, at_gate) = (told.watch(), gate.clone());
    r.add_watch("w", move |change: &Change<i64>| {
        inner(change);
        at_gate.pass();
    })
    .await?;
    for n in 1..=3 {
        r.set(n).await?;
    }
    eventually("the first call", || !told.all().is_empty()).await;
    for n in 4..=20 {
        r.set(n).await?;
    }
    r.remove_watch("w");
    gate.open();
    let after = Told::default();
    r.add_watch("after", after.watch()).await?;
    r.set(21).await?;
    after.is(&[21]).await;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(told.all(), [1], "calls after the removal");
    Ok(())
}

/// A watch takes the place of the one that had its name.
async fn a_watch_of_the_same_name_is_replaced(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let (old, new) = (Told::default(), Told::default());
    r.add_watch("w", old.watch()).await?;
    r.set(1).await?;
    old.is(&[1]).await;
    r.add_watch("w", new.watch()).await?;
    r.set(2).await?;
    new.is(&[2]).await;
    old.is(&[1]).await;
    Ok(())
}

/// A watch that panics is called with the next change all the same, and no other one notices.
async fn a_panic_in_a_watch_does_not_end_it(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let (panics, other) = (Told::default(), Told::default());
    let inner = panics.watch();
    r.add_watch("panics", move |change: &Change<i64>| {
        inner(change);
        resume_unwind(Box::new("a panic of a watch, by plan"));
    })
    .await?;
    r.add_watch("other", other.watch()).await?;
    for n in 1..=3 {
        r.set(n).await?;
    }
    panics.is(&[1, 2, 3]).await;
    other.is(&[1, 2, 3]).await;
    Ok(())
}

/// A watch that does not return holds up neither other watches nor transactions.
async fn a_slow_watch_holds_up_no_other(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).history(50).await?;
    let (slow, fast, gate) = (Told::default(), Told::default(), Gate::default());
    let (inner, at_gate) = (slow.watch(), gate.clone());
    r.add_watch("slow", move |change: &Change<i64>| {
        at_gate.pass();
        inner(change);
    })
    .await?;
    r.add_watch("fast", fast.watch()).await?;
    let expected: Vec<i64> = (1..=20).collect();
    for n in &expected {
        r.set(*n).await?;
    }
    fast.is(&expected).await;
    assert!(slow.all().is_empty());
    gate.open();
    slow.is(&expected).await;
    Ok(())
}

/// When the last clone of a handle is dropped its watches end, and what they held is released.
async fn a_dropped_handle_ends_its_watches(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let watched = stm.open_ref::<i64>("/r").await?;
    let (told, held) = (Told::default(), Arc::new(()));
    let (inner, holds) = (told.watch(), Arc::clone(&held));
    watched
        .add_watch("w", move |change: &Change<i64>| {
            let _ = &holds;
            inner(change);
        })
        .await?;
    let clone = watched.clone();
    drop(watched);
    r.set(1).await?;
    told.is(&[1]).await;
    drop(clone);
    eventually("the watch's end", || Arc::strong_count(&held) == 1).await;
    r.set(2).await?;
    assert_eq!(told.all(), [1]);
    Ok(())
}

/// A watch whose ref or atom cannot be read does not ask again and again without pause, and ends when it is removed.
async fn a_named_watch_does_not_spin_on_an_error(ctx: Ctx) -> Outcome {
    let writer = client(&ctx).await?;
    let r = writer.create_ref("/r", 0_i64).await?;
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let told = Told::default();
    let watched = stm.open_ref::<i64>("/r").await?;
    watched.add_watch("w", told.watch()).await?;
    rig.poison(Some(r.key().clone()));
    let before = rig.calls();
    r.set(1).await?;
    eventually("the look at the corrupt record", || rig.calls() > before).await;
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let asked = rig.calls() - before;
    rig.poison(None);
    assert!(asked < 50, "{asked} requests in 50 ms");
    r.set(2).await?;
    told.is(&[1, 2]).await;

    // An atom that another client has made again with a type that this one cannot read.
    let atom = writer.create_atom("/a", 0_i64).await?;
    let told_of_atom = Told::default();
    atom.add_watch("w", told_of_atom.watch()).await?;
    atom.destroy().await?;
    let text = writer.create_atom("/a", "x".to_owned()).await?;
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    text.destroy().await?;
    writer.create_atom("/a", 7_i64).await?;
    eventually("the last value", || told_of_atom.all().last() == Some(&7)).await;
    assert!(atom.remove_watch("w"));
    assert_eq!(text.get().await.map_err(|error| error.kind()), Err(ErrorKind::Mismatch));
    Ok(())
}

/// Named watches of atoms are added, called, replaced and removed in the same way.
async fn named_watches_of_atoms_work_alike(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let atom = one.create_atom("/a", 0_i64).await?;
    let of_two = two.open_atom::<i64>("/a").await?;
    let (first, second) = (Told::default(), Told::default());
    let panicked = Arc::new(AtomicBool::new(false));
    let (inner, flag) = (first.watch(), Arc::clone(&panicked));
    atom.add_watch("w", move |change: &Change<i64>| {
        inner(change);
        if !flag.swap(true, Ordering::SeqCst) {
            resume_unwind(Box::new("a panic of a watch, by plan"));
        }
    })
    .await?;
    of_two.reset(1).await?;
    first.is(&[1]).await;
    atom.reset(2).await?;
    first.is(&[1, 2]).await;
    atom.add_watch("w", second.watch()).await?;
    of_two.reset(3).await?;
    second.is(&[3]).await;
    assert!(atom.remove_watch("w"));
    atom.reset(4).await?;
    first.is(&[1, 2]).await;
    second.is(&[3]).await;
    Ok(())
}
