//! The laws of `avout-conformance`, on a replica set of one node.

use async_trait::async_trait;
use avout_conformance::{Backend, Fixture};

struct Mongo {
    url: String,
}

#[async_trait]
impl Fixture for Mongo {
    fn name(&self) -> &str {
        "mongo"
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let opened = avout_mongo::connect(&format!("{}&namespace={namespace}", self.url)).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }
}

fn main() {
    let url = std::env::var("AVOUT_MONGO_URL").expect("a server");
    avout_conformance::run(Mongo { url })
}
