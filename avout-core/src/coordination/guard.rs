use super::claim::{Hold, lost};
use crate::error::{Error, ErrorKind, Result};
use crate::handles::Tx;

/// A guard: a [`LockGuard`](crate::LockGuard), permit, term and so on. [`Tx::require`] takes it.
///
/// It cannot be implemented outside this library.
pub trait Guard: sealed::Sealed {
    #[doc(hidden)]
    fn held(&self) -> sealed::HoldRef<'_>;
}

pub(super) mod sealed {
    pub trait Sealed {}
    #[expect(missing_debug_implementations, reason = "never seen outside")]
    pub struct HoldRef<'a>(pub(in super::super) &'a super::Hold);
}

impl Tx {
    /// Makes the transaction commit only if the guard is still held then: the commit compares the record of the lock's
    /// holders, along with its other comparisons.
    ///
    /// This is what makes it safe to write under a lock. A process may be paused, for longer than its session lives, between any look at
    /// the clock and the write that follows; others have the lock then, and the write must fail. See
    /// `docs/coordination.md`.
    ///
    /// A transaction that only reads took effect at its read point, and the guard was held there.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost): the guard is no longer held. [`Misuse`](ErrorKind::Misuse): the guard is another
    /// client's.
    ///
    /// # Examples
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> avout_core::Result<()> {
    /// # let local = avout_local::Local::new();
    /// # let stm = avout_core::Stm::new(local.coordinator(), local.store());
    /// let report = stm.create_ref("/report", String::new()).await?;
    /// let guard = stm.lock("/reporting")?.acquire().await?;
    /// stm.dosync(async |tx| {
    ///     tx.require(&guard).await?;
    ///     tx.set(&report, "all is well".to_string()).await
    /// }).await?;
    /// guard.release().await?;
    /// # Ok(()) }
    /// ```
    pub async fn require<G: Guard>(&self, guard: &G) -> Result<()> {
        let hold = guard.held().0;
        let queue = hold.queue();
        if queue.manager.engine.client != self.0.engine.client {
            let message = "the guard was acquired with another client than the one that runs the transaction";
            return Err(Error::new(ErrorKind::Misuse, message).at(&queue.key).during("require"));
        }
        let holders = queue.holders().get(self).await?;
        if holders.is_none_or(|holders| holders.of(hold.who()).is_none()) {
            return Err(lost(&queue.key).during("require"));
        }
        queue.holders().protect(self);
        Ok(())
    }
}

/// The methods that all guards have.
macro_rules! guard {
    ($guard:ident) => {
        impl $guard {
            /// The number of this grant. Each later grant of the same key has a larger number, even if the lock was
            /// destroyed in between. Hand it to a store that this library does not know, and have that store refuse a
            /// request with a smaller number than it has seen.
            pub fn token(&self) -> u64 {
                self.0.token
            }

            /// Whether it is held as far as this process can tell. It may be lost right after the answer: only
            /// [`Tx::require`](crate::Tx::require) binds a write to it.
            pub fn is_held(&self) -> bool {
                self.0.is_held()
            }

            /// Waits until it is lost: the session ended, because this process was paused or cut off for too long, or
            /// the client was closed.
            ///
            /// # Cancel safety
            /// Safe.
            pub async fn lost(&self) {
                self.0.lost().await;
            }

            /// Gives it back, and returns when others can have it.
            ///
            /// # Errors
            /// [`Lost`](crate::ErrorKind::Lost): it was lost before. [`Closed`](crate::ErrorKind::Closed): the client
            /// was closed, and has given it back. It is retried for as long as the store is out of reach.
            ///
            /// # Cancel safety
            /// If the future is dropped it goes on in the background.
            #[doc(alias = "unlock")]
            pub async fn release(self) -> crate::error::Result<()> {
                self.0.release().await
            }
        }

        impl super::guard::sealed::Sealed for $guard {}

        impl super::guard::Guard for $guard {
            fn held(&self) -> super::guard::sealed::HoldRef<'_> {
                super::guard::sealed::HoldRef(&self.0)
            }
        }

        impl std::fmt::Debug for $guard {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($guard))
                    .field("key", &self.0.queue().key)
                    .field("token", &self.0.token)
                    .finish_non_exhaustive()
            }
        }
    };
}
pub(super) use guard;
