use std::time::Duration;

use async_trait::async_trait;
use avout_core::backend::Sessions;
use avout_core::protocol::SessionId;
use avout_core::{Error, ErrorKind, Result};
use redis::Value;

use super::Coordinator;
use crate::wire::{Script, milliseconds};

/// A session is a key that expires, and is made to live on by its client.
///
/// A failover may lose the key, and an evicting server remove it: the session is then dead for all, and its client is told so by its
/// next sign of life.
#[async_trait]
impl Sessions for Coordinator {
    async fn begin(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.sign(session, ttl, true).await.map_err(|error| error.during("begin"))
    }

    async fn renew(&self, session: SessionId, ttl: Duration) -> Result<bool> {
        self.sign(session, ttl, false).await.map_err(|error| error.during("renew"))
    }

    async fn alive(&self, sessions: &[SessionId]) -> Result<Vec<bool>> {
        let look = |session: &SessionId| {
            let mut look = redis::cmd("EXISTS");
            look.arg(self.client.names.session(*session));
            look
        };
        let looks: Vec<_> = sessions.iter().map(look).collect();
        let found = self.client.look_all(&looks).await.map_err(|error| error.during("alive"))?;
        Ok(found.iter().map(|found| *found == Value::Int(1)).collect())
    }

    async fn end(&self, session: SessionId) -> Result<()> {
        let mut unlink = redis::cmd("UNLINK");
        unlink.arg(self.client.names.session(session));
        self.client.look_all(&[unlink]).await.map(drop).map_err(|error| error.during("end"))
    }
}

impl Coordinator {
    async fn sign(&self, session: SessionId, ttl: Duration, begins: bool) -> Result<bool> {
        let names = &self.client.names;
        let keys = [&*names.cells, &names.session(session)];
        // The server's clock may be a little faster than the client's.
        let lives = milliseconds(ttl.saturating_add(ttl / 16)).min(LONGEST);
        let ran = self.client.run(Script::Renew, &keys, (3, 64), ErrorKind::Unavailable, |cmd, head| {
            cmd.arg(&head[..]).arg(lives).arg(u8::from(begins));
        });
        match ran.await?.0 {
            Value::Int(3) => Ok(true),
            Value::Int(4) => Ok(false),
            _ => Err(Error::new(ErrorKind::Unavailable, "the server's answer to a sign of life is not understood")),
        }
    }
}

/// A year, in milliseconds: the server takes no time to live that leads beyond its calendar.
const LONGEST: u64 = 365 * 24 * 3600 * 1000;
