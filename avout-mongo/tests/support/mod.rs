//! The fixture of both conformance tests.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use avout_conformance::servers::{Error, Mongo, Proxy, shared};
use avout_conformance::{Backend, Fixture};
use avout_mongo::Options;
use tokio::sync::Mutex;

type Starting = Pin<Box<dyn Future<Output = Result<&'static Mongo, Error>> + Send>>;

/// A replica set that all laws share, in one database; each law has a namespace of its own.
pub(crate) struct Set {
    name: &'static str,
    start: fn() -> Starting,
    side_by_side: usize,
    /// Of one node each namespace has a proxy of its own, so that its connections can be cut. With more nodes the driver would
    /// go around it, to the addresses that the nodes tell.
    proxies: Mutex<HashMap<String, Proxy>>,
}

impl Set {
    pub(crate) fn new(name: &'static str, start: fn() -> Starting, side_by_side: usize) -> Self {
        Self { name, start, side_by_side, proxies: Mutex::default() }
    }

    /// Whether the set is one that runs already.
    fn is_given(&self) -> bool {
        std::env::var_os("AVOUT_MONGO_URL").is_some_and(|url| !url.is_empty())
    }

    async fn url(&self, namespace: &str) -> Result<String, Error> {
        if self.is_given() {
            return shared::mongo_url("laws").await;
        }
        let set = (self.start)().await?;
        if set.nodes().len() > 1 {
            return Ok(set.url("laws"));
        }
        let mut proxies = self.proxies.lock().await;
        if !proxies.contains_key(namespace) {
            proxies.insert(namespace.to_owned(), set.proxy(0).await?);
        }
        Ok(format!("mongodb://{}/laws?directConnection=true", proxies[namespace].address()))
    }
}

#[async_trait]
impl Fixture for Set {
    fn name(&self) -> &str {
        self.name
    }

    async fn available(&self) -> Result<(), String> {
        if self.is_given() {
            return Ok(());
        }
        (self.start)().await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let url = self.url(namespace).await?;
        let opened = Options::from_url(&url)?.namespace(namespace)?.open().await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    fn side_by_side(&self) -> Option<usize> {
        Some(self.side_by_side)
    }

    async fn remove(&self, namespace: &str) {
        self.proxies.lock().await.remove(namespace);
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        let Some(proxy) = self.proxies.lock().await.get(namespace).cloned() else { return false };
        proxy.cut().await;
        proxy.heal().await.expect("the proxy listens again");
        true
    }
}
