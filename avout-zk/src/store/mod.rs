//! Keeps values.

mod atom;
mod parts;
mod values;

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, Connection, Kind, Page, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm};
use futures_util::stream::{self, StreamExt};
use zookeeper::{Client as Zk, Error as ZkError, MultiReadResult, MultiReader};

use atom::Atom;
use values::Values;

use crate::coordinator::Hub;
use crate::schema::{Folder, Opened, decode};
use crate::wire::{Client, Right, classify, classify_at, unexpected};

/// How many requests of a list or a sweep are under way at the same time.
const AT_ONCE: usize = 32;

/// Keeps the states of atoms and the values of refs in znodes, large ones in parts.
#[derive(Clone)]
pub struct Store {
    client: Arc<Client>,
    hub: Arc<Hub>,
    realm: Realm,
}

impl Store {
    pub(crate) fn new(client: Arc<Client>, hub: Arc<Hub>, opened: Opened) -> Self {
        Self { client, hub, realm: opened.realm }
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        let mut capabilities = parts::capabilities();
        capabilities.readonly = self.client.options.readonly;
        capabilities
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.history.losses())
    }

    fn connection(&self) -> Option<&Arc<Connection>> {
        Some(&self.client.connection)
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom::new(Arc::clone(&self.client), Arc::clone(&self.hub), key))
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values::new(Arc::clone(&self.client), key))
    }

    async fn keys(&self, kind: Kind, prefix: &Key, after: Option<&Key>) -> Result<Page> {
        let keys = async {
            match kind {
                Kind::Atom => self.keys_that(Folder::Atoms, prefix, has_state).await,
                Kind::Ref => self.keys_that(Folder::Values, prefix, has_children).await,
            }
        };
        Ok(Page::rest(keys.await.map_err(|error| error.during("keys"))?, after))
    }
}

async fn has_state(zk: &Zk, path: &str) -> Result<bool, ZkError> {
    Ok(zk.check_stat(path).await?.is_some_and(|stat| stat.data_length > 0))
}

async fn has_children(zk: &Zk, path: &str) -> Result<bool, ZkError> {
    Ok(zk.check_stat(path).await?.is_some_and(|stat| stat.num_children > 0))
}

impl Store {
    /// The keys of a folder that are under `prefix`, and whose znode holds something.
    async fn keys_that(
        &self,
        folder: Folder,
        prefix: &Key,
        holds: impl AsyncFn(&Zk, &str) -> Result<bool, ZkError>,
    ) -> Result<Vec<Key>> {
        let paths = &self.client.paths;
        let add = |reader: &mut MultiReader<'_>| {
            paths.buckets(folder).try_for_each(|bucket| reader.add_get_children(&bucket))
        };
        let seen = self.client.read(add).await?;
        // The session that is synced is the one to be asked further.
        let zk = seen.ground.zk;
        let mut keys = Vec::new();
        for bucket in seen.results {
            match bucket {
                MultiReadResult::Children { children } => keys.extend(children.iter().filter_map(|name| decode(name))),
                MultiReadResult::Error { err } => return Err(classify_at(err, Right::Read, &paths.folder(folder))),
                _ => return Err(unexpected()),
            }
        }
        keys.retain(|key| key.is_under(prefix));
        keys.sort_unstable();
        let looks = keys.into_iter().map(|key| {
            let (zk, holds, path) = (&zk, &holds, paths.key(folder, &key));
            async move { holds(zk, &path).await.map(|holds| holds.then_some(key)) }
        });
        let mut looks = stream::iter(looks).buffered(AT_ONCE);
        let mut held = Vec::new();
        while let Some(look) = looks.next().await {
            held.extend(look.map_err(classify)?);
        }
        Ok(held)
    }
}
