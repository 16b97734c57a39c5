//! COMMITs that fail: what the callers are told is so, and stays so.

use std::sync::Arc;

use avout_core::backend::Coordinator as _;
use avout_core::protocol::{
    CodecId, Commit, CommitOutcome, Key, Meta, Payload, Put, Realm, Record, Resolution, Revision,
};
use avout_core::{Error, ErrorKind, Point, Receipt, Result, Stm};
use bytes::Bytes;
use rusqlite::Connection;
use tokio::runtime::{Builder, Handle, RuntimeFlavor};

use crate::coordinator::outcome::Receipt as Own;
use crate::schema::clock::{Clock, Name};
use crate::wire::faults::Fault;
use crate::writer::batch::CALM;
use crate::{Backend, Coordinator};

fn put(revision: Option<&Revision>) -> Commit {
    put_at(key(), revision)
}

fn put_at(key: Key, revision: Option<&Revision>) -> Commit {
    let meta = Meta { realm: Realm::new(0), codec: CodecId::JSON, type_tag: "t".into(), history: 0 };
    let record = Arc::new(Record::first(Arc::new(meta), Payload::Inline(Bytes::from_static(b"x"))));
    Commit { puts: vec![Put { key, revision: revision.cloned(), record }], ..Commit::default() }
}

fn key() -> Key {
    Key::new("/k").expect("a key")
}

async fn revision(coordinator: &Coordinator) -> Option<Revision> {
    let snapshot = coordinator.read(&[key()], None).await.expect("a snapshot");
    snapshot.entries[0].as_ref().map(|entry| entry.revision.clone())
}

async fn written_at(coordinator: &Coordinator) -> Option<Point> {
    let snapshot = coordinator.read(&[key()], None).await.expect("a snapshot");
    snapshot.entries[0].as_ref().map(|entry| entry.point)
}

fn committed(outcome: Result<CommitOutcome>) -> Point {
    match outcome.expect("an outcome") {
        CommitOutcome::Committed(committed) => committed.point,
        CommitOutcome::Conflict(conflict) => panic!("{conflict:?}"),
    }
}

struct Setup {
    folder: tempfile::TempDir,
    backend: Backend,
}

impl Setup {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = crate::open(folder.path().join("state.db")).await.expect("a file that opens");
        committed(backend.coordinator.commit(&put(None)).await);
        Self { folder, backend }
    }

    async fn fault(&self, fault: Fault, looks: u32) -> Result<CommitOutcome> {
        let coordinator = &self.backend.coordinator;
        let now = revision(coordinator).await;
        let client = coordinator.client();
        client.hurry();
        client.shared.faults.set(fault, looks);
        let before = client.shared.stats.here();
        let outcome = coordinator.commit(&put(now.as_ref())).await;
        let has_room = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
        assert_eq!(client.shared.stats.here() - before, u64::from(has_room), "on the wrong thread");
        outcome
    }

    /// A commit after it works, once.
    async fn goes_on(&self) {
        let coordinator = &self.backend.coordinator;
        let now = revision(coordinator).await;
        let point = committed(coordinator.commit(&put(now.as_ref())).await);
        assert_eq!(written_at(coordinator).await, Some(point));
    }
}

/// Runs a test where the writer's thread does all commits, and where a lone one is done by its caller.
fn on_both_threads(test: impl AsyncFn(Setup)) {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let runtime = builder.worker_threads(1).enable_all().build().expect("a runtime");
        runtime.block_on(async { test(Setup::new().await).await });
    }
}

fn receipt(error: &Error) -> Bytes {
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown);
    match error.receipt() {
        Some(Receipt::Native(bytes)) => bytes.clone(),
        other => panic!("{other:?}"),
    }
}

/// A COMMIT whose wait for the disk failed and left nothing: the caller hears that nothing happened.
#[test]
fn a_lost_commit_is_fenced() {
    on_both_threads(async |setup| a_lost_commit_is_fenced_on(setup).await);
}

async fn a_lost_commit_is_fenced_on(setup: Setup) {
    let before = revision(&setup.backend.coordinator).await;
    let error = setup.fault(Fault::Lost, 0).await.expect_err("a fault");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(revision(&setup.backend.coordinator).await, before);
    setup.goes_on().await;
    // Found out at the second look.
    let error = setup.fault(Fault::Lost, 1).await.expect_err("a fault");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    setup.goes_on().await;
}

/// A COMMIT that failed and happened all the same: the caller hears that it happened.
#[test]
fn a_recovered_commit_is_told() {
    on_both_threads(async |setup| a_recovered_commit_is_told_on(setup).await);
}

async fn a_recovered_commit_is_told_on(setup: Setup) {
    let point = committed(setup.fault(Fault::Happened, 0).await);
    assert_eq!(written_at(&setup.backend.coordinator).await, Some(point));
    setup.goes_on().await;
}

/// A full disk at COMMIT needs no look: nothing happened.
#[test]
fn a_full_disk_is_definite() {
    on_both_threads(async |setup| a_full_disk_is_definite_on(setup).await);
}

async fn a_full_disk_is_definite_on(setup: Setup) {
    let error = setup.fault(Fault::Full, 100).await.expect_err("a fault");
    assert_eq!(error.kind(), ErrorKind::Full);
    setup.goes_on().await;
}

/// What cannot be found out at once is found out later with the receipt, by any client, before and after others
/// committed, always the same.
#[test]
fn receipts_resolve() {
    for fault in [Fault::Lost, Fault::Happened] {
        for after_others in [false, true] {
            on_both_threads(async |setup| a_receipt_resolves(setup, fault, after_others).await);
        }
    }
}

async fn a_receipt_resolves(setup: Setup, fault: Fault, after_others: bool) {
    let before = revision(&setup.backend.coordinator).await;
    let error = setup.fault(fault, 3).await.expect_err("a fault");
    let receipt = receipt(&error);
    let point = Point::new(Own::decode(&receipt).expect("ours").point as u64);
    if after_others {
        setup.goes_on().await;
    }
    let path = setup.folder.path().join("state.db");
    let other = crate::open(path).await.expect("a second client");
    let now = revision(&other.coordinator).await;
    for coordinator in [&other.coordinator, &setup.backend.coordinator, &other.coordinator] {
        let resolution = coordinator.resolve(&receipt).await.expect("a resolution");
        match fault {
            Fault::Happened => assert_eq!(resolution, Resolution::Committed(point)),
            _ => assert_eq!(resolution, Resolution::NotCommitted),
        }
    }
    assert_eq!(revision(&other.coordinator).await, now);
    if !after_others {
        assert_eq!(now == before, matches!(fault, Fault::Lost));
    }
    setup.goes_on().await;
    // The row that tells stays when both are closed.
    setup.backend.close().await;
    other.close().await;
    let third = crate::open(setup.folder.path().join("state.db")).await.expect("a third client");
    let resolution = third.coordinator.resolve(&receipt).await.expect("a resolution");
    assert_eq!(resolution == Resolution::NotCommitted, matches!(fault, Fault::Lost));
}

/// A commit to a file that was renamed just then is open, and in the file when that is back.
#[cfg(unix)]
#[test]
fn a_file_renamed_at_commit() {
    on_both_threads(async |setup| a_file_renamed_at_commit_on(setup).await);
}

async fn a_file_renamed_at_commit_on(setup: Setup) {
    let coordinator = &setup.backend.coordinator;
    let error = setup.fault(Fault::Moved, 0).await.expect_err("lost");
    let receipt = receipt(&error);
    assert_eq!(coordinator.resolve(&receipt).await.expect_err("lost").kind(), ErrorKind::StoreLost);
    let path = setup.folder.path().join("state.db");
    std::fs::rename(setup.folder.path().join("state.db.away"), path).expect("renamed back");
    let Resolution::Committed(point) = coordinator.resolve(&receipt).await.expect("a resolution") else {
        panic!("not committed")
    };
    assert_eq!(written_at(coordinator).await, Some(point));
    setup.goes_on().await;
}

/// Receipts of other stores, of long ago, or of no store are refused.
#[tokio::test]
async fn foreign_receipts_are_refused() {
    let setup = Setup::new().await;
    let realm = setup.backend.coordinator.capabilities().realm;
    let own = Own { realm, writer: Name::from_bytes([1; 16]), batch: 1, point: 1 };
    for bytes in [own.encode(), Own { realm: Realm::new(1), ..own }.encode(), Bytes::from_static(b"?")] {
        let error = setup.backend.coordinator.resolve(&bytes).await.expect_err("no receipt");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
    setup.goes_on().await;
}

/// A conflict in a batch whose outcome is unknown is no conflict: what it saw may never have been.
#[tokio::test]
async fn nothing_is_told_of_an_open_batch() {
    let setup = Setup::new().await;
    let coordinator = &setup.backend.coordinator;
    let now = revision(coordinator).await;
    let file = setup.folder.path().join("state.db");
    let lock = rusqlite::Connection::open(file).expect("a connection");
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let commit = put(now.as_ref());
    coordinator.client().shared.faults.set(Fault::Lost, 3);
    // `join!` polls it last: the others have sent their requests.
    let unlock = async { lock.execute_batch("ROLLBACK").expect("the lock's end") };
    // The first is a batch of its own, or all are one.
    let outcomes =
        tokio::join!(coordinator.commit(&commit), coordinator.commit(&commit), coordinator.commit(&commit), unlock);
    let mut unknown = 0;
    let mut conflicts = 0;
    for outcome in [outcomes.0, outcomes.1, outcomes.2] {
        match outcome {
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {
                unknown += 1;
                let resolution = coordinator.resolve(&receipt(&error)).await.expect("a resolution");
                assert_eq!(resolution, Resolution::NotCommitted);
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            Ok(CommitOutcome::Conflict(_)) => conflicts += 1,
            Ok(CommitOutcome::Committed(_)) => {}
        }
    }
    assert_eq!(unknown, 1);
    assert!(conflicts <= 1);
    setup.goes_on().await;
}

/// Commits that one task begins together share transactions, also after many that were alone and done by their caller.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commits_of_one_task_share_transactions() {
    let setup = Setup::new().await;
    let coordinator = &setup.backend.coordinator;
    let client = coordinator.client();
    let create = async |name: String| {
        client.hurry();
        let key = Key::new(name).expect("a key");
        committed(coordinator.commit(&put_at(key, None)).await);
    };
    for i in 0..100 {
        create(format!("/lone/{i}")).await;
    }
    assert!(client.shared.stats.here() > 90, "alone");
    let (before, _) = client.shared.stats.read();
    for i in 0..20 {
        let name = |j| format!("/together/{i}/{j}");
        tokio::join!(create(name(0)), create(name(1)), create(name(2)), create(name(3)));
    }
    let (after, _) = client.shared.stats.read();
    assert!(after - before <= 60, "{} transactions for 80 commits", after - before);
}

/// Whether a lone commit is done by its caller. The writer's thread may still be busy with the one before, so it is tried more than once.
async fn is_done_by_caller(setup: &Setup) -> bool {
    let coordinator = &setup.backend.coordinator;
    let client = coordinator.client();
    for _ in 0..100 {
        let now = revision(coordinator).await;
        client.hurry();
        let before = client.shared.stats.here();
        committed(coordinator.commit(&put(now.as_ref())).await);
        if client.shared.stats.here() > before {
            return true;
        }
    }
    false
}

/// A caller does its commit while there is a thread for each other task, be it a task itself or not.
#[test]
fn a_commit_is_done_by_its_caller_beside_few_tasks() {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let setup = Arc::new(runtime.block_on(Setup::new()));
    for (others, by_task, by_thread) in [(0, true, true), (1, true, true), (2, false, true), (3, false, false)] {
        let asleep: Vec<_> = (0..others).map(|_| runtime.spawn(std::future::pending::<()>())).collect();
        assert_eq!(runtime.block_on(is_done_by_caller(&setup)), by_thread, "a thread beside {others}");
        let task = Arc::clone(&setup);
        let done = runtime.spawn(async move { is_done_by_caller(&task).await });
        assert_eq!(runtime.block_on(done).expect("no panic"), by_task, "a task beside {others}");
        asleep.iter().for_each(tokio::task::JoinHandle::abort);
        runtime.block_on(async {
            for task in asleep {
                assert!(task.await.expect_err("it never ends").is_cancelled());
            }
        });
    }
}

/// The same of a whole client, with what it does in the background.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_is_done_by_its_caller_beside_the_sweeper() {
    let setup = Setup::new().await;
    let (coordinator, store) = (Arc::clone(&setup.backend.coordinator), Arc::clone(&setup.backend.store));
    let task = tokio::spawn(async move {
        let stm = Stm::new(coordinator.clone(), store);
        let count = stm.create_ref("/count", 0_u64).await.expect("a ref");
        let client = coordinator.client();
        for _ in 0..100 {
            client.hurry();
            let before = client.shared.stats.here();
            stm.dosync(async |tx| tx.update(&count, |count| *count += 1).await).await.expect("a commit");
            if client.shared.stats.here() > before {
                return true;
            }
        }
        false
    });
    assert!(task.await.expect("no panic"), "each was done by the writer's thread");
}

/// After many commits without a conflict they are written before all is looked at. A conflict among them still leaves nothing
/// behind, of whichever of its keys it is, and the others of its batch are committed.
#[tokio::test]
async fn an_unexpected_conflict_leaves_nothing_behind() {
    let setup = Setup::new().await;
    let coordinator = &setup.backend.coordinator;
    let read = async |keys: &[Key]| {
        let snapshot = coordinator.read(keys, None).await.expect("a snapshot");
        snapshot.entries.into_iter().map(|entry| entry.map(|entry| entry.revision)).collect::<Vec<_>>()
    };
    let keys = ["/a", "/b", "/c", "/other"].map(|name| Key::new(name).expect("a key"));
    for key in &keys {
        committed(coordinator.commit(&put_at(key.clone(), None)).await);
    }
    for stale in 0..3 {
        let old = revision(coordinator).await;
        for _ in 0..2 * CALM {
            let now = revision(coordinator).await;
            committed(coordinator.commit(&put(now.as_ref())).await);
        }
        let before = read(&keys).await;
        let mut commit = Commit::default();
        for (index, key) in keys[..3].iter().enumerate() {
            let revision = if index == stale { old.clone() } else { before[index].clone() };
            commit.puts.extend(put_at(key.clone(), revision.as_ref()).puts);
        }
        let others = put_at(keys[3].clone(), before[3].as_ref());
        let (conflict, other) = tokio::join!(coordinator.commit(&commit), coordinator.commit(&others));
        let CommitOutcome::Conflict(conflict) = conflict.expect("an outcome") else {
            panic!("committed on an old revision of {}", keys[stale]);
        };
        assert_eq!(conflict.stale, [keys[stale].clone()]);
        committed(other);
        assert_eq!(read(&keys[..3]).await, before[..3]);
    }
}

/// What a client knows is not relied on any more once it has seen that another program has written, which may leave the clock alone,
/// or that it has another connection, which cannot tell.
#[tokio::test]
async fn nothing_is_relied_on_after_another_program() {
    let setup = Setup::new().await;
    let coordinator = &setup.backend.coordinator;
    let client = coordinator.client();
    let keys = ["/a", "/b"].map(|name| Key::new(name).expect("a key"));
    let mut names = (0..).map(|n| Key::new(format!("/{n}")).expect("a key"));
    let mut known = async |key: &Key| {
        let now = committed(coordinator.commit(&put_at(names.next().expect("one more"), None)).await);
        let file = Connection::open(setup.folder.path().join("state.db")).expect("a connection");
        let clock = Clock::read(&file).expect("a clock");
        assert_eq!(u64::try_from(clock.point), Ok(now.number()));
        let clock = || Ok::<_, Error>(clock);
        client.shared.known.current(std::slice::from_ref(key), clock).expect("a clock").is_some()
    };
    let other = Connection::open(setup.folder.path().join("state.db")).expect("a connection");
    for event in 0..4 {
        for key in &keys {
            let now = coordinator.read(std::slice::from_ref(key), None).await.expect("a snapshot").entries.remove(0);
            let put = put_at(key.clone(), now.map(|entry| entry.revision).as_ref());
            committed(coordinator.commit(&put).await);
        }
        assert!(known(&keys[0]).await && known(&keys[1]).await);
        match event {
            0 => {
                let failed = setup.fault(Fault::Lost, 0).await.expect_err("a commit that is lost");
                assert_eq!(failed.kind(), ErrorKind::Unavailable);
            }
            1 => {
                let failed = setup.fault(Fault::Lost, 9).await.expect_err("a commit that nobody can tell of");
                assert_eq!(failed.kind(), ErrorKind::OutcomeUnknown);
            }
            2 => {
                other.execute_batch("INSERT INTO refs (key, point, record) VALUES ('/x', 1, x'00')").expect("a write");
                let failed = setup.fault(Fault::Full, 0).await.expect_err("a commit that is too much");
                assert_eq!(failed.kind(), ErrorKind::Full);
            }
            _ => other.execute_batch("UPDATE refs SET record = x'00' WHERE key = '/a'").expect("a write"),
        }
        assert!(!known(&keys[0]).await && !known(&keys[1]).await, "after event {event}");
    }
}
