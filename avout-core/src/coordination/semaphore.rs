use std::time::Duration;

use super::claim::{Hold, Patience};
use super::grant_queue::{GrantQueue, Request, Status};
use super::guard::guard;
use super::lock::timed_out;
use super::session_manager::SessionManager;
use crate::backend::time::timeout_at;
use crate::error::{Error, ErrorKind, Result};
use crate::handles::Stm;
use crate::protocol::Key;

/// A number of permits that all processes share; made by [`Stm::semaphore`](crate::Stm::semaphore).
///
/// Permits are given in the order in which they are asked for: a request for many is not overtaken by requests for few.
/// Permits of a process that dies come back, as with a [`Lock`](crate::Lock), whose page tells of sessions and tokens.
/// A task may hold several.
///
/// # Examples
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
/// # let local = avout_local::Local::new();
/// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
/// let downloads = stm.semaphore("/downloads", 3)?; // at most three at a time, over all processes
/// let permit = downloads.acquire().await?;
/// let two = downloads.acquire_many(2).await?;
/// assert!(downloads.try_acquire().await?.is_none());
/// permit.release().await?;
/// assert!(downloads.try_acquire().await?.is_some());
/// # drop(two);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Semaphore(GrantQueue);

/// Holds permits of a [`Semaphore`]. They are given back when this is dropped, in the background, or surely by [`release`](Self::release).
#[must_use = "the permits are given back when this is dropped"]
pub struct Permit(Hold);

guard!(Permit);

impl Stm {
    /// The semaphore with this name. It makes no request. All its users must name the same number of permits.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): not a valid key, one of more than 480 bytes, or no permits.
    /// [`Mismatch`](ErrorKind::Mismatch), from every operation: it has another number; [`Semaphore::set_permits`]
    /// changes it.
    pub fn semaphore(&self, key: impl AsRef<str>, permits: u32) -> Result<Semaphore> {
        some(permits)?;
        Ok(Semaphore(GrantQueue::new(SessionManager::of(self), "semaphores", key, permits)?))
    }
}

impl Semaphore {
    /// The semaphore's key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }

    /// The number of permits of this semaphore.
    pub fn permits(&self) -> u32 {
        self.0.limit
    }

    /// Waits for a permit, for as long as it takes.
    ///
    /// # Errors
    /// As [`Lock::acquire`](crate::Lock::acquire); [`Mismatch`](ErrorKind::Mismatch) if it was made with another number
    /// of permits.
    ///
    /// # Cancel safety
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn acquire(&self) -> Result<Permit> {
        self.acquire_many(1).await
    }

    /// Waits for this many permits at once.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput): none, or more than there are. Otherwise as
    /// [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn acquire_many(&self, permits: u32) -> Result<Permit> {
        match self.ask(permits, Patience::Unlimited).await? {
            Some(permit) => Ok(permit),
            None => unreachable!("whoever waits without limit does not give up"),
        }
    }

    /// Takes a permit if there is one and nobody waits; `None`: there is none.
    ///
    /// # Errors
    /// As [`Lock::try_acquire`](crate::Lock::try_acquire).
    ///
    /// # Cancel safety
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn try_acquire(&self) -> Result<Option<Permit>> {
        self.ask(1, Patience::Now).await
    }

    /// Takes this many permits at once if they are free and nobody waits; `None`: they are not.
    ///
    /// # Errors
    /// As [`acquire_many`](Self::acquire_many) and [`Lock::try_acquire`](crate::Lock::try_acquire).
    ///
    /// # Cancel safety
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn try_acquire_many(&self, permits: u32) -> Result<Option<Permit>> {
        self.ask(permits, Patience::Now).await
    }

    /// Waits for this many permits, with a time limit.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), and as [`acquire_many`](Self::acquire_many).
    ///
    /// # Cancel safety
    /// As [`Lock::acquire`](crate::Lock::acquire).
    pub async fn acquire_timeout(&self, permits: u32, timeout: Duration) -> Result<Permit> {
        self.ask(permits, Patience::within(timeout)).await?.ok_or_else(|| timed_out(&self.0.key))
    }

    /// The numbers of holders and waiters at one moment.
    ///
    /// # Errors
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn status(&self) -> Result<Status> {
        self.0.status().await
    }

    /// Changes the number of permits, while others use them, and returns a handle with the new number. From now on
    /// handles with the old number are refused.
    ///
    /// Holders keep their permits, even if there are fewer now: then none are given out until enough came back. Waiters
    /// go on waiting, except those for more than there are now: they get `Mismatch`.
    ///
    /// # Errors
    /// [`Mismatch`](ErrorKind::Mismatch): the semaphore has another number of permits than this handle.
    /// [`InvalidInput`](ErrorKind::InvalidInput): no permits. Those of [`Stm::dosync`](crate::Stm::dosync).
    ///
    /// # Cancel safety
    /// As [`Stm::dosync`](crate::Stm::dosync).
    pub async fn set_permits(&self, permits: u32) -> Result<Self> {
        self.0.manager.engine.begin("set_permits")?;
        some(permits).map_err(|error| error.at(&self.0.key).during("set_permits"))?;
        self.0.set_limit(permits).await.map(Self).map_err(|error| error.during("set_permits"))
    }

    /// Removes the semaphore's records from the store. It can then be made with another number of permits.
    ///
    /// # Errors
    /// [`Contended`](ErrorKind::Contended): permits are held or waited for. [`Mismatch`](ErrorKind::Mismatch): it has
    /// another number.
    pub async fn destroy(&self) -> Result<()> {
        self.0.manager.engine.begin("destroy")?;
        self.0.destroy().await
    }

    async fn ask(&self, permits: u32, patience: Patience) -> Result<Option<Permit>> {
        let queue = &self.0;
        if permits > queue.limit {
            // First find out whether there are as many as this handle says.
            self.0.manager.engine.begin("acquire")?;
            let check = async { queue.check().await.map_err(|error| error.during("acquire")) };
            match patience {
                Patience::Until(deadline) => match timeout_at(deadline, check).await {
                    Ok(checked) => checked?,
                    Err(_) => return Ok(None),
                },
                Patience::Now | Patience::Unlimited => check.await?,
            }
        }
        if permits == 0 || permits > queue.limit {
            let message = format!("{permits} permits are asked for, and there are {}", queue.limit);
            return Err(Error::new(ErrorKind::InvalidInput, message).at(&queue.key).during("acquire"));
        }
        let hold = queue.acquire(Request::of(permits), patience).await.map_err(|error| error.during("acquire"))?;
        Ok(hold.map(Permit))
    }
}

fn some(permits: u32) -> Result<()> {
    match permits {
        0 => Err(Error::new(ErrorKind::InvalidInput, "a semaphore has at least one permit")),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Semaphore").field("key", &self.0.key).field("permits", &self.0.limit).finish()
    }
}
