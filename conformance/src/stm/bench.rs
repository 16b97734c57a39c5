//! What laws of transactions set up: clients, wrappers and ways to get between.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use avout_core::backend::{Coordinator, Store};
use avout_core::{Error, ErrorKind, Key, Ref, Stm};
use avout_local::Local;

use super::rig::Rigged;
use super::rig_store::RiggedStore;
use crate::fault::{Counting, CountingStore, LossPlan, LossyReplies};
use crate::law::{Ctx, Failure, within};

/// How long anything may take that is expected to end. It decides nothing when all is well.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The coordinator and the store of a new client. A backend that has one role only is completed from memory.
pub(crate) async fn roles(ctx: &Ctx) -> Result<(Arc<dyn Coordinator>, Arc<dyn Store>), Failure> {
    let backend = ctx.open().await?;
    let local = Local::named(&ctx.namespace);
    let coordinator = backend.coordinator.unwrap_or_else(|| local.coordinator());
    let store = backend.store.unwrap_or_else(|| local.store());
    Ok((coordinator, store))
}

/// A new client.
pub(crate) async fn client(ctx: &Ctx) -> Result<Stm, Failure> {
    let (coordinator, store) = roles(ctx).await?;
    Ok(ctx.stm(coordinator, store).seed(ctx.seed).build())
}

/// Two new clients of one namespace.
pub(crate) async fn clients(ctx: &Ctx) -> Result<[Stm; 2], Failure> {
    Ok([client(ctx).await?, client(ctx).await?])
}

/// A client, and what counts its requests to the coordinator.
pub(crate) async fn counted(ctx: &Ctx) -> Result<(Stm, Arc<Counting>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let counting = Arc::new(Counting::new(coordinator));
    Ok((ctx.stm(Arc::clone(&counting) as _, store).seed(ctx.seed).build(), counting))
}

/// A client whose coordinator is rigged.
pub(crate) async fn rigged(ctx: &Ctx, rig: impl FnOnce(Rigged) -> Rigged) -> Result<(Stm, Arc<Rigged>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rigged = Arc::new(rig(Rigged::new(coordinator)));
    Ok((ctx.stm(Arc::clone(&rigged) as _, store).seed(ctx.seed).build(), rigged))
}

/// How many bytes the records of a [`small`] client take.
pub(crate) const INLINE: usize = 64;

/// A client whose values go to the store if they have more than [`INLINE`] bytes.
pub(crate) async fn small(ctx: &Ctx) -> Result<(Stm, Arc<Rigged>, Arc<RiggedStore>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rigged = Arc::new(Rigged::new(coordinator).small(INLINE));
    let store = Arc::new(RiggedStore::new(store));
    let stm = ctx.stm(Arc::clone(&rigged) as _, Arc::clone(&store) as _).seed(ctx.seed).build();
    Ok((stm, rigged, store))
}

/// A client as if its stores were outside the process, and what rigs and counts its requests.
pub(crate) struct Outside {
    pub(crate) stm: Stm,
    pub(crate) rig: Arc<Rigged>,
    pub(crate) counts: Arc<Counting>,
    pub(crate) store: Arc<RiggedStore>,
    pub(crate) store_counts: Arc<CountingStore>,
}

/// A client as if its stores were outside the process, with some more done to them.
pub(crate) async fn outside(
    ctx: &Ctx,
    rig: impl FnOnce(Rigged) -> Rigged,
    rig_store: impl FnOnce(RiggedStore) -> RiggedStore,
) -> Result<Outside, Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rig = Arc::new(rig(Rigged::new(coordinator).small(1 << 14)));
    let counts = Arc::new(Counting::new(Arc::clone(&rig) as _));
    let store = Arc::new(rig_store(RiggedStore::new(store)));
    let store_counts = Arc::new(CountingStore::new(Arc::clone(&store) as _));
    let stm = ctx.stm(Arc::clone(&counts) as _, Arc::clone(&store_counts) as _).seed(ctx.seed).build();
    Ok(Outside { stm, rig, counts, store, store_counts })
}

/// A gate that is closed: the future ends when it is opened, or when what opens it is dropped.
pub(crate) fn gate() -> (tokio::sync::oneshot::Sender<()>, impl Future<Output = ()> + Send + 'static) {
    let (open, opened) = tokio::sync::oneshot::channel();
    (open, async move { drop(opened.await) })
}

/// Lets those who are ready to go on do so, and takes no time for it: on a busy machine they may not come to it.
pub(crate) async fn let_others_run_at_once() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

/// Lets those who are ready to go on do so, on a busy machine too.
pub(crate) async fn let_others_run() {
    for _ in 0..5 {
        let_others_run_at_once().await;
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
}

/// A value that does not fit into a [`small`] client's record.
pub(crate) fn large(seed: u8) -> Vec<u8> {
    (0..INLINE * 4).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// A client whose replies are lost by `plan`.
pub(crate) async fn lossy(ctx: &Ctx, plan: LossPlan) -> Result<(Stm, Arc<LossyReplies>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let lossy = Arc::new(LossyReplies::new(coordinator, plan));
    Ok((ctx.stm(Arc::clone(&lossy) as _, store).seed(ctx.seed).build(), lossy))
}

/// Does this outside the transaction whose body calls it, as another task would.
pub(crate) async fn aside<T: Send + 'static>(what: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(what).await {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Sets a ref from outside the transaction whose body calls it.
pub(crate) async fn set_aside(r: &Ref<i64>, value: i64) {
    let r = r.clone();
    aside(async move { r.set(value).await.expect("another transaction's write") }).await;
}

/// Adds to a ref from outside the transaction whose body calls it.
pub(crate) async fn add_aside(r: &Ref<i64>, value: i64) {
    let r = r.clone();
    aside(async move { r.alter(|n| n + value).await.expect("another transaction's write") }).await;
}

/// The error, which must be of this kind.
#[track_caller]
pub(crate) fn refused<T>(done: Result<T, Error>, kind: ErrorKind, what: &str) -> Error {
    match done {
        Err(error) if error.kind() == kind => error,
        Err(error) => panic!("{what}: {kind:?} was expected, and it is {error:?}"),
        Ok(_) => panic!("{what}: {kind:?} was expected, and it succeeded"),
    }
}

/// As [`refused`], and the error names the key.
#[track_caller]
pub(crate) fn refused_at<T>(done: Result<T, Error>, kind: ErrorKind, key: &Key, what: &str) -> Error {
    let error = refused(done, kind, what);
    assert_eq!(error.key(), Some(key), "{what}: {error:?} names another key");
    error
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    within(SOON, what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Counts runs of a body.
#[derive(Default)]
pub(crate) struct Runs(AtomicU32);

impl Runs {
    /// Counts one more, and gives its number, from 1.
    pub(crate) fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}
