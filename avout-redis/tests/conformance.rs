//! The laws of `avout-conformance`, on one Redis server, in a namespace each.

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};

struct Server {
    url: String,
}

#[async_trait]
impl Fixture for Server {
    fn name(&self) -> &str {
        "redis"
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let opened = avout_redis::connect(&format!("{}/{namespace}", self.url)).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        let client = avout_redis::redis::Client::open(&*self.url).expect("a URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("a server");
        let list: String = avout_redis::redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.expect("a list");
        for line in list.lines() {
            let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
            if field("name") == Some(&format!("avout:{namespace}")) {
                let id = field("id").expect("an id");
                let _ = avout_redis::redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).exec_async(&mut connection).await;
            }
        }
        true
    }
}

fn main() {
    let url = std::env::var("AVOUT_REDIS_URL").unwrap_or_else(|_| "redis://127.0.0.1:23790".to_owned());
    avout_conformance::run(Server { url })
}
