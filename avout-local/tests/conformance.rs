//! The laws of `avout-conformance`, on namespaces in memory.

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};
use avout_local::Local;

struct Memory;

#[async_trait]
impl Fixture for Memory {
    fn name(&self) -> &str {
        "local"
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let local = Local::named(namespace);
        Ok(Backend { coordinator: Some(local.coordinator()), store: Some(local.store()) })
    }

    async fn open_readonly(&self, namespace: &str) -> Option<avout_core::Result<Backend>> {
        let opened = Local::reading(namespace);
        Some(opened.map(|local| Backend { coordinator: Some(local.coordinator()), store: Some(local.store()) }))
    }

    fn survives_reopen(&self) -> bool {
        false
    }
}

fn main() {
    avout_conformance::run(Memory)
}
