//! Transactions over all stores at once.

use std::sync::Arc;
use std::time::Duration;

use avout_core::backend::{Coordinator, Store};
use avout_core::{ErrorKind, Payload, Ref, Stm};
use tokio::sync::Barrier;

use crate::fault::{Counting, CountingStore, CrashAt, CrashAtStore, CrashPoint, Death, Moment};
use crate::law::{Ctx, Failure, Outcome, laws, needs, together, within};
use crate::sample::present;
use crate::stm::bench::{SOON, eventually, refused_at, roles};
use crate::stm::rig::{Rigged, Then};
use crate::stm::rig_store::RiggedStore;

laws! { "mixed":
    a_transaction_over_all_stores_is_seen_whole,
    all_stores_are_written_at_the_same_time,
    a_transaction_costs_a_write_for_each_foreign_store_and_one_commit,
    a_client_killed_in_any_store_leaves_nothing_half_done,
    one_sweep_cleans_all_stores,
    a_store_that_is_not_there_is_named,
}

/// What one process has: a coordinator, its home, and stores beside it.
struct Parts {
    ctx: Ctx,
    coordinator: Arc<dyn Coordinator>,
    home: Arc<dyn Store>,
    stores: Vec<Arc<dyn Store>>,
}

impl Parts {
    /// With connections of its own.
    async fn new(ctx: &Ctx) -> Result<Self, Failure> {
        let (coordinator, home) = roles(ctx).await?;
        let stores = ctx.fixture.beside(&ctx.namespace).await?;
        needs(!stores.is_empty(), "there is no other store beside it")?;
        Ok(Self { ctx: ctx.clone(), coordinator, home, stores })
    }

    fn with_stores(&self, wrap: impl Fn(&Arc<dyn Store>) -> Arc<dyn Store>) -> Self {
        Self {
            ctx: self.ctx.clone(),
            coordinator: Arc::clone(&self.coordinator),
            home: wrap(&self.home),
            stores: self.stores.iter().map(wrap).collect(),
        }
    }

    /// As the process has them that dies at `point`.
    fn dying(&self, point: &CrashPoint) -> Self {
        let parts = self.with_stores(|store| Arc::new(CrashAtStore::new(Arc::clone(store), point.clone())));
        Self { coordinator: Arc::new(CrashAt::new(Arc::clone(&self.coordinator), point.clone())), ..parts }
    }

    fn stm(&self) -> Stm {
        self.ctx.stm(Arc::clone(&self.coordinator), Arc::clone(&self.home)).cache_bytes(0).seed(self.ctx.seed).build()
    }

    /// A client, and a ref at home and in each store, made if need be with this many elements.
    async fn open(&self, elements: usize) -> Result<(Stm, Vec<Ref<Vec<u8>>>), avout_core::Error> {
        let stm = self.stm();
        let value = vec![1_u8; elements];
        let mut refs = vec![stm.create_or_open_ref("/home", value.clone()).history(2).await?];
        for (n, store) in self.stores.iter().enumerate() {
            let r = stm.create_or_open_ref(format!("/in/{n}"), value.clone()).history(2);
            refs.push(r.in_store(store).await?);
        }
        Ok((stm, refs))
    }
}

/// Adds an element to all, as one transaction.
async fn grow(stm: &Stm, refs: &[Ref<Vec<u8>>]) -> Result<(), avout_core::Error> {
    stm.dosync(async |tx| {
        for r in refs {
            tx.update(r, |value| value.push(1)).await?;
        }
        Ok(())
    })
    .await
}

async fn lengths(stm: &Stm, refs: &[Ref<Vec<u8>>]) -> Result<Vec<usize>, avout_core::Error> {
    let values = stm.dosync(async |tx| tx.get_many(refs).await).await?;
    Ok(values.iter().map(Vec::len).collect())
}

/// While three clients move elements between refs of all stores, every body sees all of them, and so does every reader.
async fn a_transaction_over_all_stores_is_seen_whole(ctx: Ctx) -> Outcome {
    const EACH: usize = 8;
    let first = Parts::new(&ctx).await?;
    let (stm, refs) = first.open(EACH).await?;
    let sum = EACH * refs.len();
    let mut clients = Vec::new();
    for task in 0..3_usize {
        let (stm, refs) = Parts::new(&ctx).await?.open(EACH).await?;
        clients.push(async move {
            for round in 0..6 {
                let (from, to) = (&refs[(task + round) % refs.len()], &refs[(task * 2 + round + 1) % refs.len()]);
                stm.dosync(async |tx| {
                    let seen: usize = tx.get_many(&refs).await?.iter().map(Vec::len).sum();
                    assert_eq!(seen, sum, "in a body");
                    if tx.update(from, Vec::pop).await?.is_some() {
                        tx.update(to, |list| list.push(1)).await?;
                    }
                    Ok(())
                })
                .await?;
                assert_eq!(lengths(&stm, &refs).await?.iter().sum::<usize>(), sum, "in a reader");
            }
            stm.close().await;
            Ok(())
        });
    }
    together(clients).await?;
    assert_eq!(lengths(&stm, &refs).await?.iter().sum::<usize>(), sum, "in the end");
    for (r, store) in refs[1..].iter().zip(&first.stores) {
        let payload = present(&*first.coordinator, r.key()).await?.record.payload.clone();
        assert!(matches!(payload, Payload::Stored { realm, .. } if realm == store.realm()), "{payload:?}");
    }
    Ok(())
}

/// A transaction writes its values to all stores before any of them has answered.
async fn all_stores_are_written_at_the_same_time(ctx: Ctx) -> Outcome {
    let parts = Parts::new(&ctx).await?;
    parts.open(1).await?;
    let all = Arc::new(Barrier::new(parts.stores.len()));
    let meeting = parts.with_stores(|store| Arc::new(RiggedStore::new(Arc::clone(store)).meeting(Arc::clone(&all))));
    let (stm, refs) = meeting.open(1).await?;
    within(SOON, "all stores are written at once", grow(&stm, &refs)).await?;
    assert_eq!(lengths(&stm, &refs).await?, vec![2; refs.len()]);
    Ok(())
}

/// A transaction that changes a ref at home and one in each store makes one read, one write of a value in each store, none at home,
/// and one commit.
async fn a_transaction_costs_a_write_for_each_foreign_store_and_one_commit(ctx: Ctx) -> Outcome {
    let parts = Parts::new(&ctx).await?;
    let coordinator = Arc::new(Counting::new(Arc::clone(&parts.coordinator)));
    let home = Arc::new(CountingStore::new(Arc::clone(&parts.home)));
    let stores: Vec<_> = parts.stores.iter().map(|store| Arc::new(CountingStore::new(Arc::clone(store)))).collect();
    let counted = Parts {
        ctx: ctx.clone(),
        coordinator: Arc::clone(&coordinator) as _,
        home: Arc::clone(&home) as _,
        stores: stores.iter().map(|store| Arc::clone(store) as _).collect(),
    };
    let (stm, refs) = counted.open(1).await?;
    for round in 0..3 {
        coordinator.take();
        home.take();
        for store in &stores {
            store.take();
        }
        stm.dosync(async |tx| {
            for (r, mut value) in refs.iter().zip(tx.get_many(&refs).await?) {
                value.push(1);
                tx.set(r, value).await?;
            }
            Ok(())
        })
        .await?;
        let counts = coordinator.counts();
        assert_eq!((counts.reads, counts.commits, counts.requests()), (1, 1, 2), "round {round}: {counts:?}");
        assert_eq!(home.counts().value_writes, 0, "round {round}, at home: {:?}", home.counts());
        for (n, store) in stores.iter().enumerate() {
            let counts = store.counts();
            let others = counts.inits + counts.state_reads + counts.state_writes + counts.lists;
            // It reads the value that it changes, since these clients keep none in memory.
            let calls = (counts.value_writes, counts.value_reads, others);
            assert_eq!(calls, (1, 1, 0), "round {round}, store {n}: {counts:?}");
        }
    }
    assert_eq!(lengths(&stm, &refs).await?, vec![4; refs.len()]);
    Ok(())
}

/// A client that is killed at any call, to the coordinator or to any store, leaves all of its transaction or nothing. Another
/// client reads every value, of the past too, and goes on; after a sweep nothing is left of the dead.
async fn a_client_killed_in_any_store_leaves_nothing_half_done(ctx: Ctx) -> Outcome {
    let parts = Parts::new(&ctx).await?;
    let of_the_dying = Parts::new(&ctx).await?;
    let never = CrashPoint::never();
    let (stm, refs) = of_the_dying.dying(&never).open(1).await?;
    let opened = never.calls();
    grow(&stm, &refs).await?;
    stm.close().await;
    let calls = never.calls();
    assert!(calls > opened + parts.stores.len() as u64, "a transaction made {calls} calls");
    let (looker, of_looker) = parts.open(1).await?;
    for at in opened..=calls + 1 {
        // Each call is the last one in some runs before its effect, in others after it.
        let moment = if at.wrapping_add(ctx.seed).is_multiple_of(2) { Moment::Before } else { Moment::After };
        let what = format!("killed at call {at} of {calls}, {moment:?}");
        let before = lengths(&looker, &of_looker).await?;
        let point = CrashPoint::new(at, moment, Death::Hang);
        let dying = of_the_dying.dying(&point);
        let victim = tokio::spawn(async move {
            let (stm, refs) = dying.open(1).await?;
            grow(&stm, &refs).await?;
            stm.close().await;
            Ok::<_, Failure>(())
        });
        within(SOON, &what, async {
            while !point.has_crashed() && !victim.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        victim.abort();
        let seen = lengths(&looker, &of_looker).await?;
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{what}: seen in part: {seen:?}");
        assert!(seen[0] == before[0] || seen[0] == before[0] + 1, "{what}: {seen:?} after {before:?}");
        for r in &of_looker {
            assert!(!r.history().await?.is_empty(), "{what}: the past of {}", r.key());
        }
        within(SOON, &what, grow(&looker, &of_looker)).await?;
        let after = lengths(&looker, &of_looker).await?;
        assert_eq!(after, vec![seen[0] + 1; after.len()], "{what}: after the next transaction");
    }
    looker.close().await;
    let (sweeper, of_looker) = parts.open(1).await?;
    let report = sweeper.sweep().await?;
    assert_eq!(report.skipped, [], "{report:?}");
    nothing_is_left(&parts, &of_looker).await
}

async fn nothing_is_left(parts: &Parts, refs: &[Ref<Vec<u8>>]) -> Outcome {
    for (r, store) in refs.iter().zip(std::iter::once(&parts.home).chain(&parts.stores)) {
        let held = store.versioned_state(r.key()).versions().await?;
        let mut pointed: Vec<_> =
            present(&*parts.coordinator, r.key()).await?.record.stored().map(|(_, version)| version).collect();
        pointed.sort_unstable();
        assert_eq!(held, pointed, "what the store holds of {}, and what its record points at", r.key());
    }
    Ok(())
}

/// One sweep deletes what dead clients left in any of the stores, and leaves what is in use.
async fn one_sweep_cleans_all_stores(ctx: Ctx) -> Outcome {
    let parts = Parts::new(&ctx).await?;
    let (stm, refs) = parts.open(3).await?;
    grow(&stm, &refs).await?;
    for _ in 0..2 {
        let own = Parts::new(&ctx).await?;
        let rig = Arc::new(Rigged::new(Arc::clone(&own.coordinator)));
        let (dying, of_dying) = Parts { coordinator: Arc::clone(&rig) as _, ..own }.open(3).await?;
        // It dies when its values are written, and before its commit is made.
        rig.commits(Then::Hang);
        let before = rig.calls();
        tokio::select! {
            done = grow(&dying, &of_dying) => panic!("a commit that hangs is done: {done:?}"),
            () = eventually("the commit is sent", || dying.stats().commits > 0 && rig.calls() > before + 1) => {}
        }
    }
    let before = lengths(&stm, &refs).await?;
    let report = stm.sweep().await?;
    assert_eq!(report.skipped, [], "{report:?}");
    for store in &parts.stores {
        assert_eq!(report.values.get(&store.realm()), Some(&2), "{report:?}");
    }
    nothing_is_left(&parts, &refs).await?;
    assert_eq!(lengths(&stm, &refs).await?, before);
    grow(&stm, &refs).await?;
    Ok(())
}

/// A ref whose store is not attached is a `Mismatch` that names the store's realm, and is opened once the store is attached,
/// without being told where it lies. A value that its store has lost is `Corrupt`, with key, realm and version, and harms no
/// other ref.
async fn a_store_that_is_not_there_is_named(ctx: Ctx) -> Outcome {
    let parts = Parts::new(&ctx).await?;
    let (_, refs) = parts.open(2).await?;
    let stm = parts.stm();
    for (r, store) in refs[1..].iter().zip(&parts.stores) {
        let error = refused_at(stm.open_ref::<Vec<u8>>(r.key()).await, ErrorKind::Mismatch, r.key(), "not attached");
        assert!(error.to_string().contains(&store.realm().to_string()), "{error}");
    }
    parts.stores.iter().for_each(|store| stm.attach(store));
    for (r, store) in refs[1..].iter().zip(&parts.stores) {
        let opened = stm.open_ref::<Vec<u8>>(r.key()).await?;
        assert_eq!(opened.get().await?, [1, 1]);
        let Payload::Stored { version, .. } = present(&*parts.coordinator, r.key()).await?.record.payload.clone()
        else {
            panic!("{} is not in its store", r.key());
        };
        store.versioned_state(r.key()).delete_state_at(&version).await?;
        let error = refused_at(opened.get().await, ErrorKind::Corrupt, r.key(), "a lost value");
        let text = error.to_string();
        assert!(text.contains(&store.realm().to_string()) && text.contains(&version.to_string()), "{text}");
        assert_eq!(refs[0].get().await?, [1, 1], "another ref");
        opened.set(vec![5]).await?;
        assert_eq!(r.get().await?, [5], "replaced");
    }
    Ok(())
}
