//! A backup is put back into the open file, or in its place.

#[path = "../../../tests/support/restored.rs"]
mod restored;

use avout_core::{ErrorKind, Stm};
use restored::Restorable;

use crate::history::Older;

impl Restorable for Older {
    async fn open(&self) -> avout_core::Result<Stm> {
        let opened = avout_sql::open(&self.place.file()).await?;
        Ok(restored::stm(opened.coordinator.clone(), opened.store.clone()))
    }

    async fn back_up(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        assert!(self.copy());
        Ok(())
    }

    async fn put_back(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        self.restore();
        Ok(())
    }
}

/// See [`restored`].
#[tokio::test(flavor = "multi_thread")]
async fn locks_and_commits_are_granted_once() {
    let mut older = Older::new();
    if older.copy() {
        restored::run(&mut older).await.expect("as it should be");
    }
}

/// A copy that is put in the place of the open file is another store to the clients that had it open: their guards are worth nothing, and
/// nothing of theirs gets into it.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_in_its_place_takes_nothing_of_old_clients() {
    let older = Older::new();
    let before = older.open().await.expect("a client");
    let count = before.create_ref("/count", 1_i64).await.expect("a ref");
    if !older.copy() {
        return;
    }
    let guard = before.lock("/lock").expect("a lock").acquire().await.expect("a guard");
    older.replace();
    let after = older.open().await.expect("a client of the copy");
    let its_count = after.open_ref::<i64>("/count").await.expect("its ref");
    let its_guard = after.lock("/lock").expect("a lock").acquire().await.expect("a guard");
    for _ in 0..3 {
        let added = before.dosync(async |tx| {
            tx.require(&guard).await?;
            tx.alter(&count, |n| n + 10).await
        });
        assert_eq!(added.await.expect_err("another file").kind(), ErrorKind::StoreLost);
        let added = after.dosync(async |tx| {
            tx.require(&its_guard).await?;
            tx.alter(&its_count, |n| n + 1).await
        });
        added.await.expect("a commit");
    }
    assert_eq!(its_count.get().await.expect("a value"), 4);
    tokio::time::timeout(crate::support::PATIENCE, guard.lost()).await.expect("the guard knows");
}
