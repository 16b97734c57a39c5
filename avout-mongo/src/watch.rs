use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Bell, Wake, Watcher};

use crate::client::Client;
use crate::hub::Spot;

/// Watches documents.
pub(crate) struct Watch {
    bell: Bell<Spot>,
    _client: Arc<Client>,
}

impl Watch {
    pub(crate) async fn begin(client: &Arc<Client>, spots: Vec<Spot>) -> Result<Self> {
        client.usable()?;
        let bell = client.hub.listen(spots, client.options.timeout).await?;
        Ok(Self { bell, _client: Arc::clone(client) })
    }
}

#[async_trait]
impl Watcher for Watch {
    async fn changed(&mut self) -> Result<Wake> {
        self.bell.rung().await
    }
}
