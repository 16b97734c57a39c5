use std::ffi::OsString;
use std::net::SocketAddr;

use super::bson::{self, Bson};
use super::group::{self, Place};
use super::node::{Node, PATIENCE, Spec, blocking, poll};
use super::{Error, find};

const SET: &str = "avout";

/// MongoDB: one server by itself, or a replica set.
///
/// Fail points are allowed (`enableTestCommands`). A replica set notices within 2 s that its primary is gone.
#[derive(Clone, Debug)]
pub struct Mongo {
    nodes: Vec<Node>,
    replica_set: bool,
}

/// How a [`Mongo`] is set up.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct MongoBuilder {
    members: Option<usize>,
    arguments: Vec<OsString>,
}

impl Mongo {
    /// One server by itself, which has no transactions.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn standalone() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A replica set of `members`.
    ///
    /// # Errors
    /// Those of [`standalone`](Self::standalone).
    pub async fn replica_set(members: usize) -> Result<Self, Error> {
        Self::builder().replica_set(members).start().await
    }

    /// With settings of your own.
    pub fn builder() -> MongoBuilder {
        MongoBuilder::default()
    }

    /// `mongodb://127.0.0.1:4711,…/namespace?replicaSet=avout`, with all nodes; without the query for a server by itself.
    pub fn url(&self, namespace: &str) -> String {
        let query = if self.replica_set { format!("?replicaSet={SET}") } else { String::new() };
        format!("mongodb://{}/{namespace}{query}", self.address())
    }

    /// `127.0.0.1:4711,…`, with all nodes.
    pub fn address(&self) -> String {
        super::addresses(&self.nodes)
    }

    /// One of the nodes, counted from 0.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Which node takes writes, as soon as one does. A node that is paused is not asked.
    ///
    /// # Errors
    /// If none does within a minute.
    pub async fn primary(&self) -> Result<usize, Error> {
        let nodes = self.nodes.clone();
        blocking("mongo", move || {
            let writes = |node: &Node| node.pid().is_some() && !node.is_paused() && is_primary(node.address());
            poll(PATIENCE, || nodes.iter().position(writes).ok_or_else(|| "no node is primary".to_owned()))
                .map_err(|why| Error::failed("mongo", why))
        })
        .await
    }

    /// Makes the primary step down, for 10 s, in favour of another.
    ///
    /// # Errors
    /// If there is none, or it does not find another that is up to date.
    pub async fn step_down(&self) -> Result<(), Error> {
        let primary = self.nodes[self.primary().await?].address();
        blocking("mongo", move || {
            let request =
                Bson::document([("replSetStepDown", Bson::Int(10)), ("secondaryCatchUpPeriodSecs", Bson::Int(8))]);
            poll(PATIENCE, || bson::command(primary, "admin", &request).map_err(|error| error.to_string()))
                .map_err(|why| Error::failed("mongo", why))
        })
        .await?;
        Ok(())
    }
}

impl MongoBuilder {
    /// A replica set of `members`, instead of a server by itself.
    pub fn replica_set(mut self, members: usize) -> Self {
        self.members = Some(members.max(1));
        self
    }

    /// Arguments of `mongod`.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Starts it, and waits until it takes writes.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn start(self) -> Result<Mongo, Error> {
        let program = find::mongod()?;
        let nodes = group::start("mongo", self.members.unwrap_or(1), 1, |places| {
            let node = |Place { folder, ports }: &Place| {
                let mut arguments: Vec<OsString> =
                    ["--bind_ip", "127.0.0.1", "--nounixsocket"].map(Into::into).to_vec();
                arguments.extend(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256"].map(Into::into));
                arguments.extend(["--setParameter", "enableTestCommands=1"].map(Into::into));
                arguments.extend(["--setParameter", "diagnosticDataCollectionEnabled=false"].map(Into::into));
                arguments.extend([
                    "--port".into(),
                    ports[0].to_string().into(),
                    "--dbpath".into(),
                    folder.clone().into(),
                ]);
                if self.members.is_some() {
                    arguments.extend(["--replSet", SET].map(Into::into));
                }
                arguments.extend(self.arguments.iter().cloned());
                Node::new(Spec {
                    server: "mongo",
                    port: ports[0],
                    folder: folder.clone(),
                    program: program.clone(),
                    arguments,
                    answers,
                })
            };
            Ok(places.iter().map(node).collect())
        })
        .await?;
        let mongo = Mongo { nodes, replica_set: self.members.is_some() };
        if mongo.replica_set {
            mongo.initiate().await?;
        }
        mongo.primary().await?;
        Ok(mongo)
    }
}

impl Mongo {
    async fn initiate(&self) -> Result<(), Error> {
        let first = self.nodes[0].address();
        let member = |(index, node): (usize, &Node)| {
            let id = Bson::Int(i32::try_from(index).unwrap_or(i32::MAX));
            Bson::document([("_id", id), ("host", Bson::text(node.address().to_string()))])
        };
        let config = Bson::document([
            ("_id", Bson::text(SET)),
            ("members", Bson::Array(self.nodes.iter().enumerate().map(member).collect())),
            (
                "settings",
                Bson::document([
                    ("heartbeatIntervalMillis", Bson::Int(200)),
                    ("electionTimeoutMillis", Bson::Int(2000)),
                ]),
            ),
        ]);
        let request = Bson::document([("replSetInitiate", config)]);
        blocking("mongo", move || {
            poll(PATIENCE, || bson::command(first, "admin", &request).map_err(|error| error.to_string()))
                .map_err(|why| Error::failed("mongo", format!("the replica set cannot be made: {why}")))
        })
        .await?;
        Ok(())
    }
}

fn answers(address: SocketAddr) -> Result<(), String> {
    hello(address).map(|_| ()).map_err(|error| error.to_string())
}

fn is_primary(address: SocketAddr) -> bool {
    hello(address).is_ok_and(|answer| answer.get("isWritablePrimary").is_some_and(Bson::is_true))
}

fn hello(address: SocketAddr) -> std::io::Result<Bson> {
    bson::command(address, "admin", &Bson::document([("hello", Bson::Int(1))]))
}
