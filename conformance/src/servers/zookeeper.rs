use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use super::frame::Protocol;
use super::group::{Place, Plan, Servers};
use super::node::{Node, PATIENCE, blocking, poll};
use super::partition::Peers;
use super::spec::Spec;
use super::{Error, find, wire};

/// ZooKeeper: one server, or an ensemble.
///
/// ```no_run
/// use avout_conformance::servers::{Error, ZooKeeper};
///
/// # async fn f() -> Result<(), Error> {
/// let zk = ZooKeeper::ensemble(3).await?;
/// println!("{}", zk.url("shop"));
/// let leader = zk.leader().await?;
/// zk.node(leader).kill().await?;
/// let next = zk.leader().await?;
/// assert_ne!(next, leader);
/// # Ok(()) }
/// ```
///
/// All four-letter words are allowed. A tick is 200 ms, so that sessions may be as short as 400 ms, and as long as 60 s.
/// Its log is not forced to the disk, unless asked for by [`durable`](ZooKeeperBuilder::durable): a crash of the server loses
/// nothing all the same.
#[derive(Clone)]
pub struct ZooKeeper {
    servers: Servers,
    /// What goes between the nodes, if it can be cut.
    peers: Option<Arc<Peers>>,
}

/// How a [`ZooKeeper`] is set up.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ZooKeeperBuilder {
    nodes: usize,
    durable: bool,
    config: Vec<String>,
    java: Vec<String>,
    behind_proxies: bool,
}

impl ZooKeeper {
    /// One server.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn single() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// An ensemble of `nodes`.
    ///
    /// # Errors
    /// Those of [`single`](Self::single).
    pub async fn ensemble(nodes: usize) -> Result<Self, Error> {
        Self::builder().nodes(nodes).start().await
    }

    /// With settings of your own.
    pub fn builder() -> ZooKeeperBuilder {
        ZooKeeperBuilder { nodes: 1, ..ZooKeeperBuilder::default() }
    }

    /// `zk://127.0.0.1:4711,…/namespace`, with all nodes.
    pub fn url(&self, namespace: &str) -> String {
        format!("zk://{}/{namespace}", self.address())
    }

    /// Which node leads, as soon as one does; 0 for a single server. A node that is paused is not asked.
    ///
    /// # Errors
    /// If none leads within a minute.
    pub async fn leader(&self) -> Result<usize, Error> {
        let nodes = self.nodes().to_vec();
        blocking("zk", move || {
            let leads = |node: &Node| {
                node.pid().is_some()
                    && !node.is_paused()
                    && matches!(mode(node.address()).as_deref(), Ok("leader" | "standalone"))
            };
            poll(PATIENCE, || nodes.iter().position(leads).ok_or_else(|| "no node leads".to_owned()))
                .map_err(|why| Error::failed("zk", why))
        })
        .await
    }

    /// Cuts a node from its peers and from clients, as a network that is cut in two does. On return nothing passes any more.
    ///
    /// # Errors
    /// If the builder was not told [`behind_proxies`](ZooKeeperBuilder::behind_proxies).
    pub async fn isolate(&self, node: usize) -> Result<(), Error> {
        if let Some(peers) = &self.peers {
            peers.isolate(node).await;
        }
        self.servers.cut(node).await
    }

    /// Ends what [`isolate`](Self::isolate) began.
    ///
    /// # Errors
    /// If the proxy cannot listen again.
    pub async fn rejoin(&self, node: usize) -> Result<(), Error> {
        if let Some(peers) = &self.peers {
            peers.rejoin(node).await;
        }
        self.servers.heal(node).await
    }

    /// The answer of a node to a four-letter word such as `srvr` or `mntr`.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn ask(&self, node: usize, word: &str) -> Result<String, Error> {
        let (address, word) = (self.node(node).address(), word.to_owned());
        blocking("zk", move || wire::four_letters(address, &word).map_err(|error| Error::failed("zk", error))).await
    }

    /// How many packets a node has received from clients since it started, this question included.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn packets_received(&self, node: usize) -> Result<u64, Error> {
        let answer = self.ask(node, "srvr").await?;
        let count = answer.lines().find_map(|line| line.strip_prefix("Received: ")?.trim().parse().ok());
        count.ok_or_else(|| Error::failed("zk", format!("no count of packets in its answer: {answer}")))
    }
}

impl std::fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.servers.fmt(f)
    }
}

impl Deref for ZooKeeper {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl ZooKeeperBuilder {
    /// How many servers.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// Forces the log to the disk before a write is acknowledged, as ZooKeeper does where it is used in earnest.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// A line of `zoo.cfg`, such as `maxSessionTimeout=5000`. It wins over what is set already.
    pub fn config(mut self, line: impl Into<String>) -> Self {
        self.config.push(line.into());
        self
    }

    /// An argument of Java, such as `-Djute.maxbuffer=4194304`.
    pub fn java(mut self, argument: impl Into<String>) -> Self {
        self.java.push(argument.into());
        self
    }

    /// Puts a [`Proxy`](super::Proxy) in front of each node, which clients use, and others between the nodes, so that one can
    /// be [isolated](ZooKeeper::isolate).
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
        self
    }

    /// Starts it, and waits until all nodes answer and one leads.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn start(self) -> Result<ZooKeeper, Error> {
        let (java, jars) = find::zookeeper()?;
        let plan = Plan {
            server: "zk",
            count: self.nodes.max(1),
            ports: 3,
            protocol: Protocol::ZooKeeper,
            behind_proxies: self.behind_proxies,
        };
        let peers = Mutex::new(None);
        let servers = plan
            .start(|places| {
                let between: Vec<Vec<u16>> = places.iter().map(|place| place.ports[1..].to_vec()).collect();
                let between = self.behind_proxies.then(|| Peers::new(&between).map(Arc::new)).transpose()?;
                let node = |index| self.node(places, index, between.as_deref(), java.clone(), &jars);
                let nodes = (0..places.len()).map(node).collect();
                *peers.lock().unwrap_or_else(PoisonError::into_inner) = between;
                nodes
            })
            .await?;
        Ok(ZooKeeper { servers, peers: peers.into_inner().unwrap_or_else(PoisonError::into_inner) })
    }

    fn node(
        &self,
        places: &[Place],
        index: usize,
        peers: Option<&Peers>,
        java: PathBuf,
        jars: &OsStr,
    ) -> Result<Node, Error> {
        let io = |error| Error::failed("zk", format!("cannot write its configuration: {error}"));
        let Place { folder, ports, .. } = &places[index];
        let data = folder.join("data");
        std::fs::create_dir(&data).map_err(io)?;
        std::fs::write(data.join("myid"), (index + 1).to_string()).map_err(io)?;
        let mut config = vec![
            format!("dataDir={}", data.display()),
            format!("clientPort={}", ports[0]),
            "clientPortAddress=127.0.0.1".to_owned(),
            "tickTime=200".to_owned(),
            "maxSessionTimeout=60000".to_owned(),
            // In ticks: how long a follower may take to join, and how far it may fall behind. A new leader of 3.8 that takes a follower's
            // early acknowledgement for that of another epoch waits so long in vain before the next election (ZOOKEEPER-4685).
            "initLimit=25".to_owned(),
            "syncLimit=20".to_owned(),
            "maxClientCnxns=0".to_owned(),
            "admin.enableServer=false".to_owned(),
            "4lw.commands.whitelist=*".to_owned(),
        ];
        if places.len() > 1 {
            let members = places.iter().enumerate();
            config.extend(
                members.map(|(n, place)| format!("server.{}=127.0.0.1:{}:{}", n + 1, place.ports[1], place.ports[2])),
            );
        }
        config.extend(self.config.iter().cloned());
        let file = folder.join("zoo.cfg");
        std::fs::write(&file, config.join("\n") + "\n").map_err(io)?;

        let mut arguments: Vec<OsString> = [
            "-Xmx512m",
            // A server of a few minutes' life is not worth the optimizing compiler's start.
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Dzookeeper.preAllocSize=4096",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
        ]
        .map(Into::into)
        .to_vec();
        if !self.durable {
            arguments.push("-Dzookeeper.forceSync=no".into());
        }
        arguments.extend(peers.into_iter().flat_map(|peers| peers.java(index)).map(Into::into));
        arguments.extend(self.java.iter().map(Into::into));
        arguments.extend([
            "-cp".into(),
            jars.to_owned(),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain".into(),
            file.into(),
        ]);
        Ok(Node::new(Spec { server: "zk", port: ports[0], folder: folder.clone(), program: java, arguments, answers }))
    }
}

fn answers(address: SocketAddr) -> Result<(), String> {
    mode(address).map(|_| ())
}

/// `leader`, `follower` or `standalone`.
fn mode(address: SocketAddr) -> Result<String, String> {
    let answer = wire::four_letters(address, "srvr").map_err(|error| error.to_string())?;
    let mode = answer.lines().find_map(|line| line.strip_prefix("Mode: "));
    mode.map(str::to_owned).ok_or_else(|| answer.trim().to_owned())
}
