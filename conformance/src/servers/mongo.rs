use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::ops::Deref;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::bson::{self, Bson};
use super::frame::Protocol;
use super::group::{Place, Plan, Servers};
use super::node::{Node, PATIENCE, blocking, poll};
use super::spec::Spec;
use super::{Error, find};

const SET: &str = "avout";
const KEY_FILE: &str = "key";

/// MongoDB: one server by itself, or a replica set.
///
/// Fail points are allowed (`enableTestCommands`). A replica set notices within 2 s that its primary is gone.
#[derive(Clone, Debug)]
pub struct Mongo {
    servers: Servers,
    replica_set: bool,
}

/// How a [`Mongo`] is set up.
#[derive(Clone, Default)]
#[must_use]
pub struct MongoBuilder {
    members: Option<usize>,
    arguments: Vec<OsString>,
    user: Option<(String, String)>,
    behind_proxies: bool,
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

    /// Which node takes writes, as soon as one does. A node that is paused is not asked.
    ///
    /// # Errors
    /// If none does within a minute.
    pub async fn primary(&self) -> Result<usize, Error> {
        let nodes = self.nodes().to_vec();
        blocking("mongo", move || {
            let writes = |node: &Node| node.pid().is_some() && !node.is_paused() && is_primary(node.address());
            poll(PATIENCE, || nodes.iter().position(writes).ok_or_else(|| "no node is primary".to_owned()))
                .map_err(|why| Error::failed("mongo", why))
        })
        .await
    }

    /// Runs an administrator's command that is one field, such as `replSetFreeze: 0`, on a node's database `admin`.
    ///
    /// # Errors
    /// If the server refuses, or does not answer.
    pub async fn admin(&self, node: usize, command: &str, value: i32) -> Result<(), Error> {
        let (address, request) = (self.node(node).address(), Bson::document([(command, Bson::Int(value))]));
        let run = move || bson::command(address, "admin", &request).map_err(|error| Error::failed("mongo", error));
        blocking("mongo", run).await?;
        Ok(())
    }

    /// Cuts a node from clients. On return nothing passes any more.
    ///
    /// Its peers cannot call it any more either, but it can still call them: whether they make another primary, and when, is not
    /// sure. [`pause`](Node::pause) makes a primary that all have lost.
    ///
    /// # Errors
    /// If the builder was not told [`behind_proxies`](MongoBuilder::behind_proxies).
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

    /// Makes the primary step down, for 10 s, in favour of another.
    ///
    /// # Errors
    /// If there is none, or it does not find another that is up to date.
    pub async fn step_down(&self) -> Result<(), Error> {
        let primary = self.node(self.primary().await?).address();
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

impl Deref for Mongo {
    type Target = Servers;

    fn deref(&self) -> &Servers {
        &self.servers
    }
}

impl std::fmt::Debug for MongoBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoBuilder").field("members", &self.members).finish_non_exhaustive()
    }
}

impl MongoBuilder {
    /// A replica set of `members`, instead of a server by itself.
    pub fn replica_set(mut self, members: usize) -> Self {
        self.members = Some(members.max(1));
        self
    }

    /// Asks all clients to authenticate, and makes a user of this name and password who may do everything.
    ///
    /// [`Mongo::step_down`] and [`Mongo::admin`] do not authenticate, and are refused then.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// Puts a [`Proxy`](super::Proxy) in front of each node, which clients and the other members use, so that one can be
    /// [isolated](Mongo::isolate).
    pub fn behind_proxies(mut self) -> Self {
        self.behind_proxies = true;
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
        let plan = Plan {
            server: "mongo",
            count: self.members.unwrap_or(1),
            ports: 1,
            protocol: Protocol::Mongo,
            behind_proxies: self.behind_proxies,
        };
        let servers = plan
            .start(|places| {
                if self.user.is_some() {
                    places.iter().try_for_each(|place| write_key(&place.folder)).map_err(|error| {
                        Error::failed("mongo", format!("cannot write the key of its members: {error}"))
                    })?;
                }
                Ok(places.iter().map(|place| self.node(place, &program)).collect())
            })
            .await?;
        let mongo = Mongo { servers, replica_set: self.members.is_some() };
        if mongo.replica_set {
            mongo.initiate().await?;
        }
        let primary = mongo.primary().await?;
        if let Some((name, password)) = self.user {
            mongo.add_user(primary, name, password).await?;
        }
        Ok(mongo)
    }

    fn node(&self, Place { folder, ports, .. }: &Place, program: &Path) -> Node {
        let mut arguments: Vec<OsString> = ["--bind_ip", "127.0.0.1", "--nounixsocket"].map(Into::into).to_vec();
        arguments.extend(["--wiredTigerCacheSizeGB", "0.25", "--oplogSize", "256"].map(Into::into));
        arguments.extend(["--setParameter", "enableTestCommands=1"].map(Into::into));
        arguments.extend(["--setParameter", "diagnosticDataCollectionEnabled=false"].map(Into::into));
        arguments.extend(["--port".into(), ports[0].to_string().into(), "--dbpath".into(), folder.clone().into()]);
        if self.members.is_some() {
            arguments.extend(["--replSet", SET].map(Into::into));
        }
        if self.user.is_some() {
            // Members of a set know each other by it; it also makes clients authenticate.
            arguments.extend(["--keyFile".into(), folder.join(KEY_FILE).into()]);
        }
        arguments.extend(self.arguments.iter().cloned());
        let (folder, program) = (folder.clone(), program.to_owned());
        Node::new(Spec { server: "mongo", port: ports[0], folder, program, arguments, answers })
    }
}

/// The secret that the members of a set share; a test's, so that it need not be one.
fn write_key(folder: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(folder.join(KEY_FILE))?.write_all(b"avoutavout")
}

impl Mongo {
    /// From this machine the first user can be made without being one.
    async fn add_user(&self, primary: usize, name: String, password: String) -> Result<(), Error> {
        let address = self.node(primary).address();
        let request = Bson::document([
            ("createUser", Bson::text(name)),
            ("pwd", Bson::text(password)),
            ("roles", Bson::Array(vec![Bson::text("root")])),
        ]);
        let run = move || {
            bson::command(address, "admin", &request)
                .map_err(|error| Error::failed("mongo", format!("the user cannot be made: {error}")))
        };
        blocking("mongo", run).await?;
        Ok(())
    }

    async fn initiate(&self) -> Result<(), Error> {
        let first = self.node(0).address();
        let member = |index| {
            let id = Bson::Int(i32::try_from(index).unwrap_or(i32::MAX));
            Bson::document([("_id", id), ("host", Bson::text(self.public(index)))])
        };
        let config = Bson::document([
            ("_id", Bson::text(SET)),
            ("members", Bson::Array((0..self.nodes().len()).map(member).collect())),
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
