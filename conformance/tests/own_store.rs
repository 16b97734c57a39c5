//! The laws of stores of `avout-conformance`, on the store of the example `own_store`.

#[path = "../../examples/own_store/folder.rs"]
mod folder;
#[path = "../../examples/own_store/store.rs"]
mod store;

use std::sync::Arc;

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture, Law, Verdict, run_law};
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
}

/// Every law of the two groups for stores holds or does not apply.
#[test]
fn keeps_the_laws_of_stores() {
    let names = avout_conformance::laws().map(Law::name);
    let names =
        names.filter(|name| name.starts_with("state_container::") || name.starts_with("versioned_state_container::"));
    let mut kept = 0;
    for name in names {
        match run_law(Folders(TempDir::new().expect("a folder for the test")), &name) {
            Verdict::Passed => kept += 1,
            Verdict::Skipped(reason) => eprintln!("{name}: skipped: {reason}"),
            Verdict::Failed(how) => panic!("{name}: {how}"),
        }
    }
    assert!(kept > 30, "only {kept} laws apply");
}
