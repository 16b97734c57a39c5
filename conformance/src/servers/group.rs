//! What servers of all kinds have in common: several nodes started together.

use super::node::{Node, folder};
use super::{Error, free_port};
use std::path::PathBuf;

/// A place for one node: its folder and its ports, before it runs.
pub(super) struct Place {
    pub(super) folder: PathBuf,
    pub(super) ports: Vec<u16>,
}

/// Makes nodes on free ports, starts all of them, and waits until all answer.
///
/// Another process may take a port between its choice and its use: then all is done again, with other ports.
pub(super) async fn start(
    server: &'static str,
    count: usize,
    ports: usize,
    make: impl Fn(&[Place]) -> Result<Vec<Node>, Error>,
) -> Result<Vec<Node>, Error> {
    for _ in 0..5 {
        match try_start(server, count, ports, &make).await {
            Err(error) if error.is_port_taken() => {}
            other => return other,
        }
    }
    try_start(server, count, ports, &make).await
}

async fn try_start(
    server: &'static str,
    count: usize,
    ports: usize,
    make: impl Fn(&[Place]) -> Result<Vec<Node>, Error>,
) -> Result<Vec<Node>, Error> {
    let mut places = Vec::new();
    for _ in 0..count {
        places.push(Place { folder: folder(server)?, ports: (0..ports).map(|_| free_port()).collect() });
    }
    let nodes = make(&places)?;
    for node in &nodes {
        node.launch().await?;
    }
    for node in &nodes {
        node.ready().await?;
    }
    Ok(nodes)
}
