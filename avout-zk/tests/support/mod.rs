//! The fixture of both conformance tests: each namespace behind proxies of its own, so that its connections can be cut.
//!
//! Its clients have the least rights that they need: they may make znodes below one that belongs to an administrator, and nobody else
//! may use what they make.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::servers::{Error, Node, Protocol, Proxies, ZooKeeper};
use avout_conformance::{Backend, Fixture};
use avout_zk::zookeeper::{Acl, Acls, AuthId, Client, Connector, CreateMode, Error as Refusal, Permission};
use tokio::sync::OnceCell;

type Starting = Pin<Box<dyn Future<Output = Result<&'static ZooKeeper, Error>> + Send>>;

/// Under which all namespaces are.
const PARENT: &str = "/least";
const ADMIN: &str = "admin:boss";
const USER: &str = "app:secret";
/// What the server keeps of the user: the SHA-1 of the above, in Base64.
const USER_ID: &str = "app:F6Y+U5gIoCbNNoLQExmvxRFeatA=";

/// Who may read what the user makes, and nothing else.
const READER: &str = "reader:secret";
/// The same, percent-encoded.
const READER_ID: &str = "reader:TwMYkJISsEPORbrSYGWeRLjeNEk%3D";

/// A ZooKeeper that all laws share.
pub(crate) struct Zk {
    start: fn() -> Starting,
    parent: OnceCell<()>,
    proxies: Proxies,
}

impl Zk {
    pub(crate) fn new(start: fn() -> Starting) -> Self {
        Self { start, parent: OnceCell::new(), proxies: Proxies::default() }
    }

    /// A session of these.
    async fn session(&self, who: &[&str]) -> Result<Client, Error> {
        let with = |connector: Connector, who: &&str| connector.with_auth("digest", who.as_bytes());
        let connector = who.iter().fold(Client::connector(), with);
        let connected = connector.connect(&(self.start)().await?.address()).await;
        connected.map_err(|error| Error::failed("zk", error))
    }

    /// Makes the parent of all namespaces: its own ACL lets the user make znodes below, and do nothing else.
    async fn make_parent(&self) -> Result<(), Error> {
        let make = async || {
            let grants = [
                Acl::new(Permission::ALL, AuthId::authed()),
                Acl::new(Permission::CREATE, AuthId::new("digest", USER_ID)),
            ];
            let options = CreateMode::Persistent.with_acls(Acls::new(&grants));
            match self.session(&[ADMIN]).await?.create(PARENT, b"", &options).await {
                Ok(_) | Err(Refusal::NodeExists) => Ok(()),
                Err(error) => Err(Error::failed("zk", error)),
            }
        };
        self.parent.get_or_try_init(make).await?;
        Ok(())
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

    async fn available(&self) -> Result<(), String> {
        (self.start)().await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        let addresses = self.addresses(namespace).await?;
        self.make_parent().await?;
        let url = format!("zk://{USER}@{addresses}{PARENT}/{namespace}?acl=auth::cdrw,digest:{READER_ID}:r");
        let opened = avout_zk::connect(&url).await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }

    async fn open_readonly(&self, namespace: &str) -> Option<avout_core::Result<Backend>> {
        let opened = async {
            let addresses = self.addresses(namespace).await?;
            let url = format!("zk://{READER}@{addresses}{PARENT}/{namespace}?readonly=true");
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
        let client = self.session(&[ADMIN, USER]).await.expect("a session");
        delete(&client, format!("{PARENT}/{namespace}")).await.expect("it is deleted");
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
