use std::time::{Duration, Instant};

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::Sessions;
use avout_core::protocol::SessionId;

use super::lives::Life;
use super::mistake::Mistake;
use super::world::{Client, lock};

/// Sessions over a store that has none of its own.
pub(super) struct Leases(pub(super) Client);

impl Leases {
    fn sign(&self, session: SessionId, ttl: Duration, begins: bool) -> bool {
        let mistake = self.0.world.mistake;
        let lasts = if mistake == Mistake::SessionShort { ttl / 4 } else { ttl };
        let mut lives = lock(&self.0.world.lives);
        match lives.0.get(&session).map(|life| life.is_over(mistake)) {
            Some(true) if mistake != Mistake::SessionRevived => return false,
            None if !begins => return false,
            _ => {}
        }
        let life = lives.0.entry(session).or_insert(Life { until: None, begins: 0 });
        life.until = Some(Instant::now() + lasts);
        life.begins += u32::from(begins);
        true
    }
}

#[async_trait]
impl Sessions for Leases {
    async fn begin(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.0.read(async { Ok(self.sign(session, ttl, true)) }).await
    }

    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.0.read(async { Ok(self.sign(session, ttl, false)) }).await
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        let look = || -> Vec<bool> {
            let mistake = self.0.world.mistake;
            let lives = lock(&self.0.world.lives);
            let is_alive = |session: &SessionId| lives.0.get(session).is_some_and(|life: &Life| !life.is_over(mistake));
            let mut sessions = sessions.to_vec();
            if mistake == Mistake::AliveSorted {
                sessions.sort_unstable();
                sessions.dedup();
            }
            sessions.iter().map(is_alive).collect()
        };
        self.0.read(async { Ok(look()) }).await
    }

    async fn end(&self, session: SessionId) -> Result<()> {
        let end = || {
            if let Some(life) = lock(&self.0.world.lives).0.get_mut(&session) {
                life.begins = life.begins.saturating_sub(1);
                if life.begins == 0 || self.0.world.mistake != Mistake::SessionCounted {
                    life.until = None;
                }
            }
            Ok(())
        };
        self.0.read(async { end() }).await
    }
}
