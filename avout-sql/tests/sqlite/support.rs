//! What the tests share.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use avout_core::backend::Coordinator as _;
use avout_core::protocol::{
    Check, CodecId, Commit, CommitOutcome, Committed, Conflict, Entry, Key, Meta, Payload, Put, Realm, Record, Revision,
};
use avout_core::{ErrorKind, Result};
use avout_sql::{Backend, Coordinator, Options};
use tokio::task::JoinSet;

/// How long a test waits for what must come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).expect("a key")
}

pub(crate) fn record(number: u64) -> Arc<Record> {
    record_of(number.to_be_bytes().to_vec())
}

pub(crate) fn record_of(bytes: Vec<u8>) -> Arc<Record> {
    let meta = Meta { realm: Realm::new(0), codec: CodecId::JSON, type_tag: "u64".into(), history: 0 };
    Arc::new(Record::first(Arc::new(meta), Payload::Inline(bytes.into())))
}

pub(crate) fn number(entry: &Entry) -> u64 {
    let Payload::Inline(bytes) = &entry.record.payload else { panic!("not inline") };
    u64::from_be_bytes(bytes[..].try_into().expect("eight bytes"))
}

/// A commit of puts: key, expected revision, number.
pub(crate) fn puts(lines: &[(&Key, Option<&Revision>, u64)]) -> Commit {
    let put = |&(key, revision, number): &(&Key, Option<&Revision>, u64)| Put {
        key: key.clone(),
        revision: revision.cloned(),
        record: record(number),
    };
    Commit { puts: lines.iter().map(put).collect(), ..Commit::default() }
}

pub(crate) fn checks(lines: &[(&Key, Option<&Revision>)]) -> Vec<Check> {
    lines.iter().map(|&(key, revision)| Check { key: key.clone(), revision: revision.cloned() }).collect()
}

pub(crate) fn committed(outcome: Result<CommitOutcome>) -> Committed {
    match outcome.expect("an outcome") {
        CommitOutcome::Committed(committed) => committed,
        CommitOutcome::Conflict(conflict) => panic!("{conflict:?}"),
    }
}

pub(crate) fn conflict(outcome: Result<CommitOutcome>) -> Conflict {
    match outcome.expect("an outcome") {
        CommitOutcome::Committed(committed) => panic!("{committed:?}"),
        CommitOutcome::Conflict(conflict) => conflict,
    }
}

/// Puts `number` under an absent key.
pub(crate) async fn create(coordinator: &Coordinator, key: &Key, number: u64) -> Revision {
    committed(coordinator.commit(&puts(&[(key, None, number)])).await).revisions.remove(0)
}

pub(crate) async fn read(coordinator: &Coordinator, key: &Key) -> Option<Entry> {
    let snapshot = coordinator.read(std::slice::from_ref(key), None).await.expect("a snapshot");
    snapshot.entries.into_iter().next().expect("one entry")
}

/// Adds one to each of the keys, in one commit, as often as it takes.
pub(crate) async fn increment(coordinator: &Coordinator, keys: &[Key]) -> Result<u64> {
    loop {
        let snapshot = coordinator.read(keys, None).await?;
        let lines: Vec<_> = keys
            .iter()
            .zip(&snapshot.entries)
            .map(|(key, entry)| (key, entry.as_ref().map(|e| &e.revision), entry.as_ref().map_or(0, number) + 1))
            .collect();
        match coordinator.commit(&puts(&lines)).await {
            Ok(CommitOutcome::Committed(_)) => return Ok(lines[0].2),
            Ok(CommitOutcome::Conflict(_)) => {}
            Err(error) if error.kind() == ErrorKind::Unavailable => {}
            Err(error) => return Err(error),
        }
    }
}

/// A folder with a database in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("state.db")
    }

    pub(crate) async fn open(&self) -> Backend {
        avout_sql::open(self.file()).await.expect("a file that opens")
    }

    pub(crate) async fn open_quick(&self) -> Backend {
        Options::new(self.file()).busy_timeout(Duration::from_millis(100)).open().await.expect("a file that opens")
    }
}

pub(crate) fn raw(path: &Path) -> avout_sql::rusqlite::Connection {
    let connection = avout_sql::rusqlite::Connection::open(path).expect("a connection");
    connection.busy_timeout(PATIENCE).expect("a timeout");
    connection
}

/// Commits without a pause, to keys that nobody else uses, until it is dropped. On a runtime with fewer threads than tasks, so that
/// all is done by the writer's thread.
pub(crate) fn keep_busy(coordinator: &Coordinator) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for n in 0..=tokio::runtime::Handle::current().metrics().num_workers() {
        let coordinator = coordinator.clone();
        tasks.spawn(async move {
            loop {
                increment(&coordinator, &[key(&format!("/busy/{n}"))]).await.expect("a commit");
            }
        });
    }
    tasks
}

/// Waits until `done` says so.
pub(crate) async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "waited too long: {what}");
        tokio::task::yield_now().await;
    }
}

/// This test program again, as another process that runs the test `name` alone with `AVOUT_SQL_FILE` set.
pub(crate) fn child(name: &str, file: &Path) -> Child {
    Command::new(std::env::current_exe().expect("this program"))
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env("AVOUT_SQL_FILE", file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process")
}

/// The file, in a process that [`child`] began.
pub(crate) fn as_child() -> Option<PathBuf> {
    std::env::var_os("AVOUT_SQL_FILE").map(PathBuf::from)
}
