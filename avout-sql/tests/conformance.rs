//! The laws of `avout-conformance`, on a SQLite file each.

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};
use tempfile::TempDir;

struct Sqlite {
    folder: TempDir,
}

#[async_trait]
impl Fixture for Sqlite {
    fn name(&self) -> &str {
        "sql"
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let opened = avout_sql::open(self.folder.path().join(namespace).with_extension("db")).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }
}

fn main() {
    avout_conformance::run(Sqlite { folder: tempfile::tempdir().expect("a folder for temporary files") })
}
