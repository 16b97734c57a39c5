use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::VersionedStateContainer;
use avout_core::protocol::{Key, State, Version};
use avout_core::{Error, ErrorKind, Result};
use futures_util::stream::{self, StreamExt};
use zookeeper::{CreateMode, Error as ZkError, MultiReadResult};

use super::parts;
use crate::schema::{ANY_VERSION, Folder, made_by};
use crate::wire::{Client, Right, classify, classify_at, unexpected};

/// How many deletes are under way at the same time.
const AT_ONCE: usize = 32;

/// A ref's values: children of its znode, named by their versions.
pub(super) struct Values {
    client: Arc<Client>,
    key: Key,
    path: String,
}

impl Values {
    pub(super) fn new(client: Arc<Client>, key: &Key) -> Self {
        let path = client.paths.key(Folder::Values, key);
        Self { client, key: key.clone(), path }
    }

    fn at(&self, version: &Version) -> String {
        self.client.paths.value(&self.key, version)
    }

    /// What the names of a version's parts begin with.
    fn before(&self, version: &Version) -> String {
        format!("{}/{version}.", self.path)
    }

    fn wrong(&self, error: Error, operation: &'static str) -> Error {
        error.at(&self.key).during(operation)
    }

    async fn write(&self, version: &Version, value: State) -> Result<()> {
        let value = parts::capabilities().bytes_of(value)?;
        let options = &made_by(&self.client.options, CreateMode::Persistent);
        let path = self.at(version);
        let before = self.before(version);
        loop {
            let written = match parts::write(&self.client, &before, value.clone()).await? {
                Ok(head) => {
                    let data = head.encode();
                    let created = self.client.change(|changes| changes.create(&path, &data, options)).await?;
                    if created == Err(ZkError::NodeExists) {
                        self.unwrite(&before, &head).await;
                    }
                    created
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => return Ok(()),
                Err(ZkError::NoNode) => self.make().await?,
                Err(ZkError::NodeExists) => match parts::read(&self.client, &path, &before).await? {
                    Some(found) if found.value.as_ref().is_some_and(|(_, there)| *there == value) => return Ok(()),
                    Some(_) => {
                        let message = "the version has another value already; versions are unique";
                        return Err(Error::new(ErrorKind::AlreadyExists, message));
                    }
                    // Deleted meanwhile.
                    None => {}
                },
                Err(error) => return Err(classify(error)),
            }
        }
    }

    /// Removes parts that no head tells of. What is left of them, since that failed, goes with the version.
    async fn unwrite(&self, before: &str, head: &parts::Head) {
        for name in head.parts().into_iter().flat_map(parts::Parts::names) {
            let path = format!("{before}{name}");
            let _ = self.client.change(|changes| changes.delete(&path, ANY_VERSION)).await;
        }
    }

    /// Makes the ref's znode. The servers remove it a while after its last value.
    async fn make(&self) -> Result<()> {
        let options = &made_by(&self.client.options, CreateMode::Container);
        match self.client.change(|changes| changes.create(&self.path, b"", options)).await? {
            Ok(()) | Err(ZkError::NodeExists) => Ok(()),
            Err(error) => Err(classify(error)),
        }
    }

    async fn delete(&self, version: &Version) -> Result<()> {
        let path = self.at(version);
        match self.client.read(|reader| reader.add_get_data(&path)).await?.results.next() {
            Some(MultiReadResult::Data { data, .. }) => {
                let of = parts::Head::decode(data.into()).ok().and_then(|head| head.parts().copied());
                let before = self.before(version);
                let all: Vec<String> =
                    of.iter().flat_map(|of| of.names().map(|name| format!("{before}{name}"))).collect();
                // All at once, so that nothing is left that no head tells of.
                let deleted = self.client.change(|changes| {
                    changes.delete(&path, ANY_VERSION)?;
                    all.iter().try_for_each(|path| changes.delete(path, ANY_VERSION))
                });
                match deleted.await? {
                    Ok(()) => Ok(()),
                    Err(ZkError::NoNode) => self.delete_parts(version).await,
                    Err(error) => Err(classify(error)),
                }
            }
            Some(MultiReadResult::Error { err: ZkError::NoNode }) => self.delete_parts(version).await,
            Some(MultiReadResult::Error { err }) => Err(classify_at(err, Right::Read, &path)),
            _ => Err(unexpected()),
        }
    }

    /// Deletes what a write left that never came to its head.
    async fn delete_parts(&self, version: &Version) -> Result<()> {
        let prefix = format!("{version}.");
        let mut names = self.children().await?;
        names.retain(|name| name.starts_with(&prefix));
        self.delete_children(names).await
    }

    async fn children(&self) -> Result<Vec<String>> {
        match self.client.read(|reader| reader.add_get_children(&self.path)).await?.results.next() {
            Some(MultiReadResult::Children { children }) => Ok(children),
            Some(MultiReadResult::Error { err: ZkError::NoNode }) => Ok(Vec::new()),
            Some(MultiReadResult::Error { err }) => Err(classify_at(err, Right::Read, &self.path)),
            _ => Err(unexpected()),
        }
    }

    async fn delete_children(&self, names: Vec<String>) -> Result<()> {
        let deletes = names.into_iter().map(|name| {
            let path = format!("{}/{name}", self.path);
            async move { self.client.change(|changes| changes.delete(&path, ANY_VERSION)).await }
        });
        let mut deletes = stream::iter(deletes).buffer_unordered(AT_ONCE);
        while let Some(deleted) = deletes.next().await {
            match deleted? {
                Ok(()) | Err(ZkError::NoNode) => {}
                Err(error) => return Err(classify(error)),
            }
        }
        Ok(())
    }

    async fn delete_all(&self) -> Result<()> {
        loop {
            // Heads first: a value without its head is none.
            let mut names = self.children().await?;
            names.sort_by_key(|name| name.contains('.'));
            self.delete_children(names).await?;
            match self.client.change(|changes| changes.delete(&self.path, ANY_VERSION)).await? {
                Ok(()) | Err(ZkError::NoNode) => return Ok(()),
                Err(ZkError::NotEmpty) => {}
                Err(error) => return Err(classify(error)),
            }
        }
    }
}

#[async_trait]
impl VersionedStateContainer for Values {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.delete_all().await.map_err(|error| self.wrong(error, "destroy"))
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        let found = parts::read(&self.client, &self.at(version), &self.before(version)).await;
        let found = found.map_err(|error| self.wrong(error, "state at"))?;
        Ok(found.and_then(|found| found.value).map(|(_, value)| State::Bytes(value)))
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        self.write(version, value).await.map_err(|error| self.wrong(error, "set state at"))
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.delete(version).await.map_err(|error| self.wrong(error, "delete state at"))
    }

    /// Versions whose writing was cut short are among them, so that a sweeper finds their parts.
    async fn versions(&self) -> Result<Vec<Version>> {
        let names = self.children().await.map_err(|error| self.wrong(error, "versions"))?;
        let versions = names.iter().filter_map(|name| name.split('.').next()?.parse().ok());
        Ok(versions.collect::<BTreeSet<Version>>().into_iter().collect())
    }
}
