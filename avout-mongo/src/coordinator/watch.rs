use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Wake, Watcher};
use avout_core::protocol::Key;

use crate::client::Client;
use crate::hub::{Listener, Table};

/// Watches refs.
pub(crate) struct RefWatcher {
    listener: Listener,
    _client: Arc<Client>,
}

impl RefWatcher {
    pub(crate) async fn begin(client: &Arc<Client>, keys: &[Key]) -> Result<Self> {
        client.usable()?;
        let spots = keys.iter().map(|key| (Table::Refs, key.clone())).collect();
        let listener = client.hub.listen(spots, client.options.timeout).await?;
        Ok(Self { listener, _client: Arc::clone(client) })
    }
}

#[async_trait]
impl Watcher for RefWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        Ok(self.listener.bell.rung().await)
    }
}
