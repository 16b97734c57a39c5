//! Which threads are kept, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use avout_core::backend::Store as _;
use avout_core::protocol::{ClientId, State, Version};
use avout_sql::Options;
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::support::*;

/// However many large reads wait for a connection, each other blocking operation of the runtime has a thread.
#[test]
fn reads_that_wait_keep_no_threads() {
    const READS: usize = 600;
    // Where the clock is paused reads are done on the caller's own runtime, so that its threads can be counted out.
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).max_blocking_threads(8).build();
    runtime.expect("a runtime").block_on(async {
        let place = Place::new();
        let backend = Options::new(place.file()).readers(2).open().await.expect("a file that opens");
        let value = backend.store.versioned_state(&key("/large"));
        let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
        value.set_state_at(&version, State::Bytes(vec![1; 1 << 20].into())).await.expect("written");
        let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut reads = JoinSet::new();
        for _ in 0..READS {
            let (value, begun, done) = (Arc::clone(&value), Arc::clone(&begun), Arc::clone(&done));
            reads.spawn(async move {
                begun.fetch_add(1, Ordering::SeqCst);
                value.state_at(&version).await.expect("a read").expect("a value");
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        until("all reads wait", || begun.load(Ordering::SeqCst) == READS).await;
        let before = done.load(Ordering::SeqCst);
        tokio::fs::metadata(place.file()).await.expect("the file is there");
        let meanwhile = done.load(Ordering::SeqCst) - before;
        assert!(meanwhile < READS / 4, "a thread was free only after {meanwhile} of {READS} reads");
        reads.join_all().await;
    });
}

/// A task that was woken by one which then commits runs before that waits for the disk, also if commits are done by their callers.
#[test]
fn a_task_that_is_woken_before_a_commit_runs_first() {
    let runtime = Builder::new_multi_thread().worker_threads(4).enable_all().build().expect("a runtime");
    let place = Place::new();
    let backend = runtime.block_on(place.open());
    let commits = Arc::new(AtomicUsize::new(0));
    let late = runtime.block_on(async move {
        let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel();
        let done = Arc::clone(&commits);
        let other = tokio::spawn(async move {
            let mut late = 0;
            while let Some(sent) = woken.recv().await {
                late = late.max(done.load(Ordering::SeqCst) - sent);
            }
            late
        });
        let committing = tokio::spawn(async move {
            for _ in 0..300 {
                wake.send(commits.load(Ordering::SeqCst)).expect("the other listens");
                increment(&backend.coordinator, &[key("/n")]).await.expect("a commit");
                commits.fetch_add(1, Ordering::SeqCst);
            }
        });
        committing.await.expect("no panic");
        other.await.expect("no panic")
    });
    assert!(late <= 1, "it ran {late} commits later");
}
