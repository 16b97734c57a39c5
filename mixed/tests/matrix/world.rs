//! Servers, client processes, and what must hold in the end.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use avout::Key;
use avout::backend::Kind;
use avout_conformance::servers::{Mongo, Node, Proxy, Redis, ZooKeeper};
use avout_simulate::history::{History, Level, Operation, Outcome, Transaction};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::client::{self, Opened, TASK, Task};
use crate::failpoints::Hook;
use crate::record::{self, now};

pub(crate) type Failure = Box<dyn Error>;

/// How long anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) const PLACES: [&str; 4] = ["sql", "redis", "zk", "mongo"];

/// A server of each kind, behind a proxy.
pub(crate) struct World {
    pub(crate) redis: Redis,
    zk: ZooKeeper,
    mongo: Mongo,
    folder: TempDir,
    namespaces: AtomicUsize,
}

impl World {
    pub(crate) async fn new() -> Result<Self, Failure> {
        // What a killed server has acknowledged must be there again.
        let redis = Redis::builder().behind_proxies().arguments(&["--appendfsync", "always"]).start();
        let zk = ZooKeeper::builder().behind_proxies().start();
        let mongo = Mongo::builder().replica_set(1).behind_proxies().start();
        let (redis, zk, mongo) = tokio::join!(redis, zk, mongo);
        let (redis, zk, mongo) = (redis?, zk?, mongo?);
        Ok(Self { redis, zk, mongo, folder: TempDir::new()?, namespaces: AtomicUsize::new(0) })
    }

    pub(crate) fn node(&self, place: usize) -> &Node {
        [self.redis.node(0), self.zk.node(0), self.mongo.node(0)][place - 1]
    }

    pub(crate) fn proxy(&self, place: usize) -> &Proxy {
        &[self.redis.proxies(), self.zk.proxies(), self.mongo.proxies()][place - 1][0]
    }

    /// A proxy of its own for one client.
    pub(crate) async fn own_proxy(&self, place: usize) -> Result<Proxy, Failure> {
        Ok(if place == 1 { self.redis.proxy(0).await? } else { self.zk.proxy(0).await? })
    }
}

/// Nothing happens at the points of a client's commits.
fn unharmed() -> Hook {
    Arc::new(|_| None)
}

/// Clients on refs and atoms in all stores.
pub(crate) struct Group<'a> {
    world: &'a World,
    pub(crate) task: Task,
    records: Vec<PathBuf>,
}

impl<'a> Group<'a> {
    /// A new namespace, with nothing in it but empty lists.
    pub(crate) async fn new(world: &'a World, coordinator: usize, lists: usize, seed: u64) -> Result<Self, Failure> {
        let namespace = format!("m{}", world.namespaces.fetch_add(1, Ordering::Relaxed));
        let sql = format!("sqlite:{}", world.folder.path().join(&namespace).with_extension("db").display());
        // A database takes the server longer to make than the collections of a namespace.
        let mongo = world.mongo.url("matrix");
        let mark = if mongo.contains('?') { '&' } else { '?' };
        let mongo = format!("{mongo}{mark}namespace={namespace}");
        let urls = [sql, world.redis.url(&namespace), world.zk.url(&namespace), mongo];
        let urls = PLACES.iter().map(ToString::to_string).zip(urls).collect();
        let record = world.folder.path().join(namespace);
        let group = Self {
            world,
            task: Task { number: 0, urls, coordinator, lists, record, seed, deaths: Vec::new() },
            records: Vec::new(),
        };
        client::open(&group.task, &unharmed()).await?.stm.close().await;
        Ok(group)
    }

    /// One more process. It finds the server of a place at an address of its own, if it is given one.
    pub(crate) async fn start(&mut self, own: Option<(usize, &Proxy)>) -> Result<Process, Failure> {
        self.task.number += 1;
        let mut task = self.task.clone();
        task.record = self.task.record.with_extension(format!("{}.json", task.number));
        self.records.push(task.record.clone());
        if let Some((place, proxy)) = own {
            let usual = self.world.proxy(place).address().to_string();
            task.urls[place].1 = task.urls[place].1.replace(&usual, &proxy.address().to_string());
        }
        let mut command = Command::new(std::env::current_exe()?);
        command.env(TASK, serde_json::to_string(&task)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let input = child.stdin.take().ok_or("a pipe")?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("a pipe")?).lines();
        let (sender, said) = mpsc::unbounded_channel();
        let committed = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&committed);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                match line.as_str() {
                    "ok" => drop(counted.fetch_add(1, Ordering::Relaxed)),
                    _ => drop(sender.send(line)),
                }
            }
        });
        Ok(Process { child, input, said, committed })
    }

    /// A client that meets with no faults.
    pub(crate) async fn keeper(&self) -> Result<Opened, Failure> {
        Ok(client::open(&self.task, &unharmed()).await?)
    }

    /// After all processes have ended: somebody can commit to everything, one sweep leaves no orphan, and what all saw is
    /// strictly serializable, each once.
    pub(crate) async fn check(&self, name: &str) -> Result<(), Failure> {
        let keeper = self.keeper().await?;
        let mut history = History::default();
        for record in &self.records {
            // A process that was killed very early has none.
            if record.exists() {
                record::add(&mut history, record)?;
            }
        }
        let begun = now();
        keeper
            .stm
            .dosync(async |tx| {
                for list in &keeper.lists {
                    tx.update(list, |list| list.push(0)).await?;
                }
                Ok(())
            })
            .await
            .map_err(|error| format!("{name}: stuck: {error:?}"))?;
        let appends = keeper.lists.iter().map(|list| Operation::append(list.key().as_str(), 0));
        history.push(Transaction::committed(0, begun, now()).with(appends));
        let begun = now();
        let mut reads = Vec::new();
        for list in &keeper.lists {
            reads.push(Operation::read_list(list.key().as_str(), list.get().await?));
        }
        history.push(Transaction::committed(0, begun, now()).with(reads));
        for atom in &keeper.atoms {
            let (key, begun) = (format!("atom:{}", atom.key()), now());
            let mut found = atom
                .swap(|mut list| {
                    list.push(0);
                    list
                })
                .await?;
            found.pop();
            let seen = [Operation::read_list(&key, found), Operation::append(&key, 0)];
            history.push(Transaction::committed(0, begun, now()).with(seen));
        }
        // What the keeper itself trimmed is gone by then.
        keeper.stm.close().await;
        let keeper = self.keeper().await?;
        let report = keeper.stm.sweep().await?;
        assert!(report.skipped.is_empty(), "{name}: {report:?}");
        let left = orphans(&keeper, report.epoch).await?;
        assert!(left.is_empty(), "{name}: a sweep left {left:?}: {report:?}");
        keeper.stm.close().await;

        let outcomes = [Outcome::Committed, Outcome::Aborted, Outcome::Unknown]
            .map(|outcome| history.transactions().iter().filter(|one| one.outcome == outcome).count());
        let [committed, aborted, unknown] = outcomes;
        eprintln!("{name}: {committed} committed, {aborted} not, {unknown} unknown, {} orphans", report.all_values());
        if let Some(folder) = std::env::var_os("AVOUT_HISTORY_DIR") {
            std::fs::create_dir_all(&folder)?;
            let file = name.replace([' ', ','], "_");
            std::fs::write(PathBuf::from(folder).join(file).with_extension("edn"), history.to_edn())?;
        }
        let found = history.check(Level::StrictSerializable);
        assert!(found.is_empty(), "{name}: {found:#?}");
        Ok(())
    }
}

/// Values of epochs before this one that no record points at.
pub(crate) async fn orphans(keeper: &Opened, epoch: u64) -> Result<BTreeSet<String>, Failure> {
    let coordinator = keeper.stm.coordinator();
    let mut left = BTreeSet::new();
    for store in &keeper.stores {
        for key in store.all_keys(Kind::Ref, &Key::new("/lists")?).await? {
            let held = store.versioned_state(&key).versions().await?;
            // Values first: what a record points at later was written later.
            let snapshot = coordinator.read(std::slice::from_ref(&key), None).await?;
            let pointed: BTreeSet<_> = snapshot.entries[0].iter().flat_map(|entry| entry.record.stored()).collect();
            let orphans = held.into_iter().filter(|version| version.epoch < epoch);
            let orphans = orphans.filter(|version| !pointed.contains(&(store.realm(), *version)));
            left.extend(orphans.map(|version| format!("{key} {version}")));
        }
    }
    Ok(left)
}

/// A client process.
pub(crate) struct Process {
    child: Child,
    input: ChildStdin,
    said: mpsc::UnboundedReceiver<String>,
    committed: Arc<AtomicUsize>,
}

impl Process {
    pub(crate) fn committed(&self) -> usize {
        self.committed.load(Ordering::Relaxed)
    }

    pub(crate) async fn order(&mut self, line: &str) -> Result<(), Failure> {
        Ok(self.input.write_all(format!("{line}\n").as_bytes()).await?)
    }

    /// Waits until it says this.
    pub(crate) async fn says(&mut self, awaited: &str) -> Result<(), Failure> {
        let said = timeout(PATIENCE, async {
            while let Some(line) = self.said.recv().await {
                if line.starts_with(awaited) {
                    return Ok(());
                }
            }
            Err(format!("a client ended that should say `{awaited}`"))
        });
        Ok(said.await.map_err(|_| format!("a client does not say `{awaited}`"))??)
    }

    fn pid(&self) -> Result<Pid, Failure> {
        Ok(self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed())).ok_or("a process that runs")?)
    }

    /// Waits until it has stopped itself.
    pub(crate) async fn stopped(&self) -> Result<(), Failure> {
        let file = format!("/proc/{}/stat", self.pid()?.as_raw_nonzero());
        let stopped = timeout(PATIENCE, async {
            // The state follows the command's name, which is in parentheses.
            while !std::fs::read_to_string(&file).is_ok_and(|stat| stat.contains(") T ")) {
                sleep(Duration::from_millis(5)).await;
            }
        });
        Ok(stopped.await.map_err(|_| "a client does not stop")?)
    }

    pub(crate) fn go_on(&self) -> Result<(), Failure> {
        Ok(kill_process(self.pid()?, Signal::CONT)?)
    }

    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    /// Whether it was killed meanwhile, by itself. Any other end is a failure.
    pub(crate) fn was_killed(&mut self) -> Result<bool, Failure> {
        use std::os::unix::process::ExitStatusExt as _;
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if status.signal() == Some(Signal::KILL.as_raw()) => Ok(true),
            Some(status) => Err(format!("a client ended: {status}").into()),
        }
    }

    /// Waits until it was killed, by itself.
    pub(crate) async fn killed(&mut self) -> Result<(), Failure> {
        timeout(PATIENCE, self.child.wait()).await.map_err(|_| "a client does not die")??;
        if self.was_killed()? { Ok(()) } else { Err("a client that lives".into()) }
    }

    /// Ends it: what it is about is done before that.
    pub(crate) async fn end(mut self) -> Result<(), Failure> {
        self.order("end").await?;
        let status = timeout(PATIENCE, self.child.wait()).await.map_err(|_| "a client that does not end")??;
        if status.success() { Ok(()) } else { Err(format!("a client ended: {status}").into()) }
    }
}
