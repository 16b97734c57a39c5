//! The fixture of both conformance tests: each namespace behind proxies of its own, so that its connections can be cut.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;

use async_trait::async_trait;
use avout_conformance::servers::{Error, Proxy, ZooKeeper};
use avout_conformance::{Backend, Fixture};
use tokio::sync::Mutex;

type Starting = Pin<Box<dyn Future<Output = Result<&'static ZooKeeper, Error>> + Send>>;

/// A ZooKeeper that all laws share.
pub(crate) struct Zk {
    start: fn() -> Starting,
    /// Options of all clients, as in a URL.
    options: &'static str,
    proxies: Mutex<HashMap<String, Vec<Proxy>>>,
}

impl Zk {
    pub(crate) fn new(start: fn() -> Starting, options: &'static str) -> Self {
        Self { start, options, proxies: Mutex::default() }
    }

    /// The addresses of the namespace's own proxies.
    async fn addresses(&self, namespace: &str) -> Result<String, Error> {
        let mut all = self.proxies.lock().await;
        if !all.contains_key(namespace) {
            let servers = (self.start)().await?;
            let mut proxies = Vec::new();
            for node in 0..servers.nodes().len() {
                proxies.push(servers.proxy(node).await?);
            }
            all.insert(namespace.to_owned(), proxies);
        }
        let addresses = all[namespace].iter().map(|proxy| proxy.address().to_string());
        Ok(addresses.collect::<Vec<_>>().join(","))
    }
}

#[async_trait]
impl Fixture for Zk {
    fn name(&self) -> &str {
        "zk"
    }

    async fn available(&self) -> Result<(), String> {
        (self.start)().await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let addresses = self.addresses(namespace).await?;
        let opened = avout_zk::connect(&format!("zk://{addresses}/{namespace}{}", self.options)).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn remove(&self, namespace: &str) {
        self.proxies.lock().await.remove(namespace);
    }

    async fn cut_connections(&self, namespace: &str) -> bool {
        let proxies = self.proxies.lock().await.get(namespace).cloned().unwrap_or_default();
        for proxy in &proxies {
            proxy.cut().await;
        }
        for proxy in &proxies {
            proxy.heal().await.expect("the proxy listens again");
        }
        true
    }
}
