//! The laws of `avout-conformance`, on a replica set of one node, and with `AVOUT_MONGO_NODES=3` on one of three.
//!
//! `AVOUT_MONGO_URL` names servers to use instead: `mongodb://…/database?…`.

use async_trait::async_trait;
use avout_conformance::servers::Mongo;
use avout_conformance::{Backend, Fixture};
use tokio::sync::OnceCell;

/// All laws share the servers, and each has a namespace of its own.
#[derive(Default)]
struct Server {
    own: OnceCell<Mongo>,
}

impl Server {
    async fn url(&self) -> Result<String, String> {
        if let Ok(url) = std::env::var("AVOUT_MONGO_URL") {
            return Ok(url);
        }
        let nodes = std::env::var("AVOUT_MONGO_NODES").ok().and_then(|nodes| nodes.parse().ok()).unwrap_or(1);
        let own = self.own.get_or_try_init(|| Mongo::replica_set(nodes)).await;
        own.map(|mongo| mongo.url("laws")).map_err(|error| error.to_string())
    }
}

#[async_trait]
impl Fixture for Server {
    fn name(&self) -> &str {
        "mongo"
    }

    async fn available(&self) -> Result<(), String> {
        self.url().await.map(|_| ())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let url = self.url().await.expect("it was available");
        let options = avout_mongo::Options::from_url(&url)?.namespace(namespace)?;
        let opened = options.open().await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }
}

fn main() {
    avout_conformance::run(Server::default())
}
