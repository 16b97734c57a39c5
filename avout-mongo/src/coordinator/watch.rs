use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Bell, Wake, Watcher};
use avout_core::protocol::Key;

use crate::client::Client;
use crate::hub::{Spot, Table};

/// Watches refs.
pub(crate) struct RefWatcher {
    bell: Bell<Spot>,
    _client: Arc<Client>,
}

impl RefWatcher {
    pub(crate) async fn begin(client: &Arc<Client>, keys: &[Key]) -> Result<Self> {
        client.usable()?;
        let spots = keys.iter().map(|key| (Table::Refs, key.clone())).collect();
        let bell = client.hub.listen(spots, client.options.timeout).await?;
        Ok(Self { bell, _client: Arc::clone(client) })
    }
}

#[async_trait]
impl Watcher for RefWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        self.bell.rung().await
    }
}
