use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::{ErrorKind, Ref, Result, Stm};
use avout_redis::{Backend, LostCommits, redis as redis_driver};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

pub(crate) type Outcome<T = ()> = std::result::Result<T, Box<dyn StdError>>;

/// A namespace that no other test has.
pub(crate) fn namespace() -> String {
    format!("test_{:016x}", rand::random::<u64>())
}

pub(crate) fn stm(backend: Backend) -> Stm {
    Stm::new(backend.coordinator, backend.store)
}

/// A client with a short deadline, so that a test does not wait long for what fails.
pub(crate) fn hasty(backend: Backend) -> Stm {
    Stm::builder(backend.coordinator, backend.store).deadline(Some(Duration::from_secs(2))).build()
}

pub(crate) async fn open(url: &str) -> Result<Stm> {
    avout_redis::connect(url).await.map(stm)
}

/// Two refs that always have the same value.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) stm: Stm,
    a: Ref<u64>,
    b: Ref<u64>,
}

impl Pair {
    pub(crate) async fn open(stm: Stm, name: &str) -> Result<Self> {
        let a = stm.create_or_open_ref(format!("/{name}/a"), 0).await?;
        let b = stm.create_or_open_ref(format!("/{name}/b"), 0).await?;
        Ok(Self { stm, a, b })
    }

    /// One of the two.
    pub(crate) fn a(&self) -> &Ref<u64> {
        &self.a
    }

    pub(crate) fn b(&self) -> &Ref<u64> {
        &self.b
    }

    pub(crate) async fn bump(&self) -> Result<u64> {
        self.stm
            .dosync(async |tx| {
                tx.alter(&self.b, |n| n + 1).await?;
                tx.alter(&self.a, |n| n + 1).await
            })
            .await
    }

    /// The same with both refs read in one request.
    pub(crate) async fn bump_together(&self) -> Result<u64> {
        self.bump_after(async || Ok(())).await
    }

    /// The same, with something done between the read and the commit.
    pub(crate) async fn bump_after(&self, between: impl AsyncFn() -> Result<()>) -> Result<u64> {
        self.stm
            .dosync(async |tx| {
                tx.prefetch((&self.a, &self.b)).await?;
                tx.alter(&self.b, |n| n + 1).await?;
                let n = tx.alter(&self.a, |n| n + 1).await?;
                between().await?;
                Ok(n)
            })
            .await
    }

    /// The value of both.
    pub(crate) async fn read(&self) -> Result<u64> {
        let (a, b) = self.stm.dosync(async |tx| Ok((tx.get(&self.a).await?, tx.get(&self.b).await?))).await?;
        assert_eq!(a, b, "a transaction in part");
        Ok(a)
    }

    /// The value, as soon as the server answers again.
    pub(crate) async fn read_at_last(&self) -> u64 {
        at_last("a read", async || self.read().await.ok()).await
    }
}

/// Waits until `f` gives something.
pub(crate) async fn at_last<T>(what: &str, f: impl AsyncFn() -> Option<T>) -> T {
    let wait = async {
        loop {
            if let Some(found) = f().await {
                return found;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("{what} within a minute"))
}

pub(crate) fn lost(error: &avout_core::Error) -> Option<&LostCommits> {
    error.downcast_ref::<LostCommits>().filter(|_| error.kind() == ErrorKind::StoreLost)
}

/// How the transactions of a load ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) unknown: u64,
    pub(crate) failed: u64,
}

/// Tasks that bump a pair each until they are told to stop.
pub(crate) struct Load {
    stop: Arc<Mutex<bool>>,
    tasks: JoinSet<Result<(Pair, Tally)>>,
    done: Arc<std::sync::atomic::AtomicU64>,
}

impl Load {
    /// `tasks` tasks, each with refs of its own, of these clients in turn.
    pub(crate) async fn start(clients: &[Stm], tasks: usize) -> Result<Self> {
        let mut load = Self { stop: Arc::default(), tasks: JoinSet::new(), done: Arc::default() };
        for task in 0..tasks {
            let pair = Pair::open(clients[task % clients.len()].clone(), &format!("load/{task}")).await?;
            let (stop, done) = (Arc::clone(&load.stop), Arc::clone(&load.done));
            load.tasks.spawn(async move {
                let mut tally = Tally::default();
                while !*stop.lock().unwrap_or_else(PoisonError::into_inner) {
                    match pair.bump().await {
                        Ok(_) => {
                            tally.done += 1;
                            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                        Err(error) => match error.kind() {
                            ErrorKind::OutcomeUnknown => tally.unknown += 1,
                            ErrorKind::Unavailable | ErrorKind::Timeout => tally.failed += 1,
                            _ if lost(&error).is_some() => tally.failed += 1,
                            _ => return Err(error),
                        },
                    }
                }
                Ok((pair, tally))
            });
        }
        Ok(load)
    }

    /// Waits until so many more transactions have been acknowledged.
    pub(crate) async fn more(&self, count: u64) {
        let now = || self.done.load(std::sync::atomic::Ordering::Relaxed);
        let goal = now() + count;
        at_last("the load going on", async || (now() >= goal).then_some(())).await;
    }

    /// Ends it, and checks that each pair counts what was acknowledged, and no more than what may have been done beside that.
    pub(crate) async fn check(self) -> Result<Tally> {
        self.end(false).await
    }

    /// The same where the server may lose what it acknowledged, but no transaction in part.
    pub(crate) async fn check_with_loss(self) -> Result<Tally> {
        self.end(true).await
    }

    async fn end(mut self, may_lose: bool) -> Result<Tally> {
        *self.stop.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let mut all = Tally::default();
        while let Some(ended) = self.tasks.join_next().await {
            let (pair, tally) = ended.expect("a task of the load does not panic")?;
            let value = pair.read_at_last().await;
            let least = if may_lose { 0 } else { tally.done };
            assert!((least..=tally.done + tally.unknown).contains(&value), "{value} counted, of {tally:?}");
            all.done += tally.done;
            all.unknown += tally.unknown;
            all.failed += tally.failed;
        }
        eprintln!("{all:?}");
        Ok(all)
    }
}

/// An address that leads to one server, and later to another.
pub(crate) struct Switch {
    pub(crate) address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    listener: AbortHandle,
}

impl Switch {
    pub(crate) async fn to(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let target = Arc::new(Mutex::new(target));
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (to, all) = (Arc::clone(&target), Arc::clone(&open));
        let accept = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = *to.lock().unwrap_or_else(PoisonError::into_inner);
                let carry = tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await?;
                    copy_bidirectional(&mut client, &mut server).await
                });
                all.lock().unwrap_or_else(PoisonError::into_inner).push(carry.abort_handle());
            }
        });
        Ok(Self { address, target, open, listener: accept.abort_handle() })
    }

    /// From now on it leads there, and all connections are closed.
    pub(crate) fn turn(&self, target: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|carry| carry.abort());
    }

    /// The same, and connections that are there stay.
    pub(crate) fn lead(&self, target: SocketAddr) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    pub(crate) fn url(&self, options: &str) -> String {
        format!("redis://{}/{}?{options}", self.address, namespace())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.listener.abort();
        self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|carry| carry.abort());
    }
}

/// How often each command was called, by clients and by scripts.
pub(crate) async fn calls(redis: &Redis) -> Outcome<HashMap<String, u64>> {
    let info = redis.command(0, &["INFO", "commandstats"]).await?;
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    Ok(info.lines().filter_map(line).collect())
}

/// Runs until a moment that never comes too late.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let begun = Instant::now();
    match timeout(limit, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what} took {:?}", begun.elapsed()),
    }
}

/// Waits until a replica has all that the master, node 0, has.
pub(crate) async fn replicated(redis: &Redis, replica: usize) {
    at_last("the replica", async || {
        let offset = async |node, name: &str| {
            let info = redis.command(node, &["INFO", "replication"]).await.ok()?;
            info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
        };
        redis.caught_up(replica).await.ok()?;
        let master = offset(0, "master_repl_offset:").await?;
        (offset(replica, "slave_repl_offset:").await? >= master).then_some(())
    })
    .await;
}

/// Cuts a master from its replicas and sentinels, for ever, and from new clients. Clients that are connected stay so.
pub(crate) async fn estrange(redis: &Redis, node: usize) -> Outcome {
    let free = avout_conformance::servers::free_port().to_string();
    let changed = redis.command(node, &["CONFIG", "SET", "port", &free]).await?;
    assert_eq!(changed, "OK");
    let address = SocketAddr::from(([127, 0, 0, 1], free.parse()?));
    ask(address, &["CLIENT", "KILL", "TYPE", "replica"]).await?;
    let clients = ask(address, &["CLIENT", "LIST"]).await?;
    for line in clients.lines().filter(|line| line.contains("name=sentinel-")) {
        let id = line.split([' ', '=']).nth(1).unwrap_or_default();
        ask(address, &["CLIENT", "KILL", "ID", id]).await?;
    }
    Ok(())
}

/// The text that a server answers to a command.
pub(crate) async fn ask(address: SocketAddr, words: &[&str]) -> Outcome<String> {
    let client = redis_driver::Client::open(format!("redis://{address}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis_driver::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    Ok(match command.query_async::<redis_driver::Value>(&mut connection).await? {
        redis_driver::Value::BulkString(bytes) => String::from_utf8(bytes)?,
        redis_driver::Value::VerbatimString { text, .. } => text,
        _ => String::new(),
    })
}

/// How many connections a server has been asked for.
pub(crate) async fn connections(redis: &Redis, node: usize) -> Outcome<u64> {
    let stats = redis.command(node, &["INFO", "stats"]).await?;
    let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    Ok(count.ok_or("a count")?.trim().parse()?)
}
