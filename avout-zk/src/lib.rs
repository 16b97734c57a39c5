//! The ZooKeeper backend of avout: store and coordinator under one znode, for the processes of any number of machines.

#![warn(missing_docs)]

mod atom;
mod client;
mod container;
mod coordinator;
mod error;
mod options;
mod parts;
mod paths;
mod schema;
mod watch;

use std::fmt;
use std::sync::Arc;

use avout_core::Result;

pub use container::Store;
pub use coordinator::Coordinator;
pub use options::{Acl, Auth, Options, Reads};
pub use zookeeper;

use client::Client;
use schema::Opened;
use watch::Hub;

/// Opens what a text names, as [`Options::from_url`] reads it.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the text, or a file that it names.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no server answered within the timeout.
/// [`Denied`](avout_core::ErrorKind::Denied): the servers refuse the user.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): the namespace belongs to another application.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): a newer library made it, or the servers are older than ZooKeeper 3.6.
/// [`Full`](avout_core::ErrorKind::Full): a quota leaves no room for the namespace.
///
/// # Cancel safety
/// Safe: a namespace that was made stays, and a client that nobody got ends.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the client's sessions end, in
/// the background.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<Coordinator>,
    /// Holds the values.
    pub store: Arc<Store>,
    client: Arc<Client>,
}

impl Backend {
    fn new(client: Arc<Client>, opened: Opened) -> Self {
        let hub = Hub::new(&client);
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client), Arc::clone(&hub), opened));
        let store = Arc::new(Store::new(Arc::clone(&client), hub, opened));
        Self { coordinator, store, client }
    }

    /// Ends the client's sessions: later requests and all watchers get [`Closed`](avout_core::ErrorKind::Closed), and those under way
    /// end as they would with a lost connection.
    pub fn close(&self) {
        self.client.close();
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.options).finish_non_exhaustive()
    }
}
