use std::time::Duration;

use super::claim::{Hold, Patience};
use super::grant_queue::{GrantQueue, Request, Status};
use super::guard::guard;
use super::lock::timed_out;
use super::session_manager::SessionManager;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::Result;
use crate::handles::Stm;
use crate::protocol::Key;

/// A lock that many can hold to read, or one to write, over all processes; made by [`Stm::rw_lock`](crate::Stm::rw_lock).
///
/// Readers and writers are served in the order in which they came: a reader that comes after a waiting writer waits
/// behind it, so that writers are not starved. Otherwise it is like a [`Lock`](crate::Lock), whose page tells of
/// sessions, tokens and [`Tx::require`](crate::Tx::require). Readers that are let in together have the same token.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let schema = stm.rw_lock("/schema")?;
/// let one = schema.read().await?;
/// let two = schema.try_read().await?.expect("readers do not exclude each other");
/// assert!(schema.try_write().await?.is_none());
/// one.release().await?;
/// two.release().await?;
///
/// let writer = schema.write().await?;
/// let reader = writer.downgrade().await?; // nobody wrote in between
/// assert!(schema.try_read().await?.is_some());
/// # drop(reader);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[doc(alias = "distributed-read-write-lock")]
#[doc(alias = "ReadWriteLock")]
pub struct RwLock(GrantQueue);

/// Holds a [`RwLock`] to read. It is released when this is dropped, in the background, or surely by [`release`](Self::release).
#[must_use = "the lock is released when its guard is dropped"]
pub struct ReadGuard(Hold);

/// Holds a [`RwLock`] to write. It is released when this is dropped, in the background, or surely by [`release`](Self::release).
#[must_use = "the lock is released when its guard is dropped"]
pub struct WriteGuard(Hold);

guard!(ReadGuard);
guard!(WriteGuard);

/// A writer takes all.
const ALL: u32 = u32::MAX;

impl Stm {
    /// The lock for readers and writers with this name. It makes no request. Refs and other locks of the same name are
    /// independent of it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, or one of more than 480 bytes.
    #[doc(alias = "init-rw-lock")]
    pub fn rw_lock(&self, key: impl AsRef<str>) -> Result<RwLock> {
        Ok(RwLock(GrantQueue::new(SessionManager::of(self), "rw_locks", key, ALL)?))
    }
}

macro_rules! acquire {
    ($what:literal, $guard:ident, $take:expr, $acquire:ident, $try:ident, $timeout:ident) => {
        #[doc = concat!("Waits until the lock can be held ", $what, ", for as long as it takes.")]
        ///
        /// # Errors
        /// As [`Lock::acquire`](crate::Lock::acquire).
        ///
        /// # Cancel safety
        /// As [`Lock::acquire`](crate::Lock::acquire).
        pub async fn $acquire(&self) -> Result<$guard> {
            match self.ask($take, Patience::Unlimited).await? {
                Some(hold) => Ok($guard(hold)),
                None => unreachable!("whoever waits without limit does not give up"),
            }
        }

        #[doc = concat!("Takes the lock ", $what, " if nobody has to be waited for; `None`: somebody has.")]
        ///
        /// # Errors
        /// As [`Lock::try_acquire`](crate::Lock::try_acquire).
        ///
        /// # Cancel safety
        /// As [`Lock::acquire`](crate::Lock::acquire).
        pub async fn $try(&self) -> Result<Option<$guard>> {
            let hold = self.0.acquire(Request::of($take), Patience::Now).await;
            Ok(hold.map_err(|error| error.during(stringify!($try)))?.map($guard))
        }

        #[doc = concat!("Waits until the lock can be held ", $what, ", but no longer than this.")]
        ///
        /// # Errors
        /// As [`Lock::acquire_timeout`](crate::Lock::acquire_timeout).
        ///
        /// # Cancel safety
        /// As [`Lock::acquire`](crate::Lock::acquire).
        pub async fn $timeout(&self, timeout: Duration) -> Result<$guard> {
            let hold = self.ask($take, Patience::within(timeout)).await?;
            hold.map($guard).ok_or_else(|| timed_out(&self.0.key))
        }
    };
}

impl RwLock {
    /// The lock's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    acquire!("to read", ReadGuard, 1, read, try_read, read_timeout);
    acquire!("to write", WriteGuard, ALL, write, try_write, write_timeout);

    /// The numbers of holders and waiters at one moment, readers and writers together.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn status(&self) -> Result<Status> {
        self.0.status().await
    }

    /// Removes the lock's records from the store, as [`Lock::destroy`](crate::Lock::destroy) does.
    ///
    /// # Errors
    /// [`Contended`](ErrorKind::Contended): the lock is held or waited for.
    pub async fn destroy(&self) -> Result<()> {
        self.0.manager.engine.begin("destroy")?;
        self.0.destroy().await
    }

    async fn ask(&self, take: u32, patience: Patience) -> Result<Option<Hold>> {
        let queue = &self.0;
        queue.acquire(Request::of(take), patience).await.map_err(|error| error.during("acquire"))
    }
}

impl WriteGuard {
    /// Goes on to hold the lock to read only. No other writer gets it in between. The token stays.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the lock was lost before.
    ///
    /// # Cancel safety
    /// The lock is released if the future is dropped.
    pub async fn downgrade(self) -> Result<ReadGuard> {
        self.0.take_less(1).await.map(ReadGuard)
    }
}

impl std::fmt::Debug for RwLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RwLock").field(&self.0.key).finish()
    }
}
