//! Several processes on one file.

use std::io::{BufRead, BufReader, Write};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use avout_core::backend::{Coordinator as _, Store as _, Wake};
use avout_core::protocol::{Commit, Delete, Key, Revision, State};
use avout_core::{ErrorKind, Result};
use tokio::task::JoinSet;

use crate::support::*;

const INCREMENTS: u64 = 100;

fn counters() -> [Key; 2] {
    [key("/count"), key("/other")]
}

async fn both_counters(coordinator: &avout_sql::Coordinator) -> [u64; 2] {
    let snapshot = coordinator.read(&counters(), None).await.expect("a snapshot");
    let number = |i: usize| snapshot.entries[i].as_ref().map_or(0, number);
    [number(0), number(1)]
}

/// The lines that a child prints, and that begin with `mark`.
fn marked(child: &mut Child, mark: &'static str) -> impl Iterator<Item = String> + use<> {
    let out = BufReader::new(child.stdout.take().expect("a pipe"));
    // The test harness prints before and after, and on the line of the first print.
    out.lines()
        .map_while(Result::<_, std::io::Error>::ok)
        .filter_map(move |line| line.find(mark).map(|at| line[at + mark.len()..].trim().to_owned()))
}

fn say(what: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what}").and_then(|()| out.flush()).expect("a pipe to the parent");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_increments() {
    let Some(file) = as_child() else { return };
    let backend = avout_sql::open(file).await.expect("a file that opens");
    for _ in 0..INCREMENTS {
        increment(&backend.coordinator, &counters()).await.expect("a commit");
    }
    backend.close().await;
}

/// Processes that open a new file at the same moment and commit to it lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn no_commit_is_lost() {
    let place = Place::new();
    let children: Vec<_> = (0..4).map(|_| child("processes::child_increments", &place.file())).collect();
    for child in children {
        let output = child.wait_with_output().expect("an end");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let backend = place.open().await;
    assert_eq!(both_counters(&backend.coordinator).await, [4 * INCREMENTS; 2]);
    backend.close().await;
    let rows: i64 =
        raw(&place.file()).query_row("SELECT count(*) FROM writers", [], |row| row.get(0)).expect("a count");
    assert!(rows <= 5, "rows of clients that closed: {rows}");
}

#[tokio::test(flavor = "multi_thread")]
async fn child_increments_for_ever() {
    let Some(file) = as_child() else { return };
    let backend = avout_sql::open(file).await.expect("a file that opens");
    loop {
        let count = increment(&backend.coordinator, &counters()).await.expect("a commit");
        say(format_args!("acknowledged {count}"));
    }
}

/// What a process was told is committed is there after it was killed, whole, and the file is sound.
#[tokio::test(flavor = "multi_thread")]
async fn killed_writers_lose_nothing() {
    let place = Place::new();
    for round in 0..12_u64 {
        let mut child = child("processes::child_increments_for_ever", &place.file());
        let mut lines = marked(&mut child, "acknowledged ");
        let mut told = 0;
        for _ in 0..=(round * 7 % 30) {
            told = lines.next().and_then(|line| line.parse::<u64>().ok()).expect("a count");
        }
        child.kill().expect("killed");
        told = lines.filter_map(|line| line.parse().ok()).max().unwrap_or(told).max(told);
        child.wait().expect("an end");
        let sound: String =
            raw(&place.file()).query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
        assert_eq!(sound, "ok");
        let backend = place.open().await;
        let [count, other] = both_counters(&backend.coordinator).await;
        assert!(count >= told, "told {told}, found {count}");
        assert!(count <= told + 1, "told {told}, found {count}");
        assert_eq!(count, other);
        backend.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn child_changes_on_demand() {
    let Some(file) = as_child() else { return };
    let backend = avout_sql::open(file).await.expect("a file that opens");
    for line in std::io::stdin().lock().lines().map_while(Result::<_, std::io::Error>::ok) {
        let count = increment(&backend.coordinator, &[key(&line)]).await.expect("a commit");
        say(format_args!("changed {count}"));
    }
}

/// A watcher wakes for each change that another process makes after it was made, and only for its keys.
#[tokio::test(flavor = "multi_thread")]
async fn watches_other_processes() {
    let place = Place::new();
    let backend = place.open().await;
    let c = &backend.coordinator;
    let mut child = child("processes::child_changes_on_demand", &place.file());
    let mut orders = child.stdin.take().expect("a pipe");
    let mut answers = marked(&mut child, "changed ");
    let mut change = |name: &str| {
        writeln!(orders, "{name}").expect("an order");
        answers.next().expect("an answer")
    };
    for _ in 0..30 {
        let mut watcher = c.watch(&[key("/watched"), key("/too")]).await.expect("a watcher");
        change("/watched");
        let wake = tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("a wake").expect("no error");
        assert_eq!(wake, Wake::Changed);
        change("/other");
        let quiet = tokio::time::timeout(std::time::Duration::from_millis(30), watcher.changed()).await;
        assert!(quiet.is_err(), "woken for another key");
        change("/too");
        tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("a wake").expect("no error");
    }
    drop(orders);
    assert!(child.wait().expect("an end").success());
}

/// Clients of one process that open the same file are as independent as processes.
#[tokio::test(flavor = "multi_thread")]
async fn many_clients_in_one_process() {
    let place = Place::new();
    let file = place.file();
    let opens: Vec<_> = (0..6).map(|_| tokio::spawn(avout_sql::open(file.clone()))).collect();
    let mut tasks = Vec::new();
    for open in opens {
        let backend = open.await.expect("a task").expect("a file that opens");
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                increment(&backend.coordinator, &counters()).await.expect("a commit");
            }
            // Closing one client must not take the others' locks away.
            backend.close().await;
        }));
    }
    for task in tasks {
        task.await.expect("a task");
    }
    let backend = place.open().await;
    assert_eq!(both_counters(&backend.coordinator).await, [120; 2]);
}

/// Whoever commits, every client of the file reads it from then on, whatever it has read or written before. One of them always
/// has a commit under way.
#[tokio::test(flavor = "multi_thread")]
async fn each_reads_what_others_commit() {
    let place = Place::new();
    let mut clients = [place.open().await, place.open().await, place.open().await];
    let busy = keep_busy(&clients[0].coordinator);
    let keys: Vec<Key> = (0..6).map(|n| key(&format!("/{n}"))).collect();
    let mut current: Vec<Option<(u64, Revision)>> = vec![None; keys.len()];
    let mut by = 0;
    for n in 0..4_000 {
        // Now and then one is alone for long, and may rely on what it knows.
        by = if rand::random_bool(if n % 1_000 < 500 { 0.6 } else { 0.02 }) { rand::random_range(0..3) } else { by };
        let at = rand::random_range(0..keys.len());
        let c = &clients[by].coordinator;
        match (rand::random_range(0..20), current[at].clone()) {
            (0, _) if by > 0 => {
                let left = std::mem::replace(&mut clients[by], place.open().await);
                left.close().await;
            }
            (1, _) => {
                let state = State::Bytes(vec![1].into());
                clients[by].store.state(&key("/atom")).set_state(state).await.expect("an atom's write");
            }
            (2..5, Some((_, revision))) => {
                let deletes = vec![Delete { key: keys[at].clone(), revision }];
                committed(c.commit(&Commit { deletes, ..Commit::default() }).await);
                current[at] = None;
            }
            (_, before) => {
                let expected = before.as_ref().map(|(_, revision)| revision);
                let done = committed(c.commit(&puts(&[(&keys[at], expected, n)])).await);
                current[at] = Some((n, done.revisions[0].clone()));
            }
        }
        for client in clients.iter().filter(|_| rand::random_bool(0.7)) {
            let some: Vec<usize> = (0..keys.len()).filter(|_| rand::random_bool(0.5)).collect();
            let asked: Vec<Key> = some.iter().map(|at| keys[*at].clone()).collect();
            let snapshot = client.coordinator.read(&asked, None).await.expect("a snapshot");
            let found = snapshot.entries.iter().map(|entry| entry.as_ref().map(|e| (number(e), e.revision.clone())));
            let expected: Vec<_> = some.iter().map(|at| current[*at].clone()).collect();
            assert_eq!(found.collect::<Vec<_>>(), expected, "after {n}");
        }
    }
    drop(busy);
}

/// A read sees every commit that was acknowledged before it began, and each one whole, while two clients read and write as
/// fast as they can, one of them alone for some of the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_is_older_than_what_was_acknowledged() {
    const PAIRS: usize = 4;
    const ROUNDS: u64 = 400;
    let place = Place::new();
    let clients = Arc::new([place.open().await, place.open().await]);
    let keys: Arc<Vec<Key>> = Arc::new((0..2 * PAIRS).map(|n| key(&format!("/{n}"))).collect());
    let acknowledged: Arc<[AtomicU64; PAIRS]> = Arc::default();
    let mut tasks = JoinSet::new();
    for pair in 0..PAIRS {
        let (clients, keys, acknowledged) = (Arc::clone(&clients), Arc::clone(&keys), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            let (a, b) = (&keys[2 * pair], &keys[2 * pair + 1]);
            let mut revisions: Option<Vec<Revision>> = None;
            for n in 1..=ROUNDS {
                let by = if n % 200 < 100 { 0 } else { rand::random_range(0..2) };
                let [old_a, old_b] = [0, 1].map(|at| revisions.as_ref().map(|revisions| &revisions[at]));
                let commit = puts(&[(a, old_a, n), (b, old_b, n)]);
                revisions = Some(committed(clients[by].coordinator.commit(&commit).await).revisions);
                acknowledged[pair].store(n, Ordering::SeqCst);
            }
        });
    }
    for reader in 0..4 {
        let (clients, keys, acknowledged) = (Arc::clone(&clients), Arc::clone(&keys), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            loop {
                let before: Vec<u64> = acknowledged.iter().map(|n| n.load(Ordering::SeqCst)).collect();
                // All, or one pair: those that nobody writes any more are known for longer.
                let pairs = if rand::random() { 0..PAIRS } else { reader..reader + 1 };
                let asked = &keys[2 * pairs.start..2 * pairs.end];
                let snapshot = clients[reader % 2].coordinator.read(asked, None).await.expect("a snapshot");
                for (pair, found) in pairs.zip(snapshot.entries.chunks(2)) {
                    let [a, b] = [0, 1].map(|at| found[at].as_ref().map_or(0, number));
                    assert!(a == b && a >= before[pair], "{a} and {b} after {}", before[pair]);
                }
                if before.iter().all(|n| *n == ROUNDS) {
                    return;
                }
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("no panic");
    }
}

/// While another process holds the lock for longer than the busy timeout writing is refused, reading
/// goes on, and afterwards all is as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_waited_for_so_long() {
    let place = Place::new();
    let backend = place.open_quick().await;
    let c = &backend.coordinator;
    let a = key("/a");
    let revision = create(c, &a, 1).await;
    let other = raw(&place.file());
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let error = c.commit(&puts(&[(&a, Some(&revision), 2)])).await.expect_err("locked");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("busy timeout"), "{error}");
    assert_eq!(read(c, &a).await.as_ref().map(number), Some(1));
    other.execute_batch("ROLLBACK").expect("the lock's end");
    committed(c.commit(&puts(&[(&a, Some(&revision), 3)])).await);
}
