use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::protocol::SessionId;

/// A store's own way to tell which clients are alive, such as ZooKeeper's ephemeral nodes or Redis' keys that expire.
///
/// It is optional ([`Coordinator::sessions`](crate::Coordinator::sessions)), and replaces only the heartbeat records of
/// the generic way. Locks are still decided by commits alone, so a session that is wrongly taken for dead loses its
/// locks and breaks nothing.
///
/// # Contract
/// - A session is alive from its `begin` on, for at least `ttl` after the last call of `begin` or `renew` that answered
///   `true`, unless `end` is called.
/// - If its client is gone, it is no longer alive at the latest twice its `ttl` after the last sign of life. A store
///   with coarser leases counts a `ttl` that is rounded up, as [`min_ttl`](Self::min_ttl) says.
/// - A session that has ended never lives again: `begin` and `renew` answer `false` from then on, or begin no session,
///   and `alive` says `false` too. An id is drawn anew for each session.
/// - A session belongs to one client: only that one begins, renews and ends it.
/// - `alive` is linearizable: a session whose `begin` was answered before the call is seen.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// The shortest time to live of a session, and the step in which longer ones are counted: a `ttl` is rounded up to
    /// whole multiples of it. An example is two seconds, for leases in whole seconds of which the store grants none
    /// shorter. The default, zero, is for a store that keeps any time as it is.
    fn min_ttl(&self) -> Duration {
        Duration::ZERO
    }

    /// Begins the session. It is called before any `renew`, and repeated only until it was answered, so it must succeed
    /// even if an earlier call has begun the session. `false`: it has ended, for good. The default is a `renew`.
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
    /// [`Unavailable`](crate::ErrorKind::Unavailable): it may have counted or not; try again.
    ///
    /// # Cancel safety
    /// Safe: it may have counted or not.
    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool>;

    /// Which of these sessions are alive, in their order. One request. The engine asks for 256 at most.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable): there is no answer; try again.
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
