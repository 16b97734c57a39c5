//! Commits that wait share a transaction, and clients end as a whole.

use std::sync::Arc;

use avout_core::backend::Coordinator as _;
use avout_sql::Options;

use crate::support::*;

/// Many commits at once need far fewer SQLite transactions, each one an fsync, and each is whole.
#[tokio::test(flavor = "multi_thread")]
async fn commits_share_transactions() {
    let place = Place::new();
    let backend = place.open().await;
    let commits = 400;
    // While somebody else has the lock they gather.
    let lock = raw(&place.file());
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let tasks: Vec<_> = (0..commits)
        .map(|i| {
            let coordinator = Arc::clone(&backend.coordinator);
            tokio::spawn(async move { create(&coordinator, &key(&format!("/k/{i}")), i).await })
        })
        .collect();
    until("all commits wait", || backend.coordinator.under_way() as u64 == commits).await;
    lock.execute_batch("ROLLBACK").expect("the lock's end");
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.expect("a task").as_number());
    }
    revisions.sort_unstable();
    revisions.dedup();
    assert_eq!(revisions.len() as u64, commits, "each has a point of its own");
    let (transactions, counted) = backend.coordinator.stats();
    assert_eq!(counted, commits);
    assert!(transactions <= 40, "{transactions} transactions for {commits} commits");
}

/// Commits of one batch that contend for a key: one wins each round, the others see its record.
#[tokio::test(flavor = "multi_thread")]
async fn conflicts_within_a_batch() {
    for options in [None, Some(Options::memory())] {
        let place = Place::new();
        let backend = match options {
            Some(options) => options.open().await.expect("memory"),
            None => place.open().await,
        };
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let coordinator = Arc::clone(&backend.coordinator);
                tokio::spawn(async move {
                    for _ in 0..20 {
                        increment(&coordinator, &[key("/n")]).await.expect("a commit");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a task");
        }
        assert_eq!(read(&backend.coordinator, &key("/n")).await.as_ref().map(number), Some(320));
    }
}

/// A commit whose caller went away is applied as a whole or not at all, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn callers_may_go_away() {
    let place = Place::new();
    let backend = place.open().await;
    let c = &backend.coordinator;
    let lock = raw(&place.file());
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    for i in 0..20 {
        let (a, b) = (key(&format!("/a/{i}")), key(&format!("/b/{i}")));
        let commit = puts(&[(&a, None, i), (&b, None, i)]);
        let gone = tokio::time::timeout(std::time::Duration::from_millis(1), c.commit(&commit)).await;
        assert!(gone.is_err());
    }
    lock.execute_batch("ROLLBACK").expect("the lock's end");
    create(c, &key("/last"), 1).await;
    let (a, b) = (c.list_all(&key("/a")).await.expect("keys"), c.list_all(&key("/b")).await.expect("keys"));
    assert_eq!(a.len(), b.len());
    assert!(a.len() <= 1, "only the first can have begun: {a:?}");
}

/// The names of this process's threads.
#[cfg(target_os = "linux")]
fn threads(of: &std::path::Path) -> usize {
    // Other tests run beside this one, so it counts who has this file open instead of who runs.
    let open = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).filter(|path| path.starts_with(of)).count()
}

/// After a close, or after the last handle is dropped, no thread has the file open, and its log is written back.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn clients_end() {
    let place = Place::new();
    let folder = place.folder().canonicalize().expect("a path");
    for close in [true, false] {
        let backend = place.open().await;
        let watcher = backend.coordinator.watch(&[key("/a")]).await.expect("a watcher");
        backend.coordinator.list_all(&key("/a")).await.expect("keys");
        assert!(threads(&folder) > 0);
        if close {
            backend.close().await;
        }
        drop(backend);
        drop(watcher);
        until("all descriptors are closed", || threads(&folder) == 0).await;
        let names: Vec<_> =
            std::fs::read_dir(&folder).expect("a folder").map(|e| e.expect("a name").file_name()).collect();
        assert_eq!(names, ["state.db"]);
    }
}
