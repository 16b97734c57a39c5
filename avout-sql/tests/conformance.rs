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

    async fn open_readonly(&self, namespace: &str) -> Option<avout_core::Result<Backend>> {
        let path = self.folder.path().join(namespace).with_extension("db");
        let opened = avout_sql::Options::new(path).readonly(true).open().await;
        Some(opened.map(|opened| Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) }))
    }

    /// Removes the file with its log, as an operator does who begins anew.
    async fn wipe(&self, namespace: &str) -> bool {
        let file = self.folder.path().join(namespace).with_extension("db");
        for beside in ["-wal", "-shm", ""] {
            let mut name = file.clone().into_os_string();
            name.push(beside);
            // The log is there while the file is open, and only then.
            let _ = std::fs::remove_file(name);
        }
        true
    }
}

fn main() {
    avout_conformance::run(Sqlite { folder: tempfile::tempdir().expect("a folder for temporary files") })
}
