//! Transactions over two stores, and clients that die in one.

use std::sync::Arc;

use avout_core::backend::{Coordinator, Store};
use avout_core::{ErrorKind, Ref, Stm};
use avout_local::Local;

use super::bench::{INLINE, SOON, client, clients, large, refused_at, roles};
use super::rig::Rigged;
use super::rig_store::RiggedStore;
use crate::fault::{CrashAt, CrashAtStore, CrashPoint, Death, Moment};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};

laws! { "stm":
    two_stores_change_as_one,
    a_store_beside_a_coordinator_in_memory_changes_as_one,
    a_client_killed_anywhere_leaves_nothing_half_done,
    over_two_stores_a_client_killed_anywhere_leaves_nothing_half_done,
    with_slots_a_client_killed_anywhere_leaves_nothing_half_done,
    a_store_that_is_not_attached_is_named,
    a_ref_is_opened_in_the_store_it_lies_in,
    atoms_lie_in_the_store_that_is_named,
}

/// Moves bytes between a list in each of two stores, from two clients at once; readers see one sum.
async fn move_between(stms: [Stm; 2], second: &Arc<dyn Store>) -> Outcome {
    const SUM: usize = 40;
    stms[0].create_ref("/a", vec![0_u8; SUM]).await?;
    stms[0].create_ref("/b", Vec::<u8>::new()).in_store(second).await?;
    let tasks = (0..4_usize).map(|task| {
        let (stm, second) = (stms[task % 2].clone(), Arc::clone(second));
        async move {
            let a = stm.open_ref::<Vec<u8>>("/a").await?;
            let b = stm.open_ref::<Vec<u8>>("/b").in_store(&second).await?;
            for round in 0..10 {
                stm.dosync(async |tx| {
                    let (at_a, at_b) = tx.get_many((&a, &b)).await?;
                    assert_eq!(at_a.len() + at_b.len(), SUM, "in a body");
                    let (from, to) = if (task + round) % 3 == 0 { (&b, &a) } else { (&a, &b) };
                    if tx.update(from, Vec::pop).await?.is_some() {
                        tx.update(to, |list| list.push(1)).await?;
                    }
                    Ok(())
                })
                .await?;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    Ok(())
}

/// A transaction over the backend's store and one in memory is atomic.
async fn two_stores_change_as_one(ctx: Ctx) -> Outcome {
    let second: Arc<dyn Store> = Local::new().store();
    move_between(clients(&ctx).await?, &second).await?;
    let here = ctx.elsewhere();
    let bytes: Arc<dyn Store> = Arc::new(RiggedStore::new(second));
    move_between(clients(&here).await?, &bytes).await
}

/// The other way round: the coordinator is in memory, and the backend's store is the second one.
async fn a_store_beside_a_coordinator_in_memory_changes_as_one(ctx: Ctx) -> Outcome {
    let (_, second) = roles(&ctx).await?;
    let local = Local::new();
    let stms =
        [ctx.stm(local.coordinator(), local.store()).build(), ctx.stm(local.coordinator(), local.store()).build()];
    move_between(stms, &second).await
}

/// What a process has: a coordinator, its home, and perhaps a second store.
struct Parts {
    ctx: Ctx,
    coordinator: Arc<dyn Coordinator>,
    home: Arc<dyn Store>,
    second: Option<Arc<dyn Store>>,
}

impl Parts {
    /// As the process has them that dies at `point`.
    fn dying(&self, point: &CrashPoint) -> Self {
        let store = |store: &Arc<dyn Store>| -> Arc<dyn Store> {
            Arc::new(CrashAtStore::new(Arc::clone(store), point.clone()))
        };
        Self {
            ctx: self.ctx.clone(),
            coordinator: Arc::new(CrashAt::new(Arc::clone(&self.coordinator), point.clone())),
            home: store(&self.home),
            second: self.second.as_ref().map(store),
        }
    }

    async fn open(&self) -> Result<(Stm, Ref<Vec<u8>>, Ref<Vec<u8>>), Failure> {
        let stm = self.ctx.stm(Arc::clone(&self.coordinator), Arc::clone(&self.home)).cache_bytes(0).build();
        let a = stm.create_or_open_ref("/a", large(0)).history(2).await?;
        let b = stm.create_or_open_ref("/b", large(0)).history(2);
        let b = match &self.second {
            Some(second) => b.in_store(second).await?,
            None => b.await?,
        };
        Ok((stm, a, b))
    }
}

async fn grow(stm: &Stm, a: &Ref<Vec<u8>>, b: &Ref<Vec<u8>>) -> Result<(), avout_core::Error> {
    stm.dosync(async |tx| {
        tx.update(a, |value| value.push(1)).await?;
        tx.update(b, |value| value.push(1)).await
    })
    .await
}

/// Kills a client at each call of a transaction in turn, before and after its effect. Each time a new client must find all of the
/// transaction or nothing, be able to read every value, and go on.
async fn kill_everywhere(parts: &Parts) -> Outcome {
    let never = CrashPoint::never();
    let (stm, a, b) = parts.dying(&never).open().await?;
    let opened = never.calls();
    grow(&stm, &a, &b).await?;
    stm.close().await;
    let calls = never.calls();
    assert!(calls > opened, "a transaction made no call");
    for at in opened..=calls + 1 {
        for moment in [Moment::Before, Moment::After] {
            let what = format!("killed at call {at} of {calls}, {moment:?}");
            let (_, a, b) = parts.open().await?;
            let before = a.get().await?.len();
            assert_eq!(before, b.get().await?.len(), "before it is {what}");
            let point = CrashPoint::new(at, moment, Death::Hang);
            let dying = parts.dying(&point);
            let victim = tokio::spawn(async move {
                let (stm, a, b) = dying.open().await?;
                grow(&stm, &a, &b).await?;
                stm.close().await;
                Ok::<_, Failure>(())
            });
            let dead = async {
                tokio::select! {
                    () = point.crashed() => {}
                    () = async { while !victim.is_finished() { tokio::time::sleep(std::time::Duration::from_millis(1)).await } } => {}
                }
            };
            within(SOON, &what, dead).await;
            victim.abort();
            let (stm, a, b) = within(SOON, &what, parts.open()).await?;
            let (at_a, at_b) = stm.dosync(async |tx| tx.get_many((&a, &b)).await).await?;
            assert_eq!(at_a, at_b, "{what}: seen in part");
            assert!(at_a.len() == before || at_a.len() == before + 1, "{what}: {} after {before}", at_a.len());
            for past in [a.history().await?, b.history().await?] {
                assert!(past.len() > 1, "{what}: {} values in the history", past.len());
            }
            within(SOON, &what, grow(&stm, &a, &b)).await?;
            assert_eq!(a.get().await?, b.get().await?, "{what}: after the next transaction");
            stm.close().await;
        }
    }
    Ok(())
}

/// The original's refs could be neither read nor written any more after a client was killed in its commit: here a client
/// that is killed at any call leaves all of its transaction or nothing, and holds up nobody.
async fn a_client_killed_anywhere_leaves_nothing_half_done(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let coordinator = Arc::new(Rigged::new(coordinator).small(INLINE));
    kill_everywhere(&Parts { ctx, coordinator, home: Arc::new(RiggedStore::new(store)), second: None }).await
}

/// The same over two stores.
async fn over_two_stores_a_client_killed_anywhere_leaves_nothing_half_done(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let coordinator = Arc::new(Rigged::new(coordinator).small(INLINE));
    let second: Arc<dyn Store> = Arc::new(RiggedStore::new(Local::new().store()));
    kill_everywhere(&Parts { ctx, coordinator, home: Arc::new(RiggedStore::new(store)), second: Some(second) }).await
}

/// The same where the engine keeps slots for lost replies.
async fn with_slots_a_client_killed_anywhere_leaves_nothing_half_done(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let coordinator = Arc::new(Rigged::new(coordinator).small(INLINE).plain());
    kill_everywhere(&Parts { ctx, coordinator, home: Arc::new(RiggedStore::new(store)), second: None }).await
}

/// A ref whose store the client does not know is a `Mismatch` that names the store's realm; with the store attached it is
/// opened.
async fn a_store_that_is_not_attached_is_named(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let second: Arc<dyn Store> = Local::new().store();
    let r = one.create_ref("/r", 5_i64).in_store(&second).await?;
    let error = refused_at(two.open_ref::<i64>("/r").await, ErrorKind::Mismatch, r.key(), "open_ref");
    assert!(error.to_string().contains(&second.realm().to_string()), "{error}");
    refused_at(two.create_or_open_ref("/r", 0_i64).await, ErrorKind::Mismatch, r.key(), "create_or_open_ref");
    two.attach(&second);
    assert_eq!(two.open_ref::<i64>("/r").await?.get().await?, 5);
    assert_eq!(two.create_or_open_ref("/r", 0_i64).await?.alter(|n| n + 1).await?, 6);
    assert_eq!(r.get().await?, 6);
    Ok(())
}

/// A ref is opened in the store it was made in, without that being named, and its values are there and nowhere else.
async fn a_ref_is_opened_in_the_store_it_lies_in(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let second: Arc<dyn Store> = Local::new().store();
    let r = stm.create_ref("/r", 5_i64).in_store(&second).await?;
    let again = stm.open_ref::<i64>("/r").await?;
    again.set(6).await?;
    assert_eq!(r.get().await?, 6);
    let held = second.versioned_state(r.key()).versions().await?;
    assert_eq!(held.len(), 2, "{held:?}");
    assert_eq!(stm.store().versioned_state(r.key()).versions().await?, []);
    let home = stm.store();
    refused_at(stm.open_ref::<i64>("/r").in_store(&home).await, ErrorKind::Mismatch, r.key(), "in the home store");
    Ok(())
}

/// An atom lies in the store that is named, and each store's atoms are its own.
async fn atoms_lie_in_the_store_that_is_named(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let second: Arc<dyn Store> = Local::new().store();
    let there = stm.create_atom("/a", 1_i64).in_store(&second).await?;
    refused_at(stm.open_atom::<i64>("/a").await, ErrorKind::NotFound, there.key(), "in the home store");
    let here = stm.create_atom("/a", 2_i64).await?;
    there.reset(3).await?;
    assert_eq!((here.get().await?, there.get().await?), (2, 3));
    Ok(())
}
