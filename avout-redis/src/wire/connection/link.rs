//! A connection that has entered the namespace.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use avout_core::backend::history::Era;
use avout_core::protocol::Realm;
use redis::{RedisResult, Value};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::dial::Wire;
use super::gather::Gathering;
use super::home::Home;
use crate::options::Address;
use crate::wire::Loaded;

/// A connection that has entered the namespace.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) wire: Arc<Wire>,
    /// Where it has entered the namespace, if that is not where the wire leads.
    pub(crate) detour: Option<Detour>,
    pub(crate) scripts: Loaded,
    pub(crate) era: Era,
    pub(crate) address: Address,
    /// The server's process: another one after each restart.
    pub(crate) process: String,
    gathering: Arc<Gathering>,
    /// What drives it.
    pub(crate) home: Home,
    pub(crate) begun: Instant,
    dead: watch::Sender<bool>,
    guard: OnceLock<AbortHandle>,
}

impl Link {
    pub(crate) fn new(
        wire: Wire,
        detour: Option<Detour>,
        scripts: Loaded,
        era: Era,
        address: Address,
        process: String,
    ) -> Self {
        Self {
            wire: Arc::new(wire),
            detour,
            scripts,
            era,
            address,
            process,
            gathering: Arc::default(),
            home: Home::library(),
            begun: Instant::now(),
            dead: watch::Sender::new(false),
            guard: OnceLock::new(),
        }
    }

    /// Reads the clock and these fields of the cells, all at one moment after the call.
    ///
    /// `None`: it was not sent, or its reply not taken, since the runtime has ended that was to do so.
    pub(crate) async fn read<'a>(
        &self,
        cells: &str,
        fields: impl Iterator<Item = &'a str> + Clone,
    ) -> Option<RedisResult<Vec<Value>>> {
        self.gathering.read(&self.wire, &self.home, cells, fields).await
    }

    /// No new requests are to use it; those that are under way go on.
    pub(crate) fn retire(&self) {
        self.dead.send_replace(true);
    }

    /// Ends it at once: what is under way has lost its reply.
    pub(crate) fn cut(&self) {
        self.retire();
        self.wire.cut();
        if let Some(detour) = &self.detour {
            detour.wire.cut();
        }
    }

    /// Where the namespace is: the server, or the node that the slot is on its way to from there.
    pub(crate) fn place(&self) -> &Address {
        self.detour.as_ref().map_or(&self.address, |detour| &detour.to)
    }

    /// Whether it has entered the namespace at this node. One that is named without its host is the one that was asked.
    pub(crate) fn leads_to(&self, to: &Address) -> bool {
        self.detour.as_ref().is_some_and(|detour| to.clone().or(&self.address) == detour.to)
    }

    pub(crate) fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Returns when no new requests are to use it.
    pub(crate) async fn left(&self) {
        // The sender is in `self`, so it is not gone.
        let _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }

    /// Ends it when the server answers nothing for `limit`, whatever becomes of those that asked. `doubt` is called from `early` on.
    pub(crate) fn guard(self: &Arc<Self>, early: Duration, limit: Duration, doubt: impl Fn() + Send + Sync + 'static) {
        let (link, pulse) = (Arc::downgrade(self), Arc::clone(&self.wire.pulse));
        let guard = self.home.runtime().spawn(async move {
            let ping = async || match link.upgrade() {
                Some(link) => link.wire.ask::<()>(&redis::cmd("PING")).await.is_ok(),
                None => true,
            };
            pulse.stops(early, limit, doubt, ping).await;
            if let Some(link) = link.upgrade() {
                tracing::debug!(address = %link.address, "the server does not answer, and is left");
                link.cut();
            }
        });
        let _ = self.guard.set(guard.abort_handle());
    }
}

/// A connection to the node that a slot is on its way to, and that has the namespace already.
#[derive(Debug)]
pub(crate) struct Detour {
    pub(crate) to: Address,
    pub(crate) wire: Wire,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(guard) = self.guard.get() {
            guard.abort();
        }
    }
}

/// What is learned of the namespace and its server by entering.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    pub(crate) realm: Realm,
    /// The server writes each commit to its disk before it answers, as far as it lets that be seen.
    pub(crate) durable: bool,
}
