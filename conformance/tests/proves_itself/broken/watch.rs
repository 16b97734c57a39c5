use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{StateContainer, Wake, Watcher};
use tokio::sync::Notify;

use super::common::{Common, lock};
use super::fault::Fault;

/// A watcher with the faults of watchers.
pub(super) struct Watch {
    pub(super) common: Arc<Common>,
    pub(super) id: u64,
    pub(super) notify: Arc<Notify>,
    pub(super) hints: u32,
}

#[async_trait]
impl Watcher for Watch {
    async fn changed(&mut self) -> Result<Wake> {
        if self.common.is(Fault::OneHintOnly) && self.hints > 0 {
            std::future::pending::<()>().await;
        }
        self.notify.notified().await;
        if self.common.is(Fault::HintTakenByDroppedWait) {
            tokio::time::sleep(Duration::from_micros(400)).await;
        }
        self.hints += 1;
        Ok(Wake::Changed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watchers = lock(&self.common.watchers);
        let gone = watchers.remove(&self.id);
        if let Some(gone) = gone
            && self.common.is(Fault::DroppedWatcherEndsAll)
        {
            watchers.retain(|_, other| !other.keys.iter().any(|key| gone.keys.contains(key)));
        }
    }
}

/// The same for an atom.
pub(super) struct AtomWatch {
    pub(super) common: Arc<Common>,
    /// Notified of this client's writes, as the one in common is of everybody's.
    pub(super) own: Arc<Notify>,
    pub(super) atom: Arc<dyn StateContainer>,
    /// `None`: it is yet to begin.
    pub(super) inner: Option<Box<dyn Watcher>>,
}

#[async_trait]
impl Watcher for AtomWatch {
    async fn changed(&mut self) -> Result<Wake> {
        match self.common.fault {
            Fault::AtomWatchDeaf => std::future::pending().await,
            Fault::AtomWatchHearsOwnOnly => self.own.notified().await,
            Fault::AtomWatchWakesOneOnly | Fault::AtomHintEarly => self.common.atoms.notified().await,
            _ => {
                let inner = match &mut self.inner {
                    Some(inner) => inner,
                    none => none.insert(self.atom.watch().await?),
                };
                inner.changed().await?;
            }
        }
        if self.common.is(Fault::HintTakenByDroppedWait) {
            tokio::time::sleep(Duration::from_micros(400)).await;
        }
        Ok(Wake::Changed)
    }
}
