//! The laws of `avout-conformance`, on one Redis server, in a namespace each.

use async_trait::async_trait;
use avout_conformance::servers::shared;
use avout_conformance::{Backend, Fixture};
use avout_redis::redis::{Client, RedisResult, cmd};

struct Server;

impl Server {
    /// Ends all connections that have the name of this namespace's clients.
    async fn cut(url: &str, namespace: &str) -> RedisResult<()> {
        let server = url.trim_end_matches(namespace);
        let mut admin = Client::open(server)?.get_multiplexed_async_connection().await?;
        let list: String = cmd("CLIENT").arg("LIST").query_async(&mut admin).await?;
        for line in list.lines() {
            let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
            if let (Some(name), Some(id)) = (field("name="), field("id="))
                && name == format!("avout:{namespace}")
            {
                // It may have ended meanwhile.
                let _ = cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(&mut admin).await;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Fixture for Server {
    fn name(&self) -> &str {
        "redis"
    }

    async fn available(&self) -> Result<(), String> {
        shared::redis_url("any").await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let url = shared::redis_url(namespace).await.expect("the server is there");
        let opened = avout_redis::connect(&url).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        let url = shared::redis_url(namespace).await.expect("the server is there");
        Self::cut(&url, namespace).await.expect("an administrator's connection");
        true
    }
}

fn main() {
    avout_conformance::run(Server)
}
