//! The fixture of both conformance tests: each namespace behind proxies of its own, so that its connections can be cut.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::servers::{Error, Node, Protocol, Proxies, ZooKeeper};
use avout_conformance::{Backend, Fixture};
use avout_zk::zookeeper::{Client, Error as Refusal};

type Starting = Pin<Box<dyn Future<Output = Result<&'static ZooKeeper, Error>> + Send>>;

/// A ZooKeeper that all laws share.
pub(crate) struct Zk {
    start: fn() -> Starting,
    /// Options of all clients, as in a URL.
    options: &'static str,
    proxies: Proxies,
}

impl Zk {
    pub(crate) fn new(start: fn() -> Starting, options: &'static str) -> Self {
        Self { start, options, proxies: Proxies::default() }
    }

    /// The addresses of the namespace's own proxies.
    async fn addresses(&self, namespace: &str) -> Result<String, Error> {
        let servers: Vec<_> = (self.start)().await?.nodes().iter().map(Node::address).collect();
        let proxies = self.proxies.of(namespace, Protocol::ZooKeeper, &servers).await?;
        let addresses = proxies.iter().map(|proxy| proxy.address().to_string());
        Ok(addresses.collect::<Vec<_>>().join(","))
    }
}

#[async_trait]
impl Fixture for Zk {
    fn name(&self) -> &str {
        "zk"
    }

    fn breaks(&self) -> &[(&str, &str)] {
        &[(
            "state_container::a_wiped_store_is_lost_to_its_clients",
            "reads of atoms and of large values do not notice that the namespace was deleted, or made anew",
        )]
    }

    async fn available(&self) -> Result<(), String> {
        (self.start)().await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let addresses = self.addresses(namespace).await?;
        let opened = avout_zk::connect(&format!("zk://{addresses}/{namespace}{}", self.options)).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn open_readonly(&self, namespace: &str) -> Option<avout_core::Result<Backend>> {
        let sign = if self.options.is_empty() { '?' } else { '&' };
        let opened = async {
            let addresses = self.addresses(namespace).await?;
            let url = format!("zk://{addresses}/{namespace}{}{sign}readonly=true", self.options);
            let opened = avout_zk::connect(&url).await?;
            Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
        };
        Some(opened.await)
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

    fn patience(&self) -> Duration {
        Duration::from_secs(25)
    }

    async fn wipe(&self, namespace: &str) -> bool {
        let servers = (self.start)().await.expect("the server is there");
        let client = Client::connect(&servers.address()).await.expect("a session");
        delete(&client, format!("/{namespace}")).await.expect("it is deleted");
        true
    }
}

/// Deletes a znode and all below it.
fn delete(client: &Client, path: String) -> Pin<Box<dyn Future<Output = Result<(), Refusal>> + Send + '_>> {
    Box::pin(async move {
        loop {
            for child in client.list_children(&path).await? {
                delete(client, format!("{path}/{child}")).await?;
            }
            match client.delete(&path, None).await {
                // Somebody has made another child.
                Err(Refusal::NotEmpty) => {}
                Ok(()) | Err(Refusal::NoNode) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    })
}
