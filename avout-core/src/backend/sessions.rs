use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::protocol::SessionId;

/// A store's own way to tell which clients are alive, such as ZooKeeper's ephemeral nodes or Redis' keys that expire.
///
/// It is optional ([`Coordinator::sessions`](crate::Coordinator::sessions)). It replaces the heartbeat records of the generic
/// way, and nothing else: who holds a lock is still decided by commits alone, so that a session which is wrongly taken for dead
/// costs its locks and breaks nothing.
///
/// # Contract
/// - A session is alive from its `begin` on, for at least `ttl` after the last `begin` or `renew` that answered `true` was
///   called, unless `end` is called.
/// - If its client is gone, it is no longer alive at the latest twice its `ttl` after the last sign of life. A store whose
///   leases are coarser counts a `ttl` that is rounded up, as [`min_ttl`](Self::min_ttl) says.
/// - Once it is not alive it never is again: `begin` and `renew` answer `false` from then on, or begin no session, and `alive`
///   says `false` too. An id is drawn anew for each session.
/// - A session is one client's: only it begins, renews and ends it.
/// - `alive` is linearizable: a session whose `begin` was answered before the call is seen.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// The shortest time that a session can be given, and the step in which longer ones are counted: a `ttl` is rounded up
    /// to whole multiples of it. Two seconds, say, for leases of whole seconds of which the store grants no shorter ones.
    /// The default, zero, is for a store that keeps any time as it is.
    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    /// Begins the session. It is called before any `renew`, and again only until it was answered, so it succeeds as well if
    /// an earlier call has begun it. `false`: it has ended, for good. The default is a `renew`.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): it may have begun or not; try again.
    ///
    /// # Cancel safety
    /// Safe: it has begun or not.
    async fn begin(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.renew(session, ttl).await
    }

    /// Shows that the session's client is alive. `false`: it has ended, for good. Called about four times in each `ttl` while
    /// the session is in use.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): nobody knows; try again.
    ///
    /// # Cancel safety
    /// Safe: it may have counted or not.
    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool>;

    /// Which of these are alive, in their order. One request. The engine asks for 256 at most.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): nobody knows; try again.
    ///
    /// # Cancel safety
    /// Safe.
    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>>;

    /// Ends a session. It is no error if it has ended.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): it may have ended or not.
    ///
    /// # Cancel safety
    /// Safe: it has ended or not.
    async fn end(&self, session: SessionId) -> Result<()>;
}
