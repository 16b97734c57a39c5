//! What is measured: workloads, and the contenders that do the same work in turn.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};
use std::time::Duration;

use avout_conformance::servers::{self, Mongo, Redis, ZooKeeper};
use tokio::runtime::Runtime;

use crate::measure::{Failure, Pace, Round};
use crate::{floor_local, floor_mongo, floor_redis, floor_sql, floor_zk, library, mixed, processes};

/// Where avout keeps its refs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Store {
    Local,
    Sql,
    Zk,
    Redis,
    Mongo,
}

impl Store {
    pub(crate) const ALL: [Self; 5] = [Self::Local, Self::Sql, Self::Zk, Self::Redis, Self::Mongo];

    /// Those that are files or memory of this machine.
    pub(crate) const EMBEDDED: [Self; 2] = [Self::Local, Self::Sql];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Sql => "sql",
            Self::Zk => "zk",
            Self::Redis => "redis",
            Self::Mongo => "mongo",
        }
    }

    /// Whose time or throughput a row's ratio is to.
    pub(crate) fn floor(self) -> &'static str {
        match self {
            Self::Local => "fast-stm",
            Self::Sql => "rusqlite",
            Self::Zk => "by hand",
            Self::Redis => "a script",
            Self::Mongo => "the driver",
        }
    }

    fn stride(self) -> u32 {
        match self {
            Self::Local => 8,
            Self::Sql | Self::Zk | Self::Redis | Self::Mongo => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// One task changes two refs, which it reads together.
    Hello,
    /// The same, one ref after the other.
    HelloByAlter,
    /// One task changes one ref.
    OneRef,
    /// Tasks change two refs each, each its own.
    Disjoint,
    /// Tasks change the same two refs.
    Contended,
    /// One task reads ten refs.
    ReadOnly,
    /// Fifteen tasks read ten refs, while another changes two of them.
    ReadMostly,
    /// The same with nobody who writes.
    ReadMostlyQuiet,
    /// Tasks change one atom.
    Swap,
    /// Tasks add to one ref by `commute`.
    Commute,
    /// A task changes fifty refs, while eight others change two of them at a time.
    Long,
    /// Processes of eight tasks, which change two refs each, each task its own.
    Processes,
    /// Tasks acquire and release one lock.
    Lock,
    /// Processes of one task do.
    LockProcesses,
    /// One task changes a ref in each store, and beside it what that is made of.
    Mixed,
}

impl Workload {
    /// Its name on the command line.
    pub(crate) fn family(self) -> &'static str {
        match self {
            Self::Hello | Self::HelloByAlter => "hello",
            Self::OneRef => "one-ref",
            Self::Disjoint => "disjoint",
            Self::Contended => "contended",
            Self::ReadOnly => "read-only",
            Self::ReadMostly | Self::ReadMostlyQuiet => "read-mostly",
            Self::Swap => "swap",
            Self::Commute => "commute",
            Self::Long => "long",
            Self::Processes => "processes",
            Self::Lock | Self::LockProcesses => "lock",
            Self::Mixed => "mixed",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HelloByAlter => "hello, by alter",
            Self::ReadMostlyQuiet => "read-mostly, no writer",
            Self::LockProcesses => "lock, processes",
            other => other.family(),
        }
    }
}

/// One workload with its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) store: Store,
    pub(crate) workload: Workload,
    /// Tasks or threads; for [`Workload::Processes`] and [`Workload::LockProcesses`] processes.
    pub(crate) tasks: usize,
    /// Bytes of a value.
    pub(crate) size: usize,
}

impl Spec {
    /// Whether an operation may end without its task having waited for anything, so that others would not have their turn.
    fn gives_way(&self) -> bool {
        let only_reads = matches!(self.workload, Workload::ReadMostly | Workload::ReadMostlyQuiet);
        self.tasks > 1 && (self.store == Store::Local || only_reads)
    }
}

/// Runs one round.
pub(crate) type Run = Box<dyn FnMut(Pace) -> Result<Round, Failure>>;

/// One who does the work of a spec.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) spec: Spec,
    pub(crate) run: Run,
}

impl Contender {
    fn round(&mut self, time: Duration) -> Result<Round, Failure> {
        (self.run)(Pace { time, stride: self.spec.store.stride(), fair: self.spec.gives_way() })
    }
}

/// What contenders work with.
pub(crate) struct Env {
    /// Two workers, whatever the machine has.
    pub(crate) many: Runtime,
    /// For one task on `local`.
    pub(crate) single: Runtime,
    dir: PathBuf,
    files: Cell<u32>,
    zookeeper: OnceCell<Option<ZooKeeper>>,
    redis: OnceCell<Option<Redis>>,
    mongo: OnceCell<Option<Mongo>>,
}

impl Env {
    pub(crate) fn new(dir: &Path) -> Result<Self, Failure> {
        Ok(Self {
            many: workers()?,
            single: tokio::runtime::Builder::new_current_thread().enable_all().build()?,
            dir: dir.to_owned(),
            files: Cell::new(0),
            zookeeper: OnceCell::new(),
            redis: OnceCell::new(),
            mongo: OnceCell::new(),
        })
    }

    /// A path where no file is yet.
    pub(crate) fn new_file(&self) -> PathBuf {
        self.dir.join(format!("{}.db", self.new_name()))
    }

    /// A name that this run has not used.
    pub(crate) fn new_name(&self) -> String {
        self.files.set(self.files.get() + 1);
        format!("{}_{}", std::process::id(), self.files.get())
    }
}

impl Env {
    /// The server that all rows use, which waits for no disk: what is measured is what avout adds. `None` if it is not installed.
    pub(crate) fn zookeeper(&self) -> Result<Option<&ZooKeeper>, Failure> {
        self.started(&self.zookeeper, ZooKeeper::single())
    }

    /// Likewise.
    pub(crate) fn redis(&self) -> Result<Option<&Redis>, Failure> {
        self.started(&self.redis, Redis::single())
    }

    /// Likewise: a replica set of one node.
    pub(crate) fn mongo(&self) -> Result<Option<&Mongo>, Failure> {
        self.started(&self.mongo, Mongo::replica_set(1))
    }

    /// Whether there is what this store needs.
    fn has(&self, store: Store) -> Result<bool, Failure> {
        Ok(match store {
            Store::Local | Store::Sql => true,
            Store::Zk => self.zookeeper()?.is_some(),
            Store::Redis => self.redis()?.is_some(),
            Store::Mongo => self.mongo()?.is_some(),
        })
    }

    fn started<'a, T>(
        &self,
        server: &'a OnceCell<Option<T>>,
        start: impl Future<Output = Result<T, servers::Error>>,
    ) -> Result<Option<&'a T>, Failure> {
        if server.get().is_none() {
            let started = match self.many.block_on(start) {
                Ok(started) => Some(started),
                Err(error) if error.is_missing() => {
                    eprintln!("{error}");
                    None
                }
                Err(error) => return Err(error.into()),
            };
            let _ = server.set(started);
        }
        Ok(server.get().and_then(Option::as_ref))
    }
}

/// The runtime that everything with several tasks runs on.
pub(crate) fn workers() -> Result<Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The specs that are measured, in groups whose contenders take turns. Those that targets compare are in one group.
pub(crate) fn contests() -> Vec<Vec<Spec>> {
    use Workload::*;
    let mut contests = Vec::new();
    for store in Store::EMBEDDED {
        let spec = |workload, tasks, size| Spec { store, workload, tasks, size };
        for workload in [Hello, OneRef] {
            contests.extend([16, 4 << 10, 256 << 10].map(|size| vec![spec(workload, 1, size)]));
        }
        contests.push(vec![spec(HelloByAlter, 1, 16)]);
        contests.extend([8, 64].map(|tasks| vec![spec(Disjoint, tasks, 16)]));
        contests.push([8, 64].map(|tasks| spec(Contended, tasks, 16)).into());
        contests.push(vec![spec(ReadOnly, 1, 16)]);
        contests.push(vec![spec(ReadMostly, 16, 16), spec(ReadMostlyQuiet, 15, 16)]);
        contests.push([1, 8, 64].map(|tasks| spec(Swap, tasks, 16)).into());
        contests.push(vec![spec(Commute, 64, 16)]);
        contests.push(vec![spec(Long, 9, 16)]);
        contests.push([1, 8].map(|tasks| spec(Lock, tasks, 16)).into());
        if store == Store::Sql {
            contests.extend([1, 2, 4].map(|tasks| vec![spec(Processes, tasks, 16)]));
            contests.push(vec![spec(LockProcesses, 4, 16)]);
        }
    }
    for store in [Store::Zk, Store::Redis, Store::Mongo] {
        let spec = |workload, tasks, size| Spec { store, workload, tasks, size };
        contests.extend([16, 4 << 10].map(|size| vec![spec(Hello, 1, size)]));
        contests.push(vec![spec(OneRef, 1, 16)]);
        contests.extend([8, 64].map(|tasks| vec![spec(Disjoint, tasks, 16)]));
        contests.push([8, 64].map(|tasks| spec(Contended, tasks, 16)).into());
        contests.push(vec![spec(ReadOnly, 1, 16)]);
        contests.push([1, 8].map(|tasks| spec(Swap, tasks, 16)).into());
        contests.push(vec![spec(Commute, 64, 16)]);
        contests.push([1, 8].map(|tasks| spec(Lock, tasks, 16)).into());
        contests.push(vec![spec(LockProcesses, 4, 16)]);
    }
    let spec = |size| Spec { store: Store::Zk, workload: Mixed, tasks: 1, size };
    contests.extend(mixed::SIZES.map(|size| vec![spec(size)]));
    contests
}

/// All who do the work of a spec, avout first.
pub(crate) fn contenders(env: &std::rc::Rc<Env>, spec: Spec) -> Result<Vec<Contender>, Failure> {
    let contender = |(name, run)| Contender { name, spec, run };
    let mut runs: Vec<(&'static str, Run)> = Vec::new();
    match (spec.workload, spec.store) {
        (Workload::Mixed, _) => {
            let mut all = true;
            for store in Store::ALL {
                all &= env.has(store)?;
            }
            if all {
                runs.extend(mixed::contenders(env, spec)?);
            }
        }
        (Workload::LockProcesses, store) if !env.has(store)? => {}
        (Workload::LockProcesses, _) => runs.push(("avout", processes::lock(env, spec)?)),
        (Workload::Processes, _) => runs.extend(processes::contenders(env, spec)?),
        (_, Store::Local) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_local::contenders(spec));
        }
        (_, Store::Sql) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_sql::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
        (_, Store::Zk) if env.zookeeper()?.is_none() => {}
        (_, Store::Zk) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_zk::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
        (_, Store::Redis) if env.redis()?.is_none() => {}
        (_, Store::Redis) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_redis::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
        (_, Store::Mongo) if env.mongo()?.is_none() => {}
        (_, Store::Mongo) => {
            runs.push(("avout", library::run(env, spec)?));
            runs.extend(floor_mongo::run(env, spec)?.map(|run| (spec.store.floor(), run)));
        }
    }
    Ok(runs.into_iter().map(contender).collect())
}

/// Runs every contender in turn, once to warm up and then `rounds` times.
///
/// They take turns so that what else happens on the machine meets all of them. The result has the rounds of each contender.
pub(crate) fn compete(contenders: &mut [Contender], rounds: usize, time: Duration) -> Vec<Result<Vec<Round>, Failure>> {
    let warm_up = (time / 2).min(Duration::from_millis(500));
    let mut results: Vec<Result<Vec<Round>, Failure>> =
        contenders.iter_mut().map(|contender| contender.round(warm_up).map(|_| Vec::new())).collect();
    for _ in 0..rounds {
        for (contender, result) in contenders.iter_mut().zip(&mut results) {
            if let Ok(done) = result {
                match contender.round(time) {
                    Ok(round) => done.push(round),
                    Err(error) => *result = Err(error),
                }
            }
        }
    }
    results
}
