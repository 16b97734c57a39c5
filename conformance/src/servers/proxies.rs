use std::collections::HashMap;
use std::net::SocketAddr;

use tokio::sync::Mutex;

use super::{Error, Protocol, Proxy};

/// Proxies of each namespace's own between a fixture's clients and the servers that all its laws share: what a
/// [`Fixture`](crate::Fixture) needs to cut, stall and interrupt one law's connections and nobody else's.
///
/// # Examples
/// A fixture for servers that are reached at fixed addresses:
/// ```no_run
/// use avout_conformance::servers::{Protocol, Proxies};
/// use avout_conformance::{Backend, Fixture};
///
/// #[derive(Default)]
/// struct Shelf {
///     proxies: Proxies,
/// }
///
/// #[async_trait::async_trait]
/// impl Fixture for Shelf {
///     fn name(&self) -> &str {
///         "shelf"
///     }
///
///     async fn open(&self, namespace: &str) -> avout_core::Result<Backend> {
///         let server = ([127, 0, 0, 1], 7070).into();
///         let proxies = self.proxies.of(namespace, Protocol::Any, &[server]).await?;
///         let address = proxies[0].address();
///         // … connect there …
/// #       let _ = address;
///         Ok(Backend::default())
///     }
///
///     async fn remove(&self, namespace: &str) {
///         self.proxies.remove(namespace).await;
///     }
///
///     async fn cut_connections(&self, namespace: &str) -> bool {
///         self.proxies.cut(namespace).await
///     }
///
///     async fn lose_reply(&self, namespace: &str) -> bool {
///         self.proxies.lose_reply(namespace).await
///     }
///
///     async fn stall(&self, namespace: &str) -> bool {
///         self.proxies.stall(namespace).await
///     }
///
///     async fn resume(&self, namespace: &str) {
///         self.proxies.resume(namespace).await;
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct Proxies(Mutex<HashMap<String, Vec<Proxy>>>);

impl Proxies {
    /// The namespace's proxies, one for each of these servers, in their order. They are made at the first call.
    ///
    /// # Errors
    /// If a proxy cannot listen.
    pub async fn of(&self, namespace: &str, protocol: Protocol, servers: &[SocketAddr]) -> Result<Vec<Proxy>, Error> {
        let mut all = self.0.lock().await;
        if let Some(made) = all.get(namespace) {
            return Ok(made.clone());
        }
        let mut proxies = Vec::with_capacity(servers.len());
        for server in servers {
            proxies.push(Proxy::speaking(protocol, *server).await?);
        }
        all.insert(namespace.to_owned(), proxies.clone());
        Ok(proxies)
    }

    /// Ends the namespace's proxies.
    pub async fn remove(&self, namespace: &str) {
        self.0.lock().await.remove(namespace);
    }

    /// Resets all connections of the namespace's clients, who may connect again. `false`: it has no proxies.
    ///
    /// # Panics
    /// If another process has taken a proxy's port.
    pub async fn cut(&self, namespace: &str) -> bool {
        let proxies = self.made(namespace).await;
        for proxy in &proxies {
            proxy.cut().await;
        }
        for proxy in &proxies {
            proxy.heal().await.expect("nobody has taken the proxy's port");
        }
        !proxies.is_empty()
    }

    /// Resets one connection of the namespace's clients when its server answers next, and the answer is lost. `false`: it has
    /// no proxies.
    pub async fn lose_reply(&self, namespace: &str) -> bool {
        let proxies = self.made(namespace).await;
        proxies.iter().for_each(Proxy::reset_on_next_reply);
        !proxies.is_empty()
    }

    /// Holds back everything between the namespace's clients and the servers. `false`: it has no proxies.
    pub async fn stall(&self, namespace: &str) -> bool {
        let proxies = self.made(namespace).await;
        proxies.iter().for_each(Proxy::hold);
        !proxies.is_empty()
    }

    /// Lets go on what was held back.
    pub async fn resume(&self, namespace: &str) {
        self.made(namespace).await.iter().for_each(Proxy::release);
    }

    async fn made(&self, namespace: &str) -> Vec<Proxy> {
        self.0.lock().await.get(namespace).cloned().unwrap_or_default()
    }
}
