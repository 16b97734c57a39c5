use std::ffi::OsString;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::frame::Protocol;
use super::group::{Place, Plan, Servers};
use super::node::{Node, PATIENCE, blocking, poll};
use super::spec::Spec;
use super::{Error, find, wire};

/// Redis: one server, a master with replicas, with sentinels over them, or a cluster.
///
/// Each keeps an append-only file, so that its data is there again after a kill and a start.
#[derive(Clone, Debug)]
pub struct Redis {
    servers: Servers,
    sentinels: Option<Servers>,
    is_cluster: bool,
}

/// How a [`Redis`] is set up.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RedisBuilder {
    shape: Shape,
    arguments: Vec<OsString>,
    behind_proxies: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    #[default]
    Single,
    Replicas(usize),
    Sentinel(usize),
    Cluster {
        masters: usize,
        replicas: usize,
    },
}

/// The name under which sentinels know the master.
pub const SENTINEL_SERVICE: &str = "avout";

impl Redis {
    /// One server.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn single() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// One server, with arguments such as `["--appendfsync", "always"]`. They win over what is set already.
    ///
    /// # Errors
    /// Those of [`single`](Self::single).
    pub async fn with(arguments: &[&str]) -> Result<Self, Error> {
        Self::builder().arguments(arguments).start().await
    }

    /// A master, node 0, with replicas that have caught up. Nobody promotes one but [`promote`](Self::promote).
    ///
    /// # Errors
    /// Those of [`single`](Self::single).
    pub async fn with_replicas(replicas: usize) -> Result<Self, Error> {
        Self::builder().replicas(replicas).start().await
    }

    /// The same with three sentinels, which promote a replica about 1 s after the master has gone.
    ///
    /// # Errors
    /// Those of [`single`](Self::single).
    pub async fn sentinel(replicas: usize) -> Result<Self, Error> {
        Self::builder().sentinel(replicas).start().await
    }

    /// A cluster of three masters with a replica each, nodes 0 to 2 and 3 to 5.
    ///
    /// # Errors
    /// Those of [`single`](Self::single).
    pub async fn cluster() -> Result<Self, Error> {
        Self::builder().cluster(3, 1).start().await
    }

    /// With settings of your own.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// `redis://127.0.0.1:4711/namespace`, with the node that is master at first.
    pub fn url(&self, namespace: &str) -> String {
        format!("redis://{}/{namespace}", self.public(0))
    }

    /// `127.0.0.1:4711,…`, the sentinels; empty if there are none. They know the master as [`SENTINEL_SERVICE`].
    pub fn sentinel_address(&self) -> String {
        self.sentinels.as_ref().map(Servers::address).unwrap_or_default()
    }

    /// The sentinels; none if not asked for.
    pub fn sentinels(&self) -> &[Node] {
        self.sentinels.as_ref().map(Servers::nodes).unwrap_or_default()
    }

    /// The answer of a node to a command, such as `["CONFIG", "SET", "maxmemory", "1mb"]`: strings as they are, errors with a
    /// `-` in front, arrays a line for each element.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn command(&self, node: usize, words: &[&str]) -> Result<String, Error> {
        command(self.node(node).address(), words).await
    }

    /// Which node is the master: the one that the sentinels name, if there are some, and otherwise the first that says so itself.
    /// A node that is paused is not asked.
    ///
    /// # Errors
    /// If there is none within a minute, or this is a cluster.
    pub async fn master(&self) -> Result<usize, Error> {
        if self.is_cluster {
            return Err(Error::failed("redis", "a cluster has several masters"));
        }
        let (redis, sentinels) = (self.clone(), self.sentinels().to_vec());
        let runs = |node: &Node| node.pid().is_some() && !node.is_paused();
        blocking("redis", move || {
            let ask = || {
                if sentinels.is_empty() {
                    let is_master = |node: &Node| runs(node) && role(node.address()).as_deref() == Ok("master");
                    return redis.nodes().iter().position(is_master).ok_or("no node is master".to_owned());
                }
                let sentinel = sentinels.iter().find(|node| runs(node)).ok_or("no sentinel runs")?;
                let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SENTINEL_SERVICE];
                let named = ask(sentinel.address(), &question)?.replace('\n', ":");
                let index = (0..redis.nodes().len()).find(|index| redis.public(*index) == named);
                let index = index.ok_or_else(|| format!("the sentinels name {named}, which is no node"))?;
                let node = redis.node(index);
                // They name the old one until they have agreed, and the new one before it knows.
                match runs(node) && role(node.address())? == "master" {
                    true => Ok(index),
                    false => Err(format!("the sentinels name {named}, which is not master")),
                }
            };
            poll(PATIENCE, ask).map_err(|why| Error::failed("redis", why))
        })
        .await
    }

    /// Makes a replica a master, as an operator would: the other nodes do not learn of it.
    ///
    /// # Errors
    /// If it refuses or does not answer.
    pub async fn promote(&self, node: usize) -> Result<(), Error> {
        expect_ok(self.command(node, &["REPLICAOF", "NO", "ONE"]).await?)
    }

    /// Makes a node a replica of another, and waits until it has caught up.
    ///
    /// # Errors
    /// If it refuses, or has not caught up within a minute.
    pub async fn replicate(&self, node: usize, master: usize) -> Result<(), Error> {
        let port = self.public_port(master);
        expect_ok(self.command(node, &["REPLICAOF", "127.0.0.1", &port]).await?)?;
        self.caught_up(node).await
    }

    /// Waits until a replica has caught up with its master.
    ///
    /// # Errors
    /// If it has not within a minute.
    pub async fn caught_up(&self, node: usize) -> Result<(), Error> {
        let address = self.node(node).address();
        wait(move || match ask(address, &["INFO", "replication"])? {
            info if info.contains("master_link_status:up") => Ok(()),
            info => Err(format!("it has not caught up with its master: {info}")),
        })
        .await
    }

    /// Cuts a node from clients, and its replicas and sentinels from it. On return nothing passes any more. In a cluster
    /// the nodes still hear each other.
    ///
    /// # Errors
    /// If the builder was not told [`behind_proxies`](RedisBuilder::behind_proxies).
    pub async fn isolate(&self, node: usize) -> Result<(), Error> {
        self.servers.cut(node).await
    }

    /// Ends what [`isolate`](Self::isolate) began.
    ///
    /// # Errors
    /// If the proxy cannot listen again.
    pub async fn rejoin(&self, node: usize) -> Result<(), Error> {
        self.servers.heal(node).await
    }

    fn public_port(&self, node: usize) -> String {
        self.public(node).rsplit(':').next().unwrap_or_default().to_owned()
    }

    /// Shares the slots out and lets the nodes meet; waits until the cluster is whole.
    async fn form_cluster(&self, masters: usize) -> Result<(), Error> {
        const SLOTS: usize = 16384;
        let bus = |index: usize| async move {
            let answer = self.command(index, &["CONFIG", "GET", "cluster-port"]).await?;
            Ok::<_, Error>(answer.lines().last().unwrap_or_default().to_owned())
        };
        for index in 0..self.nodes().len() {
            let (port, bus) = (self.node(index).address().port().to_string(), bus(index).await?);
            expect_ok(self.command(index, &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]).await?)?;
            if index < masters {
                let (from, to) = (SLOTS * index / masters, SLOTS * (index + 1) / masters - 1);
                let range = ["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()];
                expect_ok(self.command(index, &range).await?)?;
            }
            if index > 0 {
                expect_ok(self.command(0, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?)?;
            }
        }
        let all = format!("cluster_known_nodes:{}", self.nodes().len());
        self.cluster_says(move |info, _| info.lines().any(|line| line == all)).await?;
        for index in masters..self.nodes().len() {
            let master = self.command(index % masters, &["CLUSTER", "MYID"]).await?;
            let node = self.node(index).address();
            wait(move || match ask(node, &["CLUSTER", "REPLICATE", &master])?.as_str() {
                "OK" => Ok(()),
                // It may not have heard of its master yet.
                refused => Err(refused.to_owned()),
            })
            .await?;
            self.caught_up(index).await?;
        }
        let replicas = self.nodes().len() - masters;
        self.cluster_says(move |info, nodes| {
            let known = nodes.lines().filter(|line| line.contains("slave")).count();
            info.contains("cluster_state:ok") && known == replicas
        })
        .await
    }

    /// Waits until this holds for `CLUSTER INFO` and `CLUSTER NODES` of each node that runs.
    async fn cluster_says(&self, holds: impl Fn(&str, &str) -> bool + Send + 'static) -> Result<(), Error> {
        let nodes = self.nodes().to_vec();
        wait(move || {
            for node in nodes.iter().filter(|node| node.pid().is_some() && !node.is_paused()) {
                let (info, known) =
                    (ask(node.address(), &["CLUSTER", "INFO"])?, ask(node.address(), &["CLUSTER", "NODES"])?);
                if !holds(&info, &known) {
                    return Err(format!("the cluster is not whole: {info}\n{known}"));
                }
            }
            Ok(())
        })
        .await
    }
}

impl Deref for Redis {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl RedisBuilder {
    /// With replicas: see [`Redis::with_replicas`].
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.shape = Shape::Replicas(replicas);
        self
    }

    /// With replicas and sentinels: see [`Redis::sentinel`].
    pub fn sentinel(mut self, replicas: usize) -> Self {
        self.shape = Shape::Sentinel(replicas);
        self
    }

    /// A cluster with so many masters and so many replicas of each; the masters come first.
    pub fn cluster(mut self, masters: usize, replicas: usize) -> Self {
        self.shape = Shape::Cluster { masters: masters.max(1), replicas };
        self
    }

    /// Arguments of `redis-server`, for each node. They win over what is set already.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Puts a [`Proxy`](super::Proxy) in front of each node, which clients, replicas and sentinels use, so that one can be
    /// [isolated](Redis::isolate).
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
        self
    }

    /// Starts it, and waits until it answers, replicas have caught up and a cluster is whole.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn start(self) -> Result<Redis, Error> {
        let program = find::redis()?;
        let count = match self.shape {
            Shape::Single => 1,
            Shape::Replicas(replicas) | Shape::Sentinel(replicas) => 1 + replicas,
            Shape::Cluster { masters, replicas } => masters * (1 + replicas),
        };
        let plan =
            Plan { server: "redis", count, ports: 2, protocol: Protocol::Redis, behind_proxies: self.behind_proxies };
        let servers = plan.start(|places| Ok(places.iter().map(|place| self.node(place, &program)).collect())).await?;
        let mut redis = Redis { servers, sentinels: None, is_cluster: false };
        if let Shape::Cluster { masters, .. } = self.shape {
            redis.is_cluster = true;
            redis.form_cluster(masters).await?;
        } else {
            for index in 1..count {
                redis.replicate(index, 0).await?;
            }
        }
        if matches!(self.shape, Shape::Sentinel(_)) {
            redis.sentinels = Some(sentinels(&redis.public_port(0), count - 1, &program).await?);
        }
        Ok(redis)
    }

    fn node(&self, place: &Place, program: &Path) -> Node {
        let Place { folder, ports, .. } = place;
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: &str| arguments.extend([name, value].map(OsString::from));
        option("--bind", "127.0.0.1");
        option("--port", &ports[0].to_string());
        option("--save", "");
        option("--appendonly", "yes");
        option("--enable-debug-command", "local");
        // A replica gets its copy at once, and no second replica is waited for.
        option("--repl-diskless-sync-delay", "0");
        option("--repl-ping-replica-period", "1");
        option("--replica-announce-ip", "127.0.0.1");
        option("--replica-announce-port", &place.public_port().to_string());
        if let Shape::Cluster { .. } = self.shape {
            option("--cluster-enabled", "yes");
            option("--cluster-port", &ports[1].to_string());
            option("--cluster-announce-port", &place.public_port().to_string());
            option("--cluster-announce-ip", "127.0.0.1");
            option("--cluster-node-timeout", "2000");
        }
        arguments.extend(self.arguments.iter().cloned());
        let (folder, program) = (folder.clone(), program.to_owned());
        Node::new(Spec { server: "redis", port: ports[0], folder, program, arguments, answers })
    }
}

/// Three that watch the master at this port, and know its replicas and each other.
async fn sentinels(master: &str, replicas: usize, program: &Path) -> Result<Servers, Error> {
    let plan = Plan { server: "redis", count: 3, ports: 1, protocol: Protocol::Redis, behind_proxies: false };
    let configure = |Place { folder, ports, .. }: &Place| {
        let file = folder.join("sentinel.conf");
        let config = format!(
            "port {}\nbind 127.0.0.1\n\
             sentinel monitor {SENTINEL_SERVICE} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {SENTINEL_SERVICE} 1000\n\
             sentinel failover-timeout {SENTINEL_SERVICE} 6000\n",
            ports[0]
        );
        std::fs::write(&file, config).map(|()| file)
    };
    let node = |place: &Place, file: PathBuf| {
        let (folder, program) = (place.folder.clone(), program.to_owned());
        let arguments = vec![file.into(), "--sentinel".into()];
        Node::new(Spec { server: "redis", port: place.ports[0], folder, program, arguments, answers })
    };
    let sentinels = plan
        .start(|places| {
            let made = places.iter().map(|place| configure(place).map(|file| node(place, file)));
            made.collect::<Result<Vec<_>, _>>()
                .map_err(|error| Error::failed("redis", format!("cannot write a sentinel's configuration: {error}")))
        })
        .await?;
    let nodes = sentinels.nodes().to_vec();
    wait(move || {
        for node in &nodes {
            // Names and values, a line each.
            let answer = ask(node.address(), &["SENTINEL", "MASTER", SENTINEL_SERVICE])?;
            let lines: Vec<&str> = answer.lines().collect();
            let value =
                |name| lines.iter().position(|line| *line == name).and_then(|at| lines.get(at + 1)?.parse().ok());
            if (value("num-slaves"), value("num-other-sentinels")) != (Some(replicas), Some(2_usize)) {
                return Err(format!("the sentinels do not know all yet: {answer}"));
            }
        }
        Ok(())
    })
    .await?;
    Ok(sentinels)
}

/// A server that wants a password answers too.
fn answers(address: SocketAddr) -> Result<(), String> {
    match ask(address, &["PING"])? {
        answer if answer == "PONG" || answer.starts_with("-NOAUTH") => Ok(()),
        other => Err(other),
    }
}

/// `master` or `slave`.
fn role(address: SocketAddr) -> Result<String, String> {
    Ok(ask(address, &["ROLE"])?.lines().next().unwrap_or_default().to_owned())
}

fn ask(address: SocketAddr, words: &[&str]) -> Result<String, String> {
    wire::redis(address, words).map_err(|error| error.to_string())
}

async fn command(address: SocketAddr, words: &[&str]) -> Result<String, Error> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    blocking("redis", move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        ask(address, &words).map_err(|why| Error::failed("redis", why))
    })
    .await
}

async fn wait(check: impl FnMut() -> Result<(), String> + Send + 'static) -> Result<(), Error> {
    blocking("redis", move || poll(PATIENCE, check).map_err(|why| Error::failed("redis", why))).await
}

fn expect_ok(answer: String) -> Result<(), Error> {
    if answer == "OK" { Ok(()) } else { Err(Error::failed("redis", answer)) }
}
