use std::sync::Arc;

use avout_core::Result;
use avout_core::backend::Wake;

use super::hub::{Signal, Spot};
use crate::client::{Client, closed};

/// Keys that are watched, until it is dropped.
pub(crate) struct Registration {
    client: Arc<Client>,
    spots: Vec<Spot>,
    signal: Arc<Signal>,
}

impl Registration {
    /// Watches these keys. Changes of this client are seen from now on, those of others from the next
    /// [`Hub::observe`] on.
    pub(crate) fn new(client: &Arc<Client>, spots: Vec<Spot>) -> Self {
        let signal = Arc::default();
        client.shared.hub.add(&spots, &signal);
        Self { client: Arc::clone(client), spots, signal }
    }

    /// Waits for the next change.
    pub(crate) async fn changed(&self) -> Result<Wake> {
        let hub = &self.client.shared.hub;
        if hub.is_closed() {
            return Err(closed());
        }
        // Nothing is awaited after it.
        self.signal.rung().await;
        if hub.is_closed() {
            return Err(closed());
        }
        Ok(self.signal.why())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.client.shared.hub.remove(&self.spots, &self.signal);
    }
}
