//! What stands in the way of opening is told at once, as what it is.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use avout_core::backend::Coordinator as _;
use avout_core::{Error, ErrorKind};
use avout_sql::{Options, rusqlite};

use crate::support::*;

async fn refused(path: impl Into<PathBuf>) -> Error {
    avout_sql::open(path).await.expect_err("refused")
}

/// A path that can never be opened is the caller's mistake, and no outage.
#[cfg(unix)]
#[tokio::test]
async fn a_wrong_path_is_no_outage() {
    let place = Place::new();
    place.open().await.close().await;
    let loops = place.folder().join("loop");
    std::os::unix::fs::symlink(&loops, &loops).expect("a link");
    for path in [
        place.file().join("below-a-file.db"),
        place.folder().join("none/x.db"),
        place.folder().join("x".repeat(300)),
        place.folder().join("a\0b"),
        loops.join("x.db"),
    ] {
        let error = refused(&path).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{}: {error}", path.display());
    }
}

/// Any length of `busy_timeout` can be given.
#[tokio::test]
async fn a_huge_busy_timeout() {
    let place = Place::new();
    let backend = Options::new(place.file()).busy_timeout(Duration::MAX).open().await.expect("a file that opens");
    create(&backend.coordinator, &key("/a"), 1).await;
    Options::from_url("sqlite:x?busy_timeout=18446744073709551615s").expect("a long time");
}

#[cfg(unix)]
#[tokio::test]
async fn child_is_denied() {
    let Some(file) = as_child() else { return };
    let error = refused(file).await;
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    println!("{error}");
}

/// What another user may not do is denied, and is told so: the file, its log, or its folder.
#[cfg(unix)]
#[tokio::test]
async fn what_another_user_may_not_do() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    for (folder_mode, file_mode, log_mode) in [
        (0o777, 0o600, None),
        (0o755, 0o666, None),
        (0o777, 0o444, None),
        (0o777, 0o666, Some(0o600)),
        (0o700, 0o666, None),
    ] {
        let place = Place::new();
        let backend = place.open().await;
        create(&backend.coordinator, &key("/a"), 1).await;
        let backend = match log_mode {
            None => {
                backend.close().await;
                None
            }
            Some(log_mode) => {
                for suffix in ["-wal", "-shm"] {
                    mode(Path::new(&format!("{}{suffix}", place.file().display())), log_mode);
                }
                Some(backend)
            }
        };
        mode(&place.file(), file_mode);
        mode(place.folder(), folder_mode);
        let mut child = std::process::Command::new(std::env::current_exe().expect("this program"));
        child.args(["opening::child_is_denied", "--exact", "--nocapture"]).env("AVOUT_SQL_FILE", place.file());
        let Ok(output) = child.uid(65534).gid(65534).output() else {
            println!("not tested: this user may not start a program as another one");
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{folder_mode:o} {file_mode:o} {log_mode:?}: {said}");
        drop(backend);
    }
}

/// A file that another process holds is waited for as long as `busy_timeout` says, and no longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_held_is_waited_for() {
    let place = Place::new();
    let held = raw(&place.file());
    // Before the log is begun, and with it.
    for locks in ["BEGIN EXCLUSIVE", "BEGIN IMMEDIATE"] {
        held.execute_batch(locks).expect("the lock");
        let began = Instant::now();
        let quick = Options::new(place.file()).busy_timeout(Duration::from_millis(200));
        let error = quick.open().await.expect_err("it is held");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("locked"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let opening = tokio::spawn(avout_sql::open(place.file()));
        tokio::time::sleep(Duration::from_millis(50)).await;
        held.execute_batch("ROLLBACK").expect("the lock's end");
        let backend = opening.await.expect("no panic").expect("a file that opens");
        assert!(backend.coordinator.capabilities().durable);
        backend.close().await;
    }
    let _: &rusqlite::Connection = &held;
}
