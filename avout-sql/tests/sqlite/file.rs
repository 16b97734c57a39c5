//! What happens to files, and what a client then says.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use avout_core::backend::{Coordinator as _, Store as _};
use avout_core::protocol::{ClientId, Key, State, Version};
use avout_core::{Error, ErrorKind};
use avout_sql::{Backend, Options};

use crate::support::*;

async fn refused(path: &Path) -> Error {
    avout_sql::open(path).await.expect_err("refused")
}

/// A file of another schema is refused with both versions, and one of an application, or of no
/// database at all, likewise; all stay as they were.
#[tokio::test]
async fn foreign_files_are_refused() {
    let place = Place::new();
    place.open().await.close().await;
    for (version, advice) in [(7, "upgrade"), (1, "downgrade")] {
        raw(&place.file()).pragma_update(None, "user_version", version).expect("a version");
        let before = fs::read(place.file()).expect("bytes");
        let error = refused(&place.file()).await;
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for part in [&format!("version {version}"), "version 3", advice, "state.db"] {
            assert!(error.to_string().contains(part), "{error}");
        }
        assert_eq!(fs::read(place.file()).expect("bytes"), before);
    }

    let other = place.folder().join("other.db");
    raw(&other).execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)").expect("a table");
    let before = fs::read(&other).expect("bytes");
    let error = refused(&other).await;
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    assert!(error.to_string().contains("other.db"), "{error}");
    assert_eq!(fs::read(&other).expect("bytes"), before);

    let text = place.folder().join("text.db");
    fs::write(&text, "not a database, only a text that is long enough to be taken for one".repeat(40)).expect("a file");
    let before = fs::read(&text).expect("bytes");
    let error = refused(&text).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("no SQLite database"), "{error}");
    assert!(error.to_string().contains("text.db"), "{error}");
    assert_eq!(fs::read(&text).expect("bytes"), before);

    assert_eq!(refused(place.folder()).await.kind(), ErrorKind::InvalidInput);
    assert_eq!(refused(&place.folder().join("none/x.db")).await.kind(), ErrorKind::InvalidInput);
}

/// An empty file becomes a store, and a store that was made is found again with the same realm.
#[tokio::test]
async fn reopens() {
    let place = Place::new();
    fs::write(place.file(), "").expect("an empty file");
    let backend = place.open().await;
    let realm = backend.store.realm();
    create(&backend.coordinator, &key("/a"), 5).await;
    backend.close().await;
    let backend = place.open().await;
    assert_eq!(backend.store.realm(), realm);
    assert_eq!(backend.coordinator.capabilities().realm, realm);
    assert_eq!(read(&backend.coordinator, &key("/a")).await.as_ref().map(number), Some(5));
    assert_ne!(Options::memory().open().await.expect("memory").store.realm(), realm);
}

/// The mode of a new file lets its owner in and nobody else, and links are refused.
#[cfg(unix)]
#[tokio::test]
async fn modes_and_links() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let backend = place.open().await;
    create(&backend.coordinator, &key("/a"), 1).await;
    for suffix in ["", "-wal", "-shm"] {
        let path = format!("{}{suffix}", place.file().display());
        assert_eq!(fs::metadata(&path).expect(&path).permissions().mode() & 0o777, 0o600, "{path}");
    }
    let link = place.folder().join("link.db");
    std::os::unix::fs::symlink(place.file(), &link).expect("a link");
    assert_eq!(refused(&link).await.kind(), ErrorKind::Denied);
    // A folder may be a link.
    let folder = place.folder().join("folder");
    std::os::unix::fs::symlink(place.folder(), &folder).expect("a link");
    let second = avout_sql::open(folder.join("state.db")).await.expect("the same file");
    assert_eq!(second.store.realm(), backend.store.realm());
    second.close().await;
    let hard = place.folder().join("hard.db");
    fs::hard_link(place.file(), &hard).expect("a link");
    assert_eq!(refused(&hard).await.kind(), ErrorKind::Denied);
    // A second name would be a second log.
    assert_lost(&backend).await;
    fs::remove_file(&hard).expect("removed");
    works(&backend).await;
}

async fn attempt(backend: &Backend) -> Result<u64, Error> {
    increment(&backend.coordinator, &[key("/n")]).await
}

async fn works(backend: &Backend) {
    attempt(backend).await.expect("a commit");
}

async fn assert_lost(backend: &Backend) {
    let a = key("/lost");
    let commit = backend.coordinator.commit(&puts(&[(&a, None, 1)])).await;
    assert_eq!(commit.expect_err("lost").kind(), ErrorKind::StoreLost);
    let value = backend.store.versioned_state(&a);
    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    let write = value.set_state_at(&version, State::Bytes("x".into())).await;
    assert_eq!(write.expect_err("lost").kind(), ErrorKind::StoreLost);
    let atom = backend.store.state(&a).set_state(State::Bytes("x".into())).await;
    assert_eq!(atom.expect_err("lost").kind(), ErrorKind::StoreLost);
}

/// A file that was renamed away is lost, and it goes on when it is back.
#[cfg(unix)]
#[tokio::test]
async fn a_renamed_file() {
    let place = Place::new();
    let backend = place.open().await;
    works(&backend).await;
    let mut watcher = backend.coordinator.watch(&[key("/n")]).await.expect("a watcher");
    let away = place.folder().join("away.db");
    fs::rename(place.file(), &away).expect("renamed");
    assert_lost(&backend).await;
    assert_eq!(backend.coordinator.read(&[key("/n")], None).await.expect_err("lost").kind(), ErrorKind::StoreLost);
    let wake = tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("a wake").expect("no error");
    assert_eq!(wake, avout_core::backend::Wake::Lost);
    fs::rename(&away, place.file()).expect("renamed back");
    assert_eq!(attempt(&backend).await.expect("a commit"), 2);
}

/// A file that was deleted, or replaced by another store, is lost; the other store is not touched.
#[cfg(unix)]
#[tokio::test]
async fn a_replaced_file() {
    let place = Place::new();
    let backend = place.open().await;
    works(&backend).await;
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", place.file().display())).expect("deleted");
    }
    assert_lost(&backend).await;
    let second = place.open().await;
    assert!(read(&second.coordinator, &key("/n")).await.is_none());
    works(&second).await;
    assert_lost(&backend).await;
    assert_eq!(backend.coordinator.read(&[key("/n")], None).await.expect_err("lost").kind(), ErrorKind::StoreLost);
    // The end of the old client must not delete the log of the new one.
    backend.close().await;
    assert_eq!(attempt(&second).await.expect("a commit"), 2);
    second.close().await;
    let third = place.open().await;
    assert_eq!(attempt(&third).await.expect("a commit"), 3);
}

/// Without its log the file is lost, since commits would go to a log that nobody finds.
#[cfg(unix)]
#[tokio::test]
async fn a_deleted_log() {
    for suffix in ["-wal", "-shm"] {
        let place = Place::new();
        let backend = place.open().await;
        works(&backend).await;
        let path = format!("{}{suffix}", place.file().display());
        let away = place.folder().join("away");
        fs::rename(&path, &away).expect("renamed");
        assert_lost(&backend).await;
        fs::rename(&away, &path).expect("renamed back");
        works(&backend).await;
    }
}

/// A file that was cut is lost; one that VACUUM made smaller is not.
#[cfg(unix)]
#[tokio::test]
async fn a_cut_file() {
    let place = Place::new();
    let backend = place.open().await;
    let value = backend.store.versioned_state(&key("/large"));
    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    value.set_state_at(&version, State::Bytes(vec![1; 8 << 20].into())).await.expect("written");
    works(&backend).await;
    value.delete_state_at(&version).await.expect("deleted");
    let length = || fs::metadata(place.file()).expect("a file").len();
    let before = length();
    raw(&place.file()).execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").expect("a vacuum");
    assert!(length() < before);
    works(&backend).await;
    let file = fs::OpenOptions::new().write(true).open(place.file()).expect("a file");
    file.set_len(100).expect("cut");
    assert_lost(&backend).await;
}

/// A log that was cut is lost, unless all that was in it is in the file already.
#[cfg(unix)]
#[tokio::test]
async fn a_cut_log() {
    let place = Place::new();
    let backend = place.open().await;
    works(&backend).await;
    let log = format!("{}-wal", place.file().display());
    raw(&place.file()).execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("a checkpoint");
    assert_eq!(fs::metadata(&log).expect("a log").len(), 0);
    assert_eq!(attempt(&backend).await.expect("a commit"), 2);
    let file = fs::OpenOptions::new().write(true).open(&log).expect("a log");
    file.set_len(50).expect("cut");
    assert_lost(&backend).await;
}

/// A record that is damaged is told with its key, and the others go on.
#[tokio::test]
async fn a_damaged_record() {
    let place = Place::new();
    let backend = place.open().await;
    let c = &backend.coordinator;
    let (a, b) = (key("/a"), key("/b"));
    let revision = create(c, &a, 1).await;
    create(c, &b, 2).await;
    for damage in ["x'0102'", "NULL", "'text'", "zeroblob(300)"] {
        let sql = format!("PRAGMA ignore_check_constraints = ON; UPDATE refs SET record = {damage} WHERE key = '/a'");
        if raw(&place.file()).execute_batch(&sql).is_err() {
            continue; // the table's own constraint refuses it
        }
        let error = c.read(&[b.clone(), a.clone()], None).await.expect_err("damaged");
        assert_eq!((error.kind(), error.key()), (ErrorKind::Corrupt, Some(&a)), "{damage}");
        assert_eq!(read(c, &b).await.as_ref().map(number), Some(2));
    }
    // A conflict on it says so without the entries, and it can be replaced.
    let found = conflict(c.commit(&puts(&[(&a, None, 0)])).await);
    assert_eq!((found.stale, found.fresh.is_none()), (vec![a.clone()], true));
    committed(c.commit(&puts(&[(&a, Some(&revision), 3)])).await);
    assert_eq!(read(c, &a).await.as_ref().map(number), Some(3));
    // A key that is none does not hide the others.
    raw(&place.file())
        .execute_batch("INSERT INTO refs (key, point, record) VALUES ('/a//b', 1, x'00')")
        .expect("a row");
    assert_eq!(c.list_all(&Key::root()).await.expect("keys"), [a, b]);
}

/// What another program changes and leaves the clock alone is found also by a client that is writing all the time, and could rely on
/// what it has written itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_damaged_beside_a_writer() {
    let place = Place::new();
    let backend = place.open().await;
    let c = &backend.coordinator;
    let a = key("/a");
    let mut revision = create(c, &a, 0).await;
    let busy = keep_busy(c);
    for n in 1..20 {
        let done = committed(c.commit(&puts(&[(&a, Some(&revision), n)])).await);
        revision = done.revisions[0].clone();
        assert_eq!(read(c, &a).await.as_ref().map(number), Some(n));
        raw(&place.file()).execute_batch("UPDATE refs SET record = x'0102' WHERE key = '/a'").expect("damage");
        let deadline = Instant::now() + PATIENCE;
        while c.read(std::slice::from_ref(&a), None).await.is_ok() {
            assert!(Instant::now() < deadline, "the damage is not found");
            tokio::task::yield_now().await;
        }
    }
    drop(busy);
}

/// A file system for one test, of a few megabytes; ended with the test.
struct Mount(tempfile::TempDir);

impl Mount {
    /// `None` where this user may not mount.
    fn new(options: &str) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder.path());
        if mount.output().is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        println!("not tested: this user may not mount a small file system");
        None
    }

    fn remount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", options]).arg(self.0.path()).status().expect("mount");
        assert!(status.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// On a full disk writing is refused and reading goes on; nothing is lost, and when there is room it goes on.
#[tokio::test]
async fn a_full_disk() {
    let Some(mount) = Mount::new("size=2m") else { return };
    let backend = avout_sql::open(mount.0.path().join("state.db")).await.expect("a file that opens");
    let c = &backend.coordinator;
    works(&backend).await;
    let ballast = mount.0.path().join("ballast");
    let mut told = 0;
    let error = loop {
        fs::write(&ballast, vec![0; 4 << 20]).expect_err("full");
        match attempt(&backend).await {
            Ok(count) => told = count,
            Err(error) => break error,
        }
        assert!(told < 10_000, "the disk does not fill up");
    };
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    assert_eq!(read(c, &key("/n")).await.as_ref().map(number), Some(told.max(1)));
    let value = backend.store.versioned_state(&key("/v"));
    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    let error = value.set_state_at(&version, State::Bytes(vec![1; 100_000].into())).await.expect_err("full");
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    fs::remove_file(&ballast).expect("room");
    // A process that another test is just starting may hold the ballast for a moment longer.
    let end = std::time::Instant::now() + PATIENCE;
    let count = loop {
        match attempt(&backend).await {
            Ok(count) => break count,
            Err(error) => assert!(error.kind() == ErrorKind::Full && std::time::Instant::now() < end, "{error}"),
        }
    };
    assert_eq!(count, told.max(1) + 1);
    value.set_state_at(&version, State::Bytes(vec![1; 100_000].into())).await.expect("written");
    backend.close().await;
}

/// A request that does not fit fails alone: the others of its batch are done.
#[tokio::test]
async fn a_request_that_does_not_fit() {
    let Some(mount) = Mount::new("size=2m") else { return };
    let file = mount.0.path().join("state.db");
    let backend = avout_sql::open(&file).await.expect("a file that opens");
    let lock = raw(&file);
    lock.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let value = backend.store.versioned_state(&key("/v"));
    let version = Version { epoch: 0, client: ClientId::new(1), slot: 0, sequence: 1 };
    let large = State::Bytes(vec![1; 4 << 20].into());
    // `join!` polls it last: the others have sent their requests.
    let unlock = async { lock.execute_batch("ROLLBACK").expect("the lock's end") };
    let (first, large, last, ()) =
        tokio::join!(attempt(&backend), value.set_state_at(&version, large), attempt_other(&backend), unlock);
    assert_eq!(large.expect_err("too large").kind(), ErrorKind::Full);
    first.expect("a commit");
    last.expect("a commit");
}

async fn attempt_other(backend: &Backend) -> Result<u64, Error> {
    increment(&backend.coordinator, &[key("/other")]).await
}

/// A file that may only be read is refused when it is opened, and when it becomes so later nothing is lost.
#[tokio::test]
async fn a_read_only_file() {
    let Some(mount) = Mount::new("size=4m") else { return };
    let file = mount.0.path().join("state.db");
    let backend = avout_sql::open(&file).await.expect("a file that opens");
    works(&backend).await;
    backend.close().await;
    mount.remount("remount,ro");
    let error = refused(&file).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("state.db"), "{error}");
    assert_eq!(refused(&mount.0.path().join("new.db")).await.kind(), ErrorKind::Denied);
    mount.remount("remount,rw");
    assert_eq!(attempt(&avout_sql::open(&file).await.expect("a file that opens")).await.expect("a commit"), 2);
}
