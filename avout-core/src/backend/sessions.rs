use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::protocol::SessionId;

/// A store's own way to tell which clients are alive, such as ZooKeeper's ephemeral nodes or Redis' keys that expire.
///
/// It is optional ([`Coordinator::sessions`](crate::Coordinator::sessions)). It replaces the heartbeat records of the generic way, and nothing
/// else: who holds a lock is still decided by commits alone, so that a session which is wrongly taken for dead costs its
/// locks and breaks nothing.
///
/// # Contract
/// - A session is alive from the first `renew` on, for at least `ttl` after the last `renew` that answered `true` was called, unless
///   `end` is called.
/// - If its client is gone, it is no longer alive at the latest twice its `ttl` after the last `renew`.
/// - Once it is not alive it never is again: `renew` answers `false` from then on, and `alive` too.
/// - A session is one client's: only it renews and ends it.
/// - `alive` is linearizable: a session whose first `renew` was answered before the call is seen.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Begins a session with this id, or shows that its client is alive. `false`: it has ended, for good. Called about four
    /// times in each `ttl` while the session is in use.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): nobody knows; try again.
    ///
    /// # Cancel safety
    /// Safe: it may have counted or not.
    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool>;

    /// Which of these are alive, in their order. One request.
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
