//! What contenders work with: runtimes, files and servers.

use std::cell::{Cell, OnceCell};
use std::path::{Path, PathBuf};

use avout_conformance::servers::{self, Mongo, Redis, ZooKeeper};
use tokio::runtime::Runtime;

use crate::measure::Failure;
use crate::spec::Store;

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
    pub(crate) fn has(&self, store: Store) -> Result<bool, Failure> {
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
