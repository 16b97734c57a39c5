use std::sync::Arc;

use avout_core::Result;
use avout_core::backend::{Bell, Wake};

use super::hub::Spot;
use crate::client::Client;

/// Keys that are watched, until it is dropped.
pub(crate) struct Registration {
    client: Arc<Client>,
    /// There until it is dropped.
    bell: Option<Bell<Spot>>,
}

impl Registration {
    /// Watches these keys. Changes of this client are seen from now on, those of others from the next
    /// [`Hub::observe`](super::hub::Hub::observe) on.
    pub(crate) fn new(client: &Arc<Client>, spots: Vec<Spot>) -> Self {
        Self { client: Arc::clone(client), bell: Some(client.shared.hub.add(spots)) }
    }

    /// Waits for the next change, as [`Bell::rung`].
    pub(crate) async fn changed(&self) -> Result<Wake> {
        self.bell.as_ref().expect("it is taken when this is dropped").rung().await
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(bell) = self.bell.take() {
            self.client.shared.hub.remove(bell);
        }
    }
}
