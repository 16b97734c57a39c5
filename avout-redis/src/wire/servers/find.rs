//! Where the server is that takes writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use avout_core::Result;

use super::cluster::Cluster;
use super::sentinel::Sentinels;
use super::server::Server;
use crate::options::{Address, Options, Source, Topology};
use crate::schema::Names;
use crate::wire::connection::{Dialer, Link, Listener, Wire, unreachable_at};

/// Finds the server, and connects to it.
pub(crate) struct Finder {
    dialer: Arc<Dialer>,
    options: Options,
    next: AtomicUsize,
    way: Way,
}

enum Way {
    Single,
    Sentinel(Arc<Sentinels>),
    Cluster(Arc<Cluster>),
}

/// What is said of a server that a client is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is the master, and nobody is about to make another one.
    Master,
    /// Another server is in its place.
    Replaced,
    Unclear,
}

impl Finder {
    pub(crate) async fn new(options: &Options, names: &Names) -> Result<Self> {
        let dialer = Arc::new(Dialer::new(options).await?);
        let addresses = options.addresses.clone();
        let limit = options.connect_timeout / 3;
        let way = match &options.topology {
            Topology::Single | Topology::Socket => Way::Single,
            Topology::Sentinel { service } => {
                let credentials = Source::Fixed(options.sentinel_credentials.clone());
                Way::Sentinel(Arc::new(Sentinels::new(
                    Arc::clone(&dialer),
                    credentials,
                    addresses,
                    service.clone(),
                    limit,
                )))
            }
            Topology::Cluster => {
                let credentials = options.credentials.clone();
                let cluster = Cluster::new(Arc::clone(&dialer), credentials, &names.meta, options.tls.is_some(), limit);
                Way::Cluster(Arc::new(cluster))
            }
        };
        Ok(Self { dialer, options: options.clone(), next: AtomicUsize::new(0), way })
    }

    /// Where to begin: the server itself, the master that the sentinels name, or the nodes of the cluster.
    pub(crate) async fn places(&self) -> Result<Vec<Address>> {
        let seeds = &self.options.addresses;
        match &self.way {
            Way::Single => Ok(seeds.clone()),
            Way::Sentinel(sentinels) => Ok(vec![sentinels.master().await?]),
            Way::Cluster(cluster) => {
                let at = self.next.fetch_add(1, Ordering::Relaxed) % seeds.len();
                Ok(cluster.places(seeds[at..].iter().chain(&seeds[..at]).cloned()))
            }
        }
    }

    pub(crate) fn cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.way {
            Way::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }

    pub(crate) fn sentinels(&self) -> Option<&Arc<Sentinels>> {
        match &self.way {
            Way::Sentinel(sentinels) => Some(sentinels),
            _ => None,
        }
    }

    /// The namespace is there.
    pub(crate) fn is_at(&self, address: &Address) {
        if let Way::Cluster(cluster) = &self.way {
            cluster.is_at(address);
        }
    }

    /// How many replicas the master has, whether or not they are there. `None`: nobody knows but itself.
    pub(crate) fn replicas(&self) -> Option<u32> {
        match &self.way {
            Way::Single => None,
            Way::Sentinel(sentinels) => sentinels.replicas(),
            Way::Cluster(cluster) => cluster.replicas(),
        }
    }

    /// A connection to a server of the namespace.
    pub(crate) async fn dial(&self, address: &Address, listener: Option<Listener>) -> Result<Wire> {
        self.dialer.dial(address, &self.options.credentials, self.options.database, listener).await
    }

    /// The same to where the namespace is that a link has entered.
    pub(crate) async fn dial_beside(&self, link: &Link, listener: Option<Listener>) -> Result<Wire> {
        Ok(self.dial(link.place(), listener).await?.asking(link.detour.is_some()))
    }

    /// Gives the credentials of the moment to all connections that are open, if they are asked for at all.
    ///
    /// # Errors
    /// The provider's, and the first that a server refuses.
    pub(crate) async fn reauthenticate(&self) -> Result<()> {
        self.dialer.reauthenticate(&self.options.credentials).await
    }

    pub(crate) async fn set_name(&self, wire: &Wire) {
        self.dialer.set_name(wire).await;
    }

    /// Asks whoever knows whether a server is still the master.
    pub(crate) async fn standing(&self, address: &Address, process: &str) -> Standing {
        match &self.way {
            Way::Single => match self.process_at(address).await {
                Ok(now) if now == process => Standing::Master,
                Ok(_) => Standing::Replaced,
                Err(_) => Standing::Unclear,
            },
            Way::Sentinel(sentinels) => {
                let Ok(told) = sentinels.ask_all().await else { return Standing::Unclear };
                if told.iter().any(|named| named.fails_over) {
                    return Standing::Unclear;
                }
                match sentinels.believe(&told) {
                    Some(master) if master == *address => Standing::Master,
                    Some(_) => Standing::Replaced,
                    None => Standing::Unclear,
                }
            }
            Way::Cluster(cluster) => match cluster.master_but_for(address).await {
                Some(master) if master == *address => Standing::Master,
                Some(_) => Standing::Replaced,
                None => Standing::Unclear,
            },
        }
    }

    /// Which process answers at an address now.
    async fn process_at(&self, address: &Address) -> Result<String> {
        let wire = self.dial(address, None).await?;
        let info = wire.ask::<String>(redis::cmd("INFO").arg("server")).await;
        let info = info.map_err(unreachable_at(address))?;
        Ok(Server::read(&info).process().to_owned())
    }
}
