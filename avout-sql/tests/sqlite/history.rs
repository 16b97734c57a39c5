//! Commits that were acknowledged and are gone, since an older copy was put back: who is told, and what is still taken.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use avout_core::ErrorKind;
use avout_core::backend::{CasOutcome, Coordinator as _, Store as _};
use avout_core::protocol::{Key, State};
use avout_sql::Backend;

use crate::support::*;

/// Has the `sqlite3` shell do something with a file. `false`: there is none.
fn shell(file: &Path, command: &str) -> bool {
    match Command::new("sqlite3").arg("-bail").arg(file).arg(".timeout 10000").arg(command).output() {
        Ok(output) => {
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            true
        }
        Err(error) => {
            let required = std::env::var("AVOUT_TEST_REQUIRE").unwrap_or_default();
            assert!(!required.contains("sqlite3"), "sqlite3: {error}");
            println!("not tested: there is no sqlite3 here: {error}");
            false
        }
    }
}

/// A file of which there is an older copy.
pub(crate) struct Older {
    pub(crate) place: Place,
    copy: std::path::PathBuf,
}

impl Older {
    pub(crate) fn new() -> Self {
        let place = Place::new();
        let copy = place.folder().join("copy.db");
        Self { place, copy }
    }

    /// Copies the file as it is now.
    pub(crate) fn copy(&self) -> bool {
        shell(&self.place.file(), &format!(".backup {}", self.copy.display()))
    }

    /// Writes the copy into the open file.
    pub(crate) fn restore(&self) {
        assert!(shell(&self.place.file(), &format!(".restore {}", self.copy.display())));
    }

    /// Puts the copy in the place of the file, and of its log.
    pub(crate) fn replace(&self) {
        for suffix in ["", "-wal", "-shm"] {
            fs::remove_file(format!("{}{suffix}", self.place.file().display())).expect("deleted");
        }
        fs::copy(&self.copy, self.place.file()).expect("copied");
    }
}

fn k() -> Key {
    key("/k")
}

async fn add(backend: &Backend, times: u64) -> u64 {
    let mut count = 0;
    for _ in 0..times {
        count = increment(&backend.coordinator, &[k()]).await.expect("a commit");
    }
    count
}

fn losses(backend: &Backend) -> u64 {
    let (of_coordinator, of_store) = (backend.coordinator.losses(), backend.store.losses());
    let counts = [of_coordinator, of_store].map(|losses| losses.expect("a client of a file can tell").count());
    assert_eq!(counts[0], counts[1]);
    counts[0]
}

/// What was read in a history that is gone is not committed on, though the one that has taken its place has come as far, and has made its
/// commits under the same points. Each client reports what it has seen and is gone, once, and one that has seen nothing of it does not.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_committed_on_what_is_gone() {
    let older = Older::new();
    let place = &older.place;
    let [writer, reader, early] = [place.open().await, place.open().await, place.open().await];
    add(&writer, 5).await;
    assert_eq!(add(&early, 1).await, 6);
    if !older.copy() {
        return;
    }
    add(&writer, 3).await;
    let seen = read(&reader.coordinator, &k()).await.expect("an entry");
    assert_eq!(number(&seen), 9);
    older.restore();
    // Nothing is known to this client of what is gone. Its last commit has the point, and the value, that the reader has seen.
    assert_eq!(add(&early, 3).await, 9);
    assert_eq!(read(&early.coordinator, &k()).await.map(|entry| entry.point), Some(seen.point));
    let stale = conflict(reader.coordinator.commit(&puts(&[(&k(), Some(&seen.revision), 100)])).await);
    assert_eq!(stale.stale, [k()]);
    assert_eq!(losses(&reader), 1, "what it read is gone");
    assert_eq!(add(&writer, 1).await, 10);
    assert_eq!(losses(&writer), 1, "what it wrote is gone");
    assert_eq!(add(&reader, 1).await, 11);
    let late = place.open().await;
    assert_eq!(add(&late, 1).await, 12);
    for client in [&writer, &reader] {
        assert_eq!(read(&client.coordinator, &k()).await.as_ref().map(number), Some(12));
        assert_eq!(losses(client), 1, "each loss once");
    }
    assert_eq!([losses(&early), losses(&late)], [0, 0], "they have seen nothing that is gone");
}

/// A client that only reads finds that the history went back, at its next read.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_finds_a_history_that_went_back() {
    let older = Older::new();
    let [writer, reader, atoms] = [older.place.open().await, older.place.open().await, older.place.open().await];
    add(&writer, 5).await;
    let atom = atoms.store.state(&k());
    atom.set_state(State::Bytes("1".into())).await.expect("written");
    if !older.copy() {
        return;
    }
    let revision = atom.set_state(State::Bytes("2".into())).await.expect("written");
    add(&writer, 3).await;
    assert_eq!(read(&reader.coordinator, &k()).await.as_ref().map(number), Some(8));
    older.restore();
    assert_eq!(read(&reader.coordinator, &k()).await.as_ref().map(number), Some(5));
    assert_eq!(losses(&reader), 1);
    let (now, _) = atom.state().await.expect("a read").expect("a state");
    assert!(matches!(now, State::Bytes(bytes) if bytes == "1"));
    assert_eq!(losses(&atoms), 1);
    add(&writer, 5).await;
    let stale = atom.compare_and_set_state(Some(revision), State::Bytes("3".into())).await.expect("an answer");
    assert!(matches!(stale, CasOutcome::Stale(Some(_))));
    assert_eq!((losses(&reader), losses(&atoms), losses(&writer)), (1, 1, 1));
}

/// A watcher wakes, and what it wakes for is reported before it reads.
#[tokio::test(flavor = "multi_thread")]
async fn a_watch_finds_a_history_that_went_back() {
    let older = Older::new();
    let [writer, watching] = [older.place.open().await, older.place.open().await];
    add(&writer, 5).await;
    if !older.copy() {
        return;
    }
    add(&writer, 3).await;
    let mut watcher = watching.coordinator.watch(&[k()]).await.expect("a watcher");
    older.restore();
    tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("a wake").expect("no error");
    assert_eq!(losses(&watching), 1);
    // Its points begin anew: it wakes for those that were told before, too.
    for _ in 0..3 {
        add(&writer, 1).await;
        tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("a wake").expect("no error");
    }
}

/// An older copy over the bytes of the open file is found by a client that only reads.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_over_the_open_file() {
    let older = Older::new();
    let [writer, reader] = [older.place.open().await, older.place.open().await];
    add(&writer, 5).await;
    if !older.copy() {
        return;
    }
    add(&writer, 3).await;
    raw(&older.place.file()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    assert_eq!(read(&reader.coordinator, &k()).await.as_ref().map(number), Some(8));
    // By another process: one that closes the file loses this one's locks on it.
    assert!(Command::new("cp").arg(&older.copy).arg(older.place.file()).status().expect("cp").success());
    let end = Instant::now() + PATIENCE;
    while losses(&reader) == 0 {
        assert!(Instant::now() < end, "it goes on reading, and is not told");
        if let Err(error) = reader.coordinator.read(&[k()], None).await {
            assert_eq!(error.kind(), ErrorKind::StoreLost, "{error}");
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A log that was cut under clients is a store that is lost: for those who read as for those who write, and for a client whose runtime has one
/// thread.
#[cfg(unix)]
#[tokio::test]
async fn a_log_that_was_cut_is_lost_to_readers() {
    let place = Place::new();
    let [writer, reader] = [place.open().await, place.open().await];
    add(&writer, 3).await;
    assert_eq!(read(&reader.coordinator, &k()).await.as_ref().map(number), Some(3));
    add(&writer, 3).await;
    let log = format!("{}-wal", place.file().display());
    fs::OpenOptions::new().write(true).open(&log).expect("a log").set_len(0).expect("cut");
    for client in [&reader, &writer, &reader] {
        let error = client.coordinator.read(&[k()], None).await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::StoreLost, "{error}");
        let error = increment(&client.coordinator, &[k()]).await.expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::StoreLost, "{error}");
    }
}

/// However many clients come and go, read and write, none takes that for a loss.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_where_clients_come_and_go() {
    let place = Place::new();
    let steady = [place.open().await, place.open().await];
    let tasks: Vec<_> = (0..4)
        .map(|n| {
            let (file, steady) = (place.file(), steady.clone());
            tokio::spawn(async move {
                for round in 0..10 {
                    let client = avout_sql::open(&file).await.expect("a file that opens");
                    for client in [&client, &steady[n % 2]] {
                        if round % 3 < 2 {
                            add(client, 3).await;
                        }
                        read(&client.coordinator, &k()).await;
                        let atom = client.store.state(&key(&format!("/{n}")));
                        atom.set_state(State::Bytes("x".into())).await.expect("written");
                        atom.state().await.expect("a read");
                        assert_eq!(losses(client), 0);
                    }
                    client.close().await;
                    if round == 5 {
                        raw(&file).execute_batch("VACUUM").expect("a vacuum");
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert_eq!(steady.each_ref().map(losses), [0, 0]);
}
