//! Cutting a node of a ZooKeeper ensemble from its peers.
//!
//! A proxy in front of each node will not do: a node tells its peers its own election address, and they call back there, past
//! the proxy. But Java sends all outgoing connections through a SOCKS proxy if told so, and each node gets one of its own.
//! So it is known who calls whom.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::frame::Protocol;
use super::link::{Link, runtime};
use super::proxy::listen;
use super::{Error, free_port};

/// The connections among the nodes of one ensemble.
pub(super) struct Peers {
    /// The port of each node's SOCKS proxy.
    ports: Vec<u16>,
    listeners: Vec<Arc<Link>>,
    /// By caller and called.
    links: HashMap<(usize, usize), Arc<Link>>,
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.listeners.iter().chain(self.links.values()).for_each(|link| link.cut());
    }
}

impl Peers {
    /// For nodes that listen on these ports each.
    pub(super) fn new(nodes: &[Vec<u16>]) -> Result<Self, Error> {
        let pairs = (0..nodes.len()).flat_map(|from| (0..nodes.len()).map(move |to| (from, to)));
        let links: HashMap<_, _> = pairs.map(|pair| (pair, Link::new(Protocol::Any))).collect();
        let mut peers = Self { ports: Vec::new(), listeners: Vec::new(), links };
        for from in 0..nodes.len() {
            let called = nodes.iter().enumerate();
            let routes: HashMap<u16, Arc<Link>> = called
                .flat_map(|(to, ports)| ports.iter().map(move |port| (*port, (from, to))))
                .map(|(port, pair)| (port, Arc::clone(&peers.links[&pair])))
                .collect();
            let routes = Arc::new(routes);
            let (port, listener) = (free_port(), Link::new(Protocol::Any));
            let serve = move |client| {
                let routes = Arc::clone(&routes);
                // A caller that talks no SOCKS is none of ours.
                runtime().spawn(async move { drop(carry(client, &routes).await) });
            };
            listen((Ipv4Addr::LOCALHOST, port).into(), Arc::clone(&listener), serve)
                .map_err(|error| Error::port_taken("zk", format!("the proxy among its nodes: {error}")))?;
            peers.ports.push(port);
            peers.listeners.push(listener);
        }
        Ok(peers)
    }

    /// What Java needs to be told for a node.
    pub(super) fn java(&self, node: usize) -> [String; 3] {
        [
            "-DsocksProxyHost=127.0.0.1".to_owned(),
            format!("-DsocksProxyPort={}", self.ports[node]),
            // By default what is on this machine goes past the proxy.
            "-DsocksNonProxyHosts=".to_owned(),
        ]
    }

    /// Cuts a node from all others, both ways.
    pub(super) async fn isolate(&self, node: usize) {
        for link in self.around(node) {
            link.cut();
            link.quiet().await;
        }
    }

    /// Lets it talk to the others again.
    pub(super) async fn rejoin(&self, node: usize) {
        for link in self.around(node) {
            link.quiet().await;
            link.mend();
        }
    }

    fn around(&self, node: usize) -> impl Iterator<Item = &Arc<Link>> {
        let links = self.links.iter();
        links.filter(move |((from, to), _)| (*from == node) != (*to == node)).map(|(_, link)| link)
    }
}

/// The reply "connection refused".
const REFUSED: [u8; 10] = [5, 5, 0, 1, 0, 0, 0, 0, 0, 0];

/// As much of SOCKS 5 (RFC 1928) as Java uses: no authentication, CONNECT to an IPv4 address.
async fn carry(mut client: TcpStream, routes: &HashMap<u16, Arc<Link>>) -> io::Result<()> {
    let [version, methods] = read(&mut client).await?;
    if version != 5 {
        return Err(io::Error::other("not SOCKS 5"));
    }
    client.read_exact(&mut vec![0; methods.into()]).await?;
    client.write_all(&[5, 0]).await?;
    let [_, _, _, kind] = read(&mut client).await?;
    let [_, _, _, _, high, low] = read(&mut client).await?;
    let port = u16::from_be_bytes([high, low]);
    let route = routes.get(&port).filter(|link| kind == 1 && !link.is_cut());
    let Some(link) = route else {
        return client.write_all(&REFUSED).await;
    };
    let _at_work = link.enter();
    let Some(server) = link.dial((Ipv4Addr::LOCALHOST, port).into()).await else {
        return client.write_all(&REFUSED).await;
    };
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    link.carry(client, server).await;
    Ok(())
}

async fn read<const N: usize>(client: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    client.read_exact(&mut bytes).await?;
    Ok(bytes)
}
