//! Removing the seats of sessions that ended: nobody waits in them any more.

use std::sync::Arc;

use super::session::{Dead, seat};
use super::session_manager::SessionManager;
use crate::error::Result;
use crate::handles::SystemRef;
use crate::protocol::{Heartbeat, Key, SessionId, SessionKey};

/// At most this many seats are removed in one commit.
const AT_ONCE: usize = 64;

impl SessionManager {
    /// Removes the seats of a session that has ended, up to the number `below`. It is tried once. The sweep removes the
    /// rest, and seats that are written by clients that have not heard of the end yet.
    pub(super) async fn clear_seats(&self, session: SessionId, below: u32) -> Result<()> {
        self.clear((0..below).map(|number| seat(&self.engine, session, number)).collect()).await
    }

    /// The same in the background, for sessions of others that this client has ended.
    pub(super) fn clear_seats_of(self: &Arc<Self>, dead: Vec<Dead>) {
        if dead.is_empty() {
            return;
        }
        let manager = Arc::clone(self);
        self.background(async move {
            for dead in dead {
                let cleared = match manager.engine.coordinator.sessions() {
                    Some(_) => manager.clear_all_seats(dead.session).await,
                    None => manager.clear_seats(dead.session, dead.seats).await,
                };
                if let Err(error) = cleared {
                    tracing::debug!(session = %dead.session, %error, "the seats of a session are left to the sweep");
                    return;
                }
            }
        });
    }

    /// Removes all seats of a session without a record, which would tell how many it had.
    async fn clear_all_seats(&self, session: SessionId) -> Result<()> {
        let (engine, prefix) = (&self.engine, Heartbeat::key(session));
        // There are few: a session is one client's.
        let keys = engine.until(engine.deadline(), || engine.coordinator.list_all(&prefix)).await?;
        let is_seat = |key: &Key| SessionKey::of(key) == Some(SessionKey::Seat(session));
        self.clear(keys.into_iter().filter(is_seat).map(|key| SystemRef::new(engine, key, "seat")).collect()).await
    }

    async fn clear(&self, seats: Vec<SystemRef<u64>>) -> Result<()> {
        for some in seats.chunks(self.at_once(AT_ONCE)) {
            self.transact_silently(async |tx| {
                tx.0.see(&some.iter().map(SystemRef::key).collect::<Vec<_>>()).await?;
                for seat in some {
                    seat.remove(&tx).await?;
                }
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}
