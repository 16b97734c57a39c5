//! Opens a namespace, and begins what goes on beside the requests.

use std::fmt;
use std::sync::Arc;

use avout_core::Result;
use avout_core::backend::tasks;

use crate::coordinator::{Coordinator, Hub};
use crate::options::{Options, Replicas};
use crate::schema::Names;
use crate::store::Store;
use crate::wire::connection::Home;
use crate::wire::{Client, Finder, confirm_rounds, look_out};

/// Opens the namespace that a text names, as [`Options::from_url`] reads it, and makes it if it is not there.
///
/// # Errors
/// [`InvalidInput`](avout_core::ErrorKind::InvalidInput): the text.
/// [`Unavailable`](avout_core::ErrorKind::Unavailable): no server answers, or it is a replica.
/// [`Denied`](avout_core::ErrorKind::Denied): the server refuses the user, or the user may not do what avout needs.
/// [`Unsupported`](avout_core::ErrorKind::Unsupported): the server is too old, may evict keys, or does not keep what the options
/// ask for; or a newer library made the namespace.
/// [`Mismatch`](avout_core::ErrorKind::Mismatch): something else lies under the namespace's names.
///
/// # Cancel safety
/// Safe: a namespace that was made stays, and a client that nobody got ends.
pub async fn connect(url: &str) -> Result<Backend> {
    Options::from_url(url)?.open().await
}

/// A namespace that is open: one client of it.
///
/// The coordinator, the store, and what they make belong together; when the last of them is dropped the connections are closed.
#[derive(Clone)]
pub struct Backend {
    /// Orders the commits.
    pub coordinator: Arc<Coordinator>,
    /// Holds the values.
    pub store: Arc<Store>,
    client: Arc<Client>,
}

impl Backend {
    fn new(client: Arc<Client>) -> Self {
        let hub = Hub::new(Arc::clone(&client));
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&client), Arc::clone(&hub)));
        let store = Arc::new(Store::new(Arc::clone(&client), hub));
        Self { coordinator, store, client }
    }

    /// Asks the provider of [`Options::credentials_from`] for the credentials of the moment, and gives them to all connections that are
    /// open (`AUTH`). Without a provider it does nothing. A connection that is being made at that moment may have the credentials of
    /// the moment before, so keep those valid for a while.
    ///
    /// # Errors
    /// The provider's. [`Denied`](avout_core::ErrorKind::Denied): a server refuses them; its connections stay as they were.
    ///
    /// # Cancel safety
    /// Safe: some connections may have them then.
    pub async fn reauthenticate(&self) -> Result<()> {
        tasks::request(self.client.finder.reauthenticate()).await.map_err(|error| error.during("reauthenticate"))
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("options", &self.client.options).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the namespace: see [`connect`].
    ///
    /// # Errors
    /// As [`connect`].
    ///
    /// # Cancel safety
    /// As [`connect`].
    pub async fn open(self) -> Result<Backend> {
        self.check()?;
        tasks::request(open_at(Home::here(), self)).await.map_err(|error| error.during("open"))
    }
}

async fn open_at(home: Home, options: Options) -> Result<Backend> {
    let names = Names::new(&options.namespace);
    let finder = Finder::new(&options, &names).await?;
    let client = Client::new(options, names, finder);
    client.connected(&home).await?;
    begin_tasks(&client);
    Ok(Backend::new(client))
}

/// Begins what goes on beside the requests, until the client ends.
fn begin_tasks(client: &Arc<Client>) {
    let runtime = tasks::connections();
    let weak = || Arc::downgrade(client);
    let mut begun = vec![runtime.spawn(look_out(Arc::clone(&client.doubts), weak())).abort_handle()];
    if client.options.wait_replicas != Replicas::Number(0) {
        begun.push(runtime.spawn(confirm_rounds(Arc::clone(&client.confirmer), weak())).abort_handle());
    }
    if let Some(sentinels) = client.finder.sentinels() {
        let client = weak();
        let tell = move |master: &_| client.upgrade().into_iter().for_each(|client| client.leave_all_but(master));
        begun.push(runtime.spawn(Arc::clone(sentinels).follow(tell)).abort_handle());
    }
    client.own(begun);
}
