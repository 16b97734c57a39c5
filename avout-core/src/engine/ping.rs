use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::client::Engine;
use super::time::with_deadline;
use crate::backend::Store;
use crate::error::{Error, ErrorKind, Result};

impl Engine {
    /// One request to the coordinator, and one to each store of another realm, at the same time: how long all took.
    pub(crate) async fn ping(&self) -> Result<Duration> {
        let begun = Instant::now();
        let others: Vec<Arc<dyn Store>> = {
            let stores = self.stores.read().unwrap_or_else(PoisonError::into_inner);
            let own = self.capabilities.realm;
            stores.values().filter(|store| store.realm() != own).cloned().collect()
        };
        let coordinator = async {
            // No keys ask for the point alone, with the realm.
            self.coordinator.read(&[], None).await.map(drop)
        };
        let stores = async { try_join_all(others.iter().map(|store| store.ping())).await.map(drop) };
        let asked = pin!(async { tokio::try_join!(coordinator, stores).map(drop) });
        match self.closing.race(with_deadline(self.deadline(), asked)).await? {
            Ok(answered) => answered.and_then(|()| self.tell_losses()).map(|()| begun.elapsed()),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "no answer came by the deadline")),
        }
    }
}
