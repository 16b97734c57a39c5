use std::ffi::OsString;
use std::net::SocketAddr;

use super::group::{self, Place};
use super::node::{Node, Spec, blocking};
use super::{Error, find, wire};

/// Redis: one server.
///
/// It keeps an append-only file, so that its data is there again after a kill and a start.
#[derive(Clone, Debug)]
pub struct Redis {
    nodes: Vec<Node>,
}

/// How a [`Redis`] is set up.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct RedisBuilder {
    arguments: Vec<OsString>,
}

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

    /// With settings of your own.
    pub fn builder() -> RedisBuilder {
        RedisBuilder::default()
    }

    /// `redis://127.0.0.1:4711/namespace`.
    pub fn url(&self, namespace: &str) -> String {
        format!("redis://{}/{namespace}", self.nodes[0].address())
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

    /// The answer of a node to a command, such as `["CONFIG", "SET", "maxmemory", "1mb"]`: strings as they are, errors with a `-` in
    /// front, arrays a line for each element.
    ///
    /// # Errors
    /// If it does not answer.
    pub async fn command(&self, node: usize, words: &[&str]) -> Result<String, Error> {
        command(self.nodes[node].address(), words).await
    }
}

impl RedisBuilder {
    /// Arguments of `redis-server`. They win over what is set already.
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(OsString::from));
        self
    }

    /// Starts it, and waits until it answers.
    ///
    /// # Errors
    /// If it is not installed ([`Error::is_missing`]) or does not start.
    pub async fn start(self) -> Result<Redis, Error> {
        let program = find::redis()?;
        let nodes = group::start("redis", 1, 1, |places| {
            let node = |Place { folder, ports }: &Place| {
                let mut arguments: Vec<OsString> =
                    ["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"].map(Into::into).to_vec();
                arguments.extend(["--enable-debug-command", "local", "--port"].map(Into::into));
                arguments.push(ports[0].to_string().into());
                arguments.extend(self.arguments.iter().cloned());
                Node::new(Spec {
                    server: "redis",
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
        Ok(Redis { nodes })
    }
}

/// A server that wants a password answers too.
fn answers(address: SocketAddr) -> Result<(), String> {
    match wire::redis(address, &["PING"]) {
        Ok(answer) if answer == "PONG" || answer.starts_with("-NOAUTH") => Ok(()),
        Ok(other) => Err(other),
        Err(error) => Err(error.to_string()),
    }
}

async fn command(address: SocketAddr, words: &[&str]) -> Result<String, Error> {
    let words: Vec<String> = words.iter().map(ToString::to_string).collect();
    blocking("redis", move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        wire::redis(address, &words).map_err(|error| Error::failed("redis", error))
    })
    .await
}
