//! The workloads by hand: SQLite with the pragmas that avout uses, and nothing around it.
//!
//! This is what a careful programmer would write who needs no more than the workload: rows with a revision, read in one statement,
//! changed by conditional updates in one transaction, statements prepared once. Many writers send their updates to one thread that
//! commits all that wait together, so that they share one wait for the disk.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::{Connection, params, params_from_iter};
use tokio::sync::oneshot;

use crate::env::Env;
use crate::measure::{Effort, Failure, Meter, Pace, Round, Run, alone, tasks};
use crate::spec::{Spec, Workload};
use crate::values::{blob, bump_blob};

const PRAGMAS: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;";
const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS cells (key TEXT PRIMARY KEY NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL);";

/// A row as it was read.
struct Row {
    revision: i64,
    value: Vec<u8>,
}

pub(crate) fn connect(path: &Path) -> Result<Connection, Failure> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(PRAGMAS)?;
    Ok(connection)
}

/// Makes rows named like this, with their keys in order.
pub(crate) fn fill(
    connection: &mut Connection,
    folder: &str,
    count: usize,
    size: usize,
) -> Result<Vec<String>, Failure> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    transaction.execute_batch(TABLE)?;
    let keys: Vec<String> = (0..count).map(|index| format!("{folder}/{index:03}")).collect();
    for key in &keys {
        transaction.execute("INSERT OR IGNORE INTO cells VALUES (?1, 0, ?2)", params![key, blob(size)])?;
    }
    transaction.commit()?;
    Ok(keys)
}

/// The rows of `keys`, which are in order, in one snapshot.
fn read(connection: &Connection, keys: &[String]) -> rusqlite::Result<Vec<Row>> {
    let sql = match keys.len() {
        1 => "SELECT revision, value FROM cells WHERE key = ?1",
        2 => "SELECT revision, value FROM cells WHERE key IN (?1, ?2) ORDER BY key",
        _ => {
            "SELECT revision, value FROM cells
             WHERE key IN (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ORDER BY key"
        }
    };
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map(params_from_iter(keys), |row| Ok(Row { revision: row.get(0)?, value: row.get(1)? }))?;
    rows.collect()
}

/// Writes rows back if they are as they were read. The rows of a workload change together, so either all are or none is.
fn update(connection: &Connection, keys: &[String], rows: &[Row]) -> rusqlite::Result<bool> {
    let mut statement = connection
        .prepare_cached("UPDATE cells SET value = ?1, revision = revision + 1 WHERE key = ?2 AND revision = ?3")?;
    for (key, row) in keys.iter().zip(rows) {
        if statement.execute(params![row.value, key, row.revision])? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn run_cached(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// What runs a spec. `None` where doing it by hand would be another workload.
pub(crate) fn run(env: &Rc<Env>, spec: Spec) -> Result<Option<Run>, Failure> {
    let path = env.new_file();
    let mut connection = connect(&path)?;
    let mut fill = |count| fill(&mut connection, "", count, spec.size);
    Ok(Some(match (spec.workload, spec.tasks) {
        (Workload::Hello | Workload::HelloByAlter, _) => alter_alone(fill(2)?, connection),
        (Workload::OneRef | Workload::Swap, 1) => alter_alone(fill(1)?, connection),
        (Workload::ReadOnly, _) => {
            let keys = fill(10)?;
            Box::new(move |pace| {
                alone(pace, |meter| {
                    while meter.go() {
                        std::hint::black_box(read(&connection, &keys)?);
                    }
                    Ok(())
                })
            })
        }
        (Workload::Disjoint, tasks) => {
            let keys = fill(tasks * 2)?;
            alter_in_group(env, &path, connection, keys.chunks(2).map(<[_]>::to_vec).collect())
        }
        (Workload::Contended, tasks) => {
            let keys = fill(2)?;
            alter_in_group(env, &path, connection, vec![keys; tasks])
        }
        (Workload::Swap | Workload::OneRef, tasks) => {
            let keys = fill(1)?;
            alter_in_group(env, &path, connection, vec![keys; tasks])
        }
        (Workload::ReadMostly, _) => read_mostly(env, &path, fill(10)?, connection, true),
        (Workload::ReadMostlyQuiet, _) => read_mostly(env, &path, fill(10)?, connection, false),
        (
            Workload::Commute
            | Workload::Long
            | Workload::Processes
            | Workload::Lock
            | Workload::LockProcesses
            | Workload::Mixed,
            _,
        ) => {
            return Ok(None);
        }
    }))
}

/// One thread, one connection.
fn alter_alone(keys: Vec<String>, connection: Connection) -> Run {
    Box::new(move |pace| {
        alone(pace, |meter| {
            while meter.go() {
                let mut rows = read(&connection, &keys)?;
                rows.iter_mut().for_each(|row| bump_blob(&mut row.value));
                run_cached(&connection, "BEGIN IMMEDIATE")?;
                if !update(&connection, &keys, &rows)? {
                    return Err("nobody else writes here".into());
                }
                run_cached(&connection, "COMMIT")?;
            }
            Ok(())
        })
    })
}

fn alter_in_group(env: &Rc<Env>, path: &Path, connection: Connection, keys: Vec<Vec<String>>) -> Run {
    let env = Rc::clone(env);
    let group = Group::new(path, connection);
    Box::new(move |pace| env.many.block_on(group.alter(&keys, pace)))
}

fn read_mostly(env: &Rc<Env>, path: &Path, keys: Vec<String>, connection: Connection, busy: bool) -> Run {
    let env = Rc::clone(env);
    let group = Group::new(path, connection);
    Box::new(move |pace| {
        let readers = tasks(15, pace, |_, meter| read_all(Arc::clone(&group.readers), keys.clone(), meter));
        let written = vec![keys[..2].to_vec(); usize::from(busy)];
        env.many.block_on(async {
            let (readers, writer) = tokio::join!(readers, group.alter(&written, pace));
            Ok(Round { beside: busy.then_some(writer?.per_second()), ..readers? })
        })
    })
}

async fn read_all(readers: Arc<Readers>, keys: Vec<String>, mut meter: Meter) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        std::hint::black_box(readers.with(|connection| read(connection, &keys))?);
    }
    Ok(meter)
}

/// Connections that read, as many as read at the same time.
struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    fn with<T>(&self, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, Failure> {
        let lock = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = lock().pop();
        let connection = idle.map_or_else(|| connect(&self.path), Ok)?;
        let result = read(&connection)?;
        lock().push(connection);
        Ok(result)
    }
}

#[derive(Default)]
struct Tally {
    attempts: AtomicU64,
    done: AtomicU64,
}

/// Rows to be written back, and where to say whether they were.
struct Update {
    keys: Vec<String>,
    rows: Vec<Row>,
    reply: oneshot::Sender<bool>,
}

/// A thread that commits all updates that wait in one transaction.
pub(crate) struct Group {
    readers: Arc<Readers>,
    queue: Option<Sender<Update>>,
    writer: Option<JoinHandle<()>>,
}

impl Group {
    pub(crate) fn new(path: &Path, connection: Connection) -> Self {
        let (queue, updates) = channel();
        let writer = std::thread::spawn(move || {
            if let Err(error) = write(&connection, &updates) {
                eprintln!("the writer by hand ended: {error}");
            }
        });
        let readers = Readers { path: path.to_owned(), idle: Mutex::default() };
        Self { readers: Arc::new(readers), queue: Some(queue), writer: Some(writer) }
    }

    /// Measures one task for each list of keys, which changes their rows.
    pub(crate) async fn alter(&self, keys: &[Vec<String>], pace: Pace) -> Result<Round, Failure> {
        let queue = self.queue.as_ref().expect("it is there until the end");
        let tally = Arc::new(Tally::default());
        let run = |task: usize, meter| {
            alter(Arc::clone(&self.readers), queue.clone(), keys[task].clone(), Arc::clone(&tally), meter)
        };
        let mut round = tasks(keys.len(), pace, run).await?;
        let attempts = tally.attempts.load(Ordering::Relaxed) as f64 / tally.done.load(Ordering::Relaxed) as f64;
        round.effort = Some(Effort { attempts, worst: None, requests: None });
        Ok(round)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

async fn alter(
    readers: Arc<Readers>,
    queue: Sender<Update>,
    keys: Vec<String>,
    tally: Arc<Tally>,
    mut meter: Meter,
) -> Result<Meter, Failure> {
    while meter.go_in_turn().await {
        loop {
            tally.attempts.fetch_add(1, Ordering::Relaxed);
            let mut rows = readers.with(|connection| read(connection, &keys))?;
            rows.iter_mut().for_each(|row| bump_blob(&mut row.value));
            let (reply, done) = oneshot::channel();
            queue.send(Update { keys: keys.clone(), rows, reply }).map_err(|_| "the writer is gone")?;
            if done.await? {
                tally.done.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
    Ok(meter)
}

fn write(connection: &Connection, updates: &Receiver<Update>) -> Result<(), Failure> {
    let mut replies = Vec::new();
    while let Ok(first) = updates.recv() {
        run_cached(connection, "BEGIN IMMEDIATE")?;
        for Update { keys, rows, reply } in std::iter::once(first).chain(updates.try_iter()) {
            replies.push((reply, update(connection, &keys, &rows)?));
        }
        run_cached(connection, "COMMIT")?;
        for (reply, done) in replies.drain(..) {
            let _ = reply.send(done);
        }
    }
    Ok(())
}
