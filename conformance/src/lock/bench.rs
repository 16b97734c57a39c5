//! What laws of locks set up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::{Lock, Stm};

use crate::fault::Counting;
use crate::law::{Ctx, Failure, within};
use crate::stm::bench::{SOON, roles};
use crate::stm::rig::{Rigged, Then};

/// How long a session lives whose end a law waits for: long enough for a machine that is busy.
pub(crate) const TTL: Duration = Duration::from_millis(1200);

/// How long a session lives that is to outlive the law.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// A new client whose sessions live so long.
pub(crate) async fn client(ctx: &Ctx, ttl: Duration) -> Result<Stm, Failure> {
    let (coordinator, store) = roles(ctx).await?;
    Ok(ctx.stm(coordinator, store).seed(ctx.seed).session_ttl(ttl).build())
}

/// A new client that outlives the law, and whose commits take this long at least.
pub(crate) async fn slow(ctx: &Ctx, commit: Duration) -> Result<Stm, Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let rig = Arc::new(Rigged::new(coordinator).slow(commit));
    Ok(ctx.stm(rig, store).seed(ctx.seed).session_ttl(LONG).build())
}

/// A new client that outlives the law, and what counts its requests.
pub(crate) async fn counted(ctx: &Ctx) -> Result<(Stm, Arc<Counting>), Failure> {
    let (coordinator, store) = roles(ctx).await?;
    let counting = Arc::new(Counting::new(coordinator));
    Ok((ctx.stm(Arc::clone(&counting) as _, store).seed(ctx.seed).session_ttl(LONG).build(), counting))
}

/// A client that can be cut off from the store, as if its process were paused or dead.
pub(crate) struct Mortal {
    pub(crate) stm: Stm,
    pub(crate) rig: Arc<Rigged>,
}

impl Mortal {
    pub(crate) async fn new(ctx: &Ctx, ttl: Duration) -> Result<Self, Failure> {
        let (coordinator, store) = roles(ctx).await?;
        let rig = Arc::new(Rigged::new(coordinator));
        let stm = ctx.stm(Arc::clone(&rig) as _, store).seed(ctx.seed).session_ttl(ttl).build();
        Ok(Self { stm, rig })
    }

    pub(crate) fn die(&self) -> Instant {
        self.rig.all(Then::Hang);
        Instant::now()
    }
}

/// Waits until so many hold the lock and so many wait for it.
pub(crate) async fn until_status(lock: &Lock, held: usize, waiting: usize) {
    within(SOON, &format!("{held} hold {} and {waiting} wait", lock.key()), async {
        loop {
            let status = lock.status().await.expect("the lock's status");
            if (status.held, status.waiting) == (held, waiting) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}
