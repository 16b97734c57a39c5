//! The laws of `avout-conformance`, on the store of the example `own_store`.

#[path = "../examples/own_store/folder.rs"]
mod folder;
#[path = "../examples/own_store/store.rs"]
mod store;

use std::sync::Arc;

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};
use folder::Folder;
use store::Files;
use tempfile::TempDir;

struct Folders(TempDir);

#[async_trait]
impl Fixture for Folders {
    fn name(&self) -> &str {
        "own_store"
    }

    async fn open(&self, namespace: &str) -> avout::Result<Backend> {
        let folder = Folder::open(self.0.path().join(namespace))?;
        Ok(Backend { coordinator: None, store: Some(Arc::new(Files(folder))) })
    }

    async fn remove(&self, namespace: &str) {
        // What is left goes with the folder around it.
        std::fs::remove_dir_all(self.0.path().join(namespace)).ok();
    }
}

fn main() {
    avout_conformance::run(Folders(TempDir::new().expect("a folder for the test")))
}
