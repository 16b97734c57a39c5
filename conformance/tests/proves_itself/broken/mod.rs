//! Backends that are broken in one chosen way each, around a namespace in memory.

mod common;
mod coordinator;
mod fault;
mod store;
mod watch;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};
use avout_core::Result;
use avout_core::backend::Store;
use avout_local::Local;
use tokio::sync::Notify;

use common::Common;
pub(crate) use fault::Fault;

/// A backend with one fault.
#[derive(Clone)]
pub(crate) struct Broken {
    common: Arc<Common>,
    limit: Duration,
}

impl Broken {
    pub(crate) fn new(fault: Fault) -> Self {
        let common = Arc::new(Common {
            fault,
            gate: tokio::sync::Mutex::default(),
            count: AtomicU64::new(0),
            watchers: Mutex::default(),
            atoms: Notify::new(),
            revisions: Mutex::default(),
            last: Mutex::default(),
            cut: AtomicBool::new(false),
            clients: AtomicU64::new(0),
        });
        // A hang is a failure, and soon one where a fault is expected to make it.
        let limit = Duration::from_secs(if fault == Fault::Nothing { 120 } else { 4 });
        Self { common, limit }
    }

    /// The same, where a law that takes longer than this hangs.
    pub(crate) fn within(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }
}

#[async_trait]
impl Fixture for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    async fn open(&self, namespace: &str) -> Result<Backend> {
        let name = if self.common.is(Fault::OneNamespaceForAll) { &namespace[..22] } else { namespace };
        let local = Local::named(name);
        let client = self.common.clients.fetch_add(1, Ordering::SeqCst);
        Ok(Backend {
            coordinator: Some(coordinator::wrap(local.coordinator(), Arc::clone(&self.common), client)),
            store: Some(store::wrap(local.store(), Arc::clone(&self.common))),
        })
    }

    async fn open_readonly(&self, namespace: &str) -> Option<Result<Backend>> {
        let opened = Local::reading(namespace);
        Some(opened.map(|local| Backend { coordinator: Some(local.coordinator()), store: Some(local.store()) }))
    }

    async fn beside(&self, namespace: &str) -> Result<Vec<Arc<dyn Store>>> {
        let local = |part| Local::named(&format!("{namespace}_{part}")).store();
        Ok(["one", "two"].map(|part| store::wrap(local(part), Arc::clone(&self.common))).to_vec())
    }

    async fn cut_connections(&self, _: &str) -> bool {
        self.common.cut.store(true, Ordering::SeqCst);
        if self.common.is(Fault::DeafAfterCut) {
            self.common.watchers.lock().expect("no watcher panics").clear();
        }
        matches!(self.common.fault, Fault::AwayAfterCut | Fault::DeafAfterCut)
    }

    fn survives_reopen(&self) -> bool {
        self.common.is(Fault::ForgottenOnReopening)
    }

    fn hint_delay(&self) -> Duration {
        Duration::from_millis(300)
    }

    fn time_limit(&self) -> Duration {
        self.limit
    }
}
