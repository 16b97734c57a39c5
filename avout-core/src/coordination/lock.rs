use std::time::Duration;

use tokio::time::Instant;

use super::claim::{Hold, Patience};
use super::grant_queue::{GrantQueue, Request, Status};
use super::guard::guard;
use super::session_manager::SessionManager;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::Stm;
use crate::protocol::Key;

/// A lock with at most one holder at a time, over all processes; made by [`Stm::lock`](crate::Stm::lock).
///
/// It is fair: first come, first served. If its holder dies, or is paused for longer than its session lives
/// ([`session_ttl`](crate::StmBuilder::session_ttl), 10 s by default), the holder loses it, and the first waiter has it
/// within twice that time. A release wakes one waiter, however many there are. Without contention, acquiring and
/// releasing take two commits.
///
/// **A lock alone does not protect a write**: a holder that was paused may go on to write after it lost the lock. Bind
/// writes to the guard with [`Tx::require`](crate::Tx::require), or hand its [token](LockGuard::token) to a store that
/// compares it. Often a transaction needs no lock at all; `docs/coordination.md` tells when.
///
/// The lock is not reentrant: a task that asks for a lock it holds waits until its guard is released, possibly for
/// ever. The request is not refused, since another task may have the guard and release it. A wait of more than a second
/// is logged (`tracing`, as a warning), with the key, the holder and how long: "a guard of this same client, acquired
/// 1.0s ago by this very task". It is logged again after two seconds, four, eight and so on.
///
/// # Examples
/// ```
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let count = stm.create_ref("/count", 0_i64).await?;
/// let lock = stm.lock("/migration")?;
///
/// let guard = lock.acquire().await?;
/// assert!(lock.try_acquire().await?.is_none());
/// stm.dosync(async |tx| {
///     tx.require(&guard).await?; // commits only while the guard is held
///     tx.alter(&count, |n| n + 1).await
/// }).await?;
/// guard.release().await?;
///
/// let again = lock.acquire_timeout(Duration::from_secs(5)).await?;
/// assert!(again.is_held());
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "distributed-lock")]
pub struct Lock(pub(super) GrantQueue);

/// Holds a [`Lock`]. It is released when this is dropped, in the background, or surely by [`release`](Self::release).
#[must_use = "the lock is released when its guard is dropped"]
pub struct LockGuard(pub(super) Hold);

guard!(LockGuard);

impl Stm {
    /// The lock with this name. It makes no request. Refs of the same name are independent of it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, or one of more than 480 bytes.
    #[doc(alias = "init-lock")]
    pub fn lock(&self, key: impl AsRef<str>) -> Result<Lock> {
        Ok(Lock(GrantQueue::new(SessionManager::of(self), "locks", key, 1)?))
    }
}

impl Lock {
    /// The lock's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// Waits for the lock, for as long as it takes, through outages of the store.
    ///
    /// # Errors
    /// [`Nested`](ErrorKind::Nested) inside the body of a transaction. [`Closed`](ErrorKind::Closed): the client was
    /// closed, possibly during the wait. Errors of the store that do not pass, such as [`Denied`](ErrorKind::Denied)
    /// and [`Full`](ErrorKind::Full).
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped the request is withdrawn in the background, or by others if this process dies.
    pub async fn acquire(&self) -> Result<LockGuard> {
        match self.ask(Patience::Unlimited).await? {
            Some(guard) => Ok(guard),
            None => unreachable!("whoever waits without limit does not give up"),
        }
    }

    /// Takes the lock if it is free; `None`: it is not.
    ///
    /// A client finds the lock of a dead holder free only if it saw that holder at least a session's time to live
    /// before. A program that asks once and ends should wait: [`acquire_timeout`](Self::acquire_timeout) with twice
    /// that time.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), and [`Unavailable`](ErrorKind::Unavailable) if the store does not answer within the
    /// client's deadline.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[doc(alias = "tryLock")]
    pub async fn try_acquire(&self) -> Result<Option<LockGuard>> {
        let hold = self.0.acquire(Request::of(1), Patience::Now).await.map_err(|error| error.during("try_acquire"))?;
        Ok(hold.map(LockGuard))
    }

    /// The same as [`acquire`](Self::acquire) with a time limit.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout): it was not free in time. If the store cannot be reached, this error comes up to
    /// a second later. Otherwise as [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub async fn acquire_timeout(&self, timeout: Duration) -> Result<LockGuard> {
        self.ask(Patience::within(timeout)).await?.ok_or_else(|| timed_out(&self.0.key))
    }

    /// The numbers of holders and waiters at one moment, for operators and tests: they may have changed when you read
    /// them.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn status(&self) -> Result<Status> {
        self.0.status().await
    }

    /// Removes the lock's records from the store. If it is made again its tokens go on growing.
    ///
    /// # Errors
    /// [`Contended`](ErrorKind::Contended): the lock is held or waited for.
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn destroy(&self) -> Result<()> {
        self.0.manager.engine.begin("destroy")?;
        self.0.destroy().await
    }

    async fn ask(&self, patience: Patience) -> Result<Option<LockGuard>> {
        let queue = &self.0;
        let hold = queue.acquire(Request::of(1), patience).await.map_err(|error| error.during("acquire"))?;
        Ok(hold.map(LockGuard))
    }
}

impl Patience {
    pub(super) fn within(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Unlimited, Self::Until)
    }
}

pub(super) fn timed_out(key: &Key) -> Error {
    Error::new(ErrorKind::Timeout, "it was not free in time").at(key).during("acquire")
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lock").field(&self.0.key).finish()
    }
}
