//! The fixture of both conformance tests.

use std::time::Duration;

use async_trait::async_trait;
use avout_conformance::servers::{Error, Mongo, Node, Protocol, Proxies, shared};
use avout_conformance::{Backend, Fixture};
use avout_mongo::Options;
use avout_mongo::mongodb::Client;

/// Servers, and how the laws' clients get at them.
#[async_trait]
pub(crate) trait Access: Send + Sync + 'static {
    async fn set(&self) -> Result<&'static Mongo, Error>;

    /// What proxies understand of what the clients say.
    fn protocol(&self) -> Protocol {
        Protocol::Mongo
    }

    /// Who the clients are, in their URLs, before the host.
    fn user(&self, _reads: bool) -> String {
        String::new()
    }

    /// Options of the clients' URLs, after a question mark.
    async fn options(&self, _reads: bool) -> Result<String, Error> {
        Ok(String::new())
    }

    /// The URL of one who may do everything.
    async fn admin(&self) -> Result<String, Error> {
        Ok(self.set().await?.url("laws"))
    }

    /// Lets the clients into a namespace.
    async fn admit(&self, _namespace: &str) -> Result<(), Error> {
        Ok(())
    }

    /// Ends that.
    async fn dismiss(&self, _namespace: &str) {}
}

/// A replica set that all laws share, in one database; each law has a namespace of its own.
pub(crate) struct Set<A> {
    name: &'static str,
    access: A,
    side_by_side: usize,
    /// Of one node each namespace has a proxy of its own, so that its connections can be cut. With more nodes the driver would
    /// go around it, to the addresses that the nodes tell.
    proxies: Proxies,
}

impl<A: Access> Set<A> {
    pub(crate) fn new(name: &'static str, access: A, side_by_side: usize) -> Self {
        Self { name, access, side_by_side, proxies: Proxies::default() }
    }

    /// Whether the set is one that runs already.
    fn is_given(&self) -> bool {
        std::env::var_os("AVOUT_MONGO_URL").is_some_and(|url| !url.is_empty())
    }

    /// The URL of clients, or of those that only read.
    async fn url(&self, namespace: &str, reads: bool) -> Result<String, Error> {
        if self.is_given() {
            return shared::mongo_url("laws").await;
        }
        let set = self.access.set().await?;
        self.access.admit(namespace).await?;
        if set.nodes().len() > 1 {
            return Ok(set.url("laws"));
        }
        let servers: Vec<_> = set.nodes().iter().map(Node::address).collect();
        let proxies = self.proxies.of(namespace, self.access.protocol(), &servers).await?;
        let (user, options) = (self.access.user(reads), self.access.options(reads).await?);
        Ok(format!("mongodb://{user}{}/laws?directConnection=true{options}", proxies[0].address()))
    }

    async fn opened(&self, namespace: &str, reads: bool) -> avout_core::Result<Backend> {
        let options = Options::from_url(&self.url(namespace, reads).await?)?;
        let opened = options.namespace(namespace)?.readonly(reads).open().await?;
        Ok(Backend { coordinator: Some(opened.coordinator), store: Some(opened.store) })
    }
}

#[async_trait]
impl<A: Access> Fixture for Set<A> {
    fn name(&self) -> &str {
        self.name
    }

    async fn available(&self) -> Result<(), String> {
        if self.is_given() {
            return Ok(());
        }
        self.access.set().await.map(drop).map_err(|error| error.to_string())
    }

    async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
        self.opened(namespace, false).await
    }

    async fn open_readonly(&self, namespace: &str) -> Option<avout_core::Result<Backend>> {
        Some(self.opened(namespace, true).await)
    }

    fn side_by_side(&self) -> Option<usize> {
        Some(self.side_by_side)
    }

    async fn remove(&self, namespace: &str) {
        self.proxies.remove(namespace).await;
        if !self.is_given() {
            self.access.dismiss(namespace).await;
        }
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

    /// Drops the collections of the namespace, whose names begin with its own.
    async fn wipe(&self, namespace: &str) -> bool {
        if self.is_given() {
            return false;
        }
        let admin = self.access.admin().await.expect("the set is there");
        let client = Client::with_uri_str(admin).await.expect("a client");
        let database = client.database("laws");
        for name in database.list_collection_names().await.expect("their names") {
            if name.starts_with(namespace) {
                database.collection::<()>(&name).drop().await.expect("it is dropped");
            }
        }
        true
    }
}
