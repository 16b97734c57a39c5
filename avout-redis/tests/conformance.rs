//! The laws of `avout-conformance`, on one Redis server, in a namespace each.

use async_trait::async_trait;
use avout_conformance::servers::{Node, Protocol, Proxies, shared};
use avout_conformance::{Backend, Fixture};

/// Each namespace has a proxy of its own before the server, unless that is one that runs already.
#[derive(Default)]
struct Server {
    proxies: Proxies,
}

impl Server {
    async fn url(&self, namespace: &str) -> Result<String, avout_conformance::servers::Error> {
        if std::env::var_os("AVOUT_REDIS_URL").is_some_and(|url| !url.is_empty()) {
            return shared::redis_url(namespace).await;
        }
        let servers: Vec<_> = shared::redis().await?.nodes().iter().map(Node::address).collect();
        let proxies = self.proxies.of(namespace, Protocol::Redis, &servers).await?;
        Ok(format!("redis://{}/{namespace}", proxies[0].address()))
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
        let opened = avout_redis::connect(&self.url(namespace).await?).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn remove(&self, namespace: &str) {
        self.proxies.remove(namespace).await;
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        self.proxies.cut(namespace).await
    }

    async fn lose_reply(&self, namespace: &str) -> bool {
        self.proxies.lose_reply(namespace).await
    }

    async fn stall(&self, namespace: &str) -> bool {
        self.proxies.stall(namespace).await
    }

    async fn resume(&self, namespace: &str) {
        self.proxies.resume(namespace).await;
    }

    async fn wipe(&self, namespace: &str) -> bool {
        let Ok(redis) = shared::redis().await else { return false };
        let own = format!("{{{namespace}}}:*");
        let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
        redis.command(0, &["EVAL", script, "0", &own]).await.expect("the server answers");
        true
    }
}

fn main() {
    avout_conformance::run(Server::default())
}
