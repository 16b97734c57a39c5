use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Bell, Wake, Watcher};

use super::hub::Spot;
use super::poller;
use crate::client::Client;
use crate::coordinator::read::{self, SMALL_READ};

/// Keys that are watched, until it is dropped.
pub(crate) struct Registration {
    client: Arc<Client>,
    /// There until it is dropped.
    bell: Option<Bell<Spot>>,
}

impl Registration {
    /// Watches these keys: later changes, by this client and by others, are seen.
    pub(crate) async fn begin(client: &Arc<Client>, spots: Vec<Spot>) -> Result<Self> {
        client.usable()?;
        let registration = Self { client: Arc::clone(client), bell: Some(client.shared.hub.add(spots.clone())) };
        if client.shared.file.is_some() {
            // What the keys have now is what changes by others are compared with.
            let read = client.read(spots.len() <= SMALL_READ, move |c, _| read::stamps(c, &spots).map(Some));
            client.shared.hub.observe(read.await?);
            poller::start(&client.shared)?;
        }
        Ok(registration)
    }
}

#[async_trait]
impl Watcher for Registration {
    async fn changed(&mut self) -> Result<Wake> {
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
