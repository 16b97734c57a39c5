//! What servers of all kinds have in common: several nodes started together.

use std::path::PathBuf;

use super::frame::Protocol;
use super::node::Node;
use super::spec::folder;
use super::{Error, Proxy, free_port};

/// The nodes of one service, whatever its kind.
#[derive(Clone, Debug)]
pub struct Servers {
    server: &'static str,
    nodes: Vec<Node>,
    /// In front of each node, if asked for.
    proxies: Vec<Proxy>,
    protocol: Protocol,
}

impl Servers {
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

    /// `127.0.0.1:4711,…`, all nodes, or what stands in front of them.
    pub fn address(&self) -> String {
        (0..self.nodes.len()).map(|index| self.public(index)).collect::<Vec<_>>().join(",")
    }

    /// `127.0.0.1:4711`, the address of one node for clients.
    pub(super) fn public(&self, index: usize) -> String {
        let address = self.proxies.get(index).map_or_else(|| self.nodes[index].address(), Proxy::address);
        address.to_string()
    }

    /// The proxies in front of the nodes; none unless the builder was told `behind_proxies`.
    pub fn proxies(&self) -> &[Proxy] {
        &self.proxies
    }

    /// A new proxy in front of a node, which knows the messages of its protocol.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn proxy(&self, node: usize) -> Result<Proxy, Error> {
        Proxy::speaking(self.protocol, self.nodes[node].address()).await
    }

    /// Kills all nodes.
    ///
    /// # Errors
    /// Those of [`Node::kill`].
    pub async fn kill_all(&self) -> Result<(), Error> {
        for node in &self.nodes {
            node.kill().await?;
        }
        Ok(())
    }

    /// Starts all nodes that do not run, and waits until all answer.
    ///
    /// # Errors
    /// Those of [`Node::start`].
    pub async fn start_all(&self) -> Result<(), Error> {
        // Together: members of a group may answer only when enough of them run.
        for node in &self.nodes {
            node.launch().await?;
        }
        for node in &self.nodes {
            node.ready().await?;
        }
        Ok(())
    }

    /// Cuts the proxy in front of a node.
    pub(super) async fn cut(&self, node: usize) -> Result<(), Error> {
        self.fence(node)?.cut().await;
        Ok(())
    }

    /// Heals it.
    pub(super) async fn heal(&self, node: usize) -> Result<(), Error> {
        self.fence(node)?.heal().await
    }

    fn fence(&self, node: usize) -> Result<&Proxy, Error> {
        let missing = || {
            Error::failed(self.server, "only a node behind a proxy can be cut off: see `behind_proxies` of the builder")
        };
        self.proxies.get(node).ok_or_else(missing)
    }
}

/// What is to be started.
pub(super) struct Plan {
    pub(super) server: &'static str,
    pub(super) count: usize,
    /// How many ports each node takes. Clients use the first.
    pub(super) ports: usize,
    pub(super) protocol: Protocol,
    pub(super) behind_proxies: bool,
}

/// A place for one node, before it runs.
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) ports: Vec<u16>,
    proxy: Option<Proxy>,
}

impl Place {
    /// Where clients find the node.
    pub(super) fn public_port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.ports[0], |proxy| proxy.address().port())
    }
}

impl Plan {
    /// Makes nodes on free ports, starts all of them, and waits until all answer.
    ///
    /// Another process may take a port between its choice and its use: then all is done again, with other ports.
    pub(super) async fn start(&self, make: impl Fn(&[Place]) -> Result<Vec<Node>, Error>) -> Result<Servers, Error> {
        for _ in 0..5 {
            match self.try_start(&make).await {
                Err(error) if error.is_port_taken() => {}
                other => return other,
            }
        }
        self.try_start(&make).await
    }

    async fn try_start(&self, make: impl Fn(&[Place]) -> Result<Vec<Node>, Error>) -> Result<Servers, Error> {
        let mut places = Vec::new();
        for _ in 0..self.count {
            let ports: Vec<u16> = (0..self.ports).map(|_| free_port()).collect();
            let proxy = match self.behind_proxies {
                true => Some(Proxy::speaking(self.protocol, ([127, 0, 0, 1], ports[0]).into()).await?),
                false => None,
            };
            places.push(Place { folder: folder(self.server)?, ports, proxy });
        }
        let nodes = make(&places)?;
        let proxies = places.into_iter().filter_map(|place| place.proxy).collect();
        let servers = Servers { server: self.server, nodes, proxies, protocol: self.protocol };
        servers.start_all().await?;
        Ok(servers)
    }
}
