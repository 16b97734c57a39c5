//! Processes whose clock stands still for a while, as that of a machine that sleeps, while others take them for dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use avout_core::backend::tasks::Tasks;
use avout_core::{ErrorKind, Key, Stm};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::bench::{LONG, TTL, client, until_status};
use crate::law::{Ctx, Failure, Outcome, laws, together, within};
use crate::stm::bench::{SOON, refused, roles};

laws! { "lock":
    a_wait_that_timed_out_hands_on_nothing;
    timed:
    a_barrier_opens_though_a_party_was_taken_for_dead,
    a_party_that_was_taken_for_dead_has_not_arrived,
    a_waiter_that_was_taken_for_dead_is_told,
}

/// How often such a clock is set.
const STEP: Duration = Duration::from_millis(2);

/// A runtime with a clock of its own, which can be made to stand still.
struct Stalling {
    runtime: Handle,
    goes: Arc<AtomicBool>,
    end: Option<Sender<()>>,
}

impl Stalling {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
        let runtime = runtime.expect("the operating system has a thread left");
        let handle = runtime.handle().clone();
        let goes = Arc::new(AtomicBool::new(true));
        let (end, ended) = channel();
        let moves = Arc::clone(&goes);
        thread::spawn(move || {
            runtime.block_on(follow(&moves, ended));
            runtime.shutdown_background();
        });
        Self { runtime: handle, goes, end: Some(end) }
    }

    /// A client whose background is here too.
    async fn client(&self, ctx: &Ctx) -> Result<Stm, Failure> {
        let (coordinator, store) = roles(ctx).await?;
        let runtime = self.runtime.clone();
        let here = Tasks::wrapped(move |task| {
            let runtime = runtime.clone();
            // One that panics has said so.
            Box::pin(async move { drop(runtime.spawn(task).await) })
        });
        Ok(ctx.stm(coordinator, store).seed(ctx.seed).session_ttl(TTL).tasks(here).build())
    }

    fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.runtime.spawn(work)
    }

    /// Its clock stands still until the answer is dropped. All that needs no clock goes on: a sign of life that was under way has
    /// arrived by now.
    async fn stall(&self) -> Stalled<'_> {
        self.goes.store(false, Ordering::SeqCst);
        tokio::time::sleep(TTL / 4).await;
        Stalled(self)
    }
}

/// Has a paused clock follow the system's while it is to go.
async fn follow(goes: &AtomicBool, ended: Receiver<()>) {
    // A paused clock does not run ahead by itself while there is work that blocks.
    let end = tokio::task::spawn_blocking(move || ended.recv());
    let mut last = Instant::now();
    while !end.is_finished() {
        tokio::task::spawn_blocking(|| thread::sleep(STEP)).await.expect("no panic");
        let now = Instant::now();
        if goes.load(Ordering::SeqCst) {
            tokio::time::advance(now - last).await;
        }
        last = now;
    }
}

impl Drop for Stalling {
    fn drop(&mut self) {
        drop(self.end.take());
    }
}

struct Stalled<'a>(&'a Stalling);

impl Drop for Stalled<'_> {
    fn drop(&mut self) {
        self.0.goes.store(true, Ordering::SeqCst);
    }
}

/// A party of a barrier that has arrived, in a process that stalls.
async fn arrived(ctx: &Ctx, stalling: &Stalling, parties: u32) -> Result<JoinHandle<avout_core::Result<u64>>, Failure> {
    let stm = stalling.client(ctx).await?;
    let party = stalling.spawn(async move { stm.barrier("/b", parties)?.wait().await.map(|passed| passed.round) });
    let (coordinator, key) = (ctx.coordinator().await?, Key::from_stored("/.avout/barriers/here/b")?);
    within(SOON, "the first party", async {
        while coordinator.read(std::slice::from_ref(&key), None).await.expect("a read").entries[0].is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    Ok(party)
}

/// One more party comes, and goes away when the stalled one was taken for dead.
async fn look_around(ctx: &Ctx, parties: u32) -> Outcome {
    let waits = client(ctx, TTL).await?.barrier("/b", parties)?;
    refused(waits.wait_timeout(TTL * 5 / 2).await, ErrorKind::Timeout, "a barrier with two parties");
    Ok(())
}

/// So many come to the barrier, and it opens. They give the round.
async fn come(ctx: &Ctx, parties: u32, many: usize) -> Result<Vec<u64>, Failure> {
    let ctx = ctx.clone();
    let parties = (0..many).map(move |_| {
        let ctx = ctx.clone();
        async move { Ok(client(&ctx, LONG).await?.barrier("/b", parties)?.wait().await?.round) }
    });
    within(SOON, "the barrier opens", together(parties.collect::<Vec<_>>())).await
}

/// A party whose clock stood still past its time to live, and that was taken for dead, counts again when the clock goes on: the barrier
/// opens when all others have come.
async fn a_barrier_opens_though_a_party_was_taken_for_dead(ctx: Ctx) -> Outcome {
    let stalling = Stalling::new();
    let party = arrived(&ctx, &stalling, 3).await?;
    let stalled = stalling.stall().await;
    look_around(&ctx, 3).await?;
    drop(stalled);
    assert_eq!(come(&ctx, 3, 2).await?, [1, 1]);
    assert_eq!(within(SOON, "the party that was stalled", party).await.expect("no panic")?, 1);
    Ok(())
}

/// A party that was taken for dead before the round was complete does not pass with it: it has arrived for the next one.
async fn a_party_that_was_taken_for_dead_has_not_arrived(ctx: Ctx) -> Outcome {
    let stalling = Stalling::new();
    let party = arrived(&ctx, &stalling, 3).await?;
    let stalled = stalling.stall().await;
    look_around(&ctx, 3).await?;
    assert_eq!(come(&ctx, 3, 3).await?, [1, 1, 1], "three parties without the one that was taken for dead");
    drop(stalled);
    tokio::time::sleep(TTL).await;
    assert!(!party.is_finished(), "four parties have passed a barrier for three");
    assert_eq!(come(&ctx, 3, 2).await?, [2, 2]);
    assert_eq!(within(SOON, "the party that was stalled", party).await.expect("no panic")?, 2);
    Ok(())
}

/// A waiter of a condition that whoever notifies takes for dead does not wait for ever: it is told that the lock is lost, and all else that
/// its session held is lost with it.
async fn a_waiter_that_was_taken_for_dead_is_told(ctx: Ctx) -> Outcome {
    let stalling = Stalling::new();
    let stm = stalling.client(&ctx).await?;
    let (lock, other) = (stm.lock("/lock")?, stm.lock("/other")?);
    let held = stalling.spawn(async move { other.acquire().await }).await.expect("no panic")?;
    let waiter = stalling.spawn(async move {
        let guard = lock.acquire().await?;
        lock.condition("c")?.wait(guard).await.map(drop)
    });
    let notifies = client(&ctx, TTL).await?;
    let lock = notifies.lock("/lock")?;
    let (coordinator, key) = (ctx.coordinator().await?, Key::from_stored("/.avout/conditions/c/lock")?);
    within(SOON, "the waiter", async {
        while coordinator.read(std::slice::from_ref(&key), None).await.expect("a read").entries[0].is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let stalled = stalling.stall().await;
    // It sees the session, and sees it again when it has been silent for too long.
    assert!(notifies.lock("/other")?.try_acquire().await?.is_none());
    tokio::time::sleep(TTL * 3 / 2).await;
    let guard = lock.acquire().await?;
    assert_eq!(lock.condition("c")?.notify_all(&guard).await?, 0, "the only one that waits is dead");
    drop(stalled);
    refused(within(SOON, "the waiter's end", waiter).await.expect("no panic"), ErrorKind::Lost, "a wait of the dead");
    within(SOON, "the loss of the rest", held.lost()).await;
    guard.release().await?;
    within(SOON, "what the dead held", notifies.lock("/other")?.acquire()).await?.release().await?;
    Ok(())
}

/// A wait whose time was over, and that is dropped while it waits for the lock, hands on no notification: it had none.
async fn a_wait_that_timed_out_hands_on_nothing(ctx: Ctx) -> Outcome {
    let stm = client(&ctx, LONG).await?;
    let lock = stm.lock("/lock")?;
    let waiter = {
        let (lock, guard) = (lock.clone(), lock.acquire().await?);
        tokio::spawn(async move { lock.condition("c")?.wait(guard).await })
    };
    until_status(&lock, 0, 0).await;
    let held = lock.acquire().await?;
    let other = client(&ctx, LONG).await?.lock("/lock")?;
    // It stands in line before the lock is let go of: the one whose time will be over comes behind.
    let next = tokio::spawn(async move { other.acquire().await });
    until_status(&lock, 1, 1).await;
    let late = {
        let lock = lock.clone();
        let soon = Duration::from_millis(200);
        tokio::spawn(async move { lock.condition("c")?.wait_timeout(held, soon).await.map(drop) })
    };
    let guard = within(SOON, "the lock", next).await.expect("no panic")?;
    // Its time is over, and it waits for the lock.
    until_status(&lock, 1, 1).await;
    late.abort();
    until_status(&lock, 1, 0).await;
    guard.release().await?;
    let guard = within(SOON, "the lock", lock.acquire()).await?;
    assert!(!waiter.is_finished(), "nobody has notified");
    assert!(lock.condition("c")?.notify_one(&guard).await?, "it still waits to be notified");
    guard.release().await?;
    within(SOON, "the notified one", waiter).await.expect("no panic")?.release().await?;
    Ok(())
}
