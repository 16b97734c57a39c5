//! The laws of `avout-conformance`, on a replica set of one node, or with `AVOUT_MONGO_NODES=3` on one of three.

use async_trait::async_trait;
use avout_conformance::servers::{Error, shared};
use avout_conformance::{Backend, Fixture};
use avout_mongo::Options;

/// All laws share the servers and a database, and each has a namespace of its own.
struct Server;

async fn url() -> Result<String, Error> {
    match std::env::var("AVOUT_MONGO_NODES").as_deref() {
        Ok("3") => Ok(shared::mongo_replica_set().await?.url("laws")),
        _ => shared::mongo_url("laws").await,
    }
}

#[async_trait]
impl Fixture for Server {
    fn name(&self) -> &str {
        "mongo"
    }

    async fn available(&self) -> Result<(), String> {
        url().await.map(|_| ()).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let url = url().await.expect("it was available");
        let opened = Options::from_url(&url)?.namespace(namespace)?.open().await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }
}

fn main() {
    avout_conformance::run(Server)
}
