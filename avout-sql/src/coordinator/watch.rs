use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{Wake, Watcher};

use crate::watch::Registration;

/// The watcher of some keys' records.
pub(crate) struct RefWatcher(pub(crate) Registration);

#[async_trait]
impl Watcher for RefWatcher {
    async fn changed(&mut self) -> Result<Wake> {
        self.0.changed().await
    }
}
