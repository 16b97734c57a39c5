use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{CasOutcome, StateContainer, Watcher as _};
use avout_core::protocol::{Key, Revision, State};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use zookeeper::{Client as Zk, CreateMode, Error as ZkError, MultiWriteError, MultiWriteResult, Stat};

use super::parts::{self, Found, Head};
use crate::coordinator::{ANY_VERSION, Hub, Registration, Token};
use crate::schema::{Folder, made_by};
use crate::wire::{Client, Ground, classify, classify_write};

/// How often a write is begun anew whose parts were cleaned away by another one, before it gives up.
const ATTEMPTS: u32 = 100;

/// An atom: one znode, compared by its version.
///
/// The znode stays when the atom is destroyed, and is empty then: one made anew would begin with the version 0 again.
pub(super) struct Atom {
    client: Arc<Client>,
    hub: Arc<Hub>,
    key: Key,
    path: String,
    /// What the paths of its parts begin with.
    before: String,
}

/// The point of a write is its own for ever; the version is what is compared.
fn revision(stat: &Stat, generation: u32) -> Revision {
    Token { generation, mark: stat.mzxid, version: stat.version }.revision()
}

/// How one try to write ended.
enum Tried {
    Done(Revision),
    /// The znode is not as expected.
    Stale,
    /// Its parts were cleaned away before their head was written, or another era was begun.
    Again,
}

impl Atom {
    pub(super) fn new(client: Arc<Client>, hub: Arc<Hub>, key: &Key) -> Self {
        let path = client.paths.key(Folder::Atoms, key);
        Self { client, hub, key: key.clone(), before: format!("{path}/"), path }
    }

    fn wrong(&self, error: Error, operation: &'static str) -> Error {
        error.at(&self.key).during(operation)
    }

    async fn read(&self) -> Result<Option<Found>> {
        parts::read(&self.client, &self.path, &self.before).await
    }

    /// The znode as it is now, if it is there.
    async fn stat(&self) -> Result<Option<Stat>> {
        let stat = self.client.ask(async |zk: Arc<Zk>| {
            let current = self.client.catch_up(&zk);
            let stat = zk.check_stat(&self.path);
            current.await?;
            stat.await
        });
        stat.await?.map_err(classify)
    }

    /// Makes the znode, empty.
    async fn make(&self) -> Result<()> {
        let options = &made_by(&self.client.options, CreateMode::Persistent);
        match self.client.ask(async |zk| zk.create(&self.path, b"", options).await).await? {
            Ok(_) | Err(ZkError::NodeExists) => Ok(()),
            Err(error) => Err(classify(error)),
        }
    }

    /// Makes the znode with a small value, if there is none.
    async fn create(&self, value: Bytes) -> Result<Option<Revision>> {
        let options = &made_by(&self.client.options, CreateMode::Persistent);
        let data = Head::Whole(value).encode();
        let created = self.client.request(ErrorKind::OutcomeUnknown, async |ground: Ground| {
            self.client.check_writes(&ground)?;
            match ground.zk.create(&self.path, &data, options).await {
                Ok((stat, _)) => Ok(Some(revision(&stat, ground.generation))),
                Err(ZkError::NodeExists) => Ok(None),
                Err(error) => Err(classify_write(error)),
            }
        });
        created.await?
    }

    /// Writes a value into the znode if it has the version that was read in this generation. `None` leaves it empty.
    async fn set(&self, version: i32, generation: u32, value: Option<&Bytes>) -> Result<Tried> {
        let head = match value {
            None => None,
            Some(value) => match parts::write(&self.client, &self.before, value.clone()).await? {
                Ok(head) => Some(head),
                Err(ZkError::NoNode) => return Ok(Tried::Stale),
                Err(error) => return Err(classify(error)),
            },
        };
        let data = head.as_ref().map(Head::encode).unwrap_or_default();
        let of = head.as_ref().and_then(Head::parts);
        let written = self.client.request(ErrorKind::OutcomeUnknown, async |ground: Ground| {
            self.client.check_writes(&ground)?;
            // Versions repeat after a loss.
            if ground.generation != generation {
                return Ok(Err(Tried::Stale));
            }
            self.set_in(&ground, version, &data, of).await
        });
        match written.await?? {
            Ok(stat) => {
                if stat.num_children.cast_unsigned() > of.map_or(0, |of| of.count) {
                    self.clean(&stat, of).await;
                }
                Ok(Tried::Done(revision(&stat, generation)))
            }
            Err(tried) => Ok(tried),
        }
    }

    /// Writes a head if its parts are there, in the era of a connection, and past a version that means "any" (see the coordinator).
    async fn set_in(
        &self,
        ground: &Ground,
        version: i32,
        data: &[u8],
        of: Option<&parts::Parts>,
    ) -> Result<Result<Stat, Tried>> {
        let client = &self.client;
        let write = || {
            let mut writer = ground.zk.new_multi_writer();
            writer.add_check_version(&client.paths.lasts(ground.era), ANY_VERSION)?;
            writer.add_set_data(&self.path, data, Some(version))?;
            for name in of.into_iter().flat_map(parts::Parts::names) {
                writer.add_check_version(&format!("{}{name}", self.before), ANY_VERSION)?;
            }
            if version == client.options.hop_at {
                writer.add_set_data(&self.path, data, Some(ANY_VERSION))?;
            }
            Ok::<_, ZkError>(writer.commit())
        };
        match write().map_err(classify_write)?.await {
            Ok(results) => {
                let mut stats = results.into_iter().filter_map(|result| match result {
                    MultiWriteResult::SetData { stat } => Some(stat),
                    _ => None,
                });
                let unclear = || Error::new(ErrorKind::OutcomeUnknown, "the server's answer is not understood");
                stats.next_back().map(Ok).ok_or_else(unclear)
            }
            Err(MultiWriteError::OperationFailed { index: 0, source: ZkError::NoNode }) => {
                client.leave(ground);
                Ok(Err(Tried::Again))
            }
            Err(MultiWriteError::OperationFailed { index: 1, source: ZkError::BadVersion | ZkError::NoNode }) => {
                Ok(Err(Tried::Stale))
            }
            Err(MultiWriteError::OperationFailed { source: ZkError::NoNode, .. }) => Ok(Err(Tried::Again)),
            Err(MultiWriteError::OperationFailed { source, .. } | MultiWriteError::RequestFailed { source }) => {
                Err(classify_write(source))
            }
        }
    }

    /// Deletes the parts that do not belong to the head that was just written, if it is still there. Who is about to write a head for
    /// some of them finds them gone, and writes them anew.
    async fn clean(&self, stat: &Stat, of: Option<&parts::Parts>) {
        let cleaned = self.client.ask(async |zk: Arc<Zk>| {
            let children = zk.list_children(&self.path).await?;
            let mut writer = zk.new_multi_writer();
            writer.add_check_version(&self.path, stat.version)?;
            for name in children.iter().filter(|name| of.is_none_or(|of| of.names().all(|own| own != **name))) {
                writer.add_delete(&format!("{}{name}", self.before), None)?;
            }
            writer.commit().await.map(drop).map_err(ZkError::from)
        });
        if let Err(error) | Ok(Err(error)) = cleaned.await.map(|cleaned| cleaned.map_err(classify)) {
            tracing::debug!(%error, key = %self.key, "parts of an earlier value are left for the next write");
        }
    }

    async fn write(&self, value: Bytes) -> Result<Revision> {
        for _ in 0..ATTEMPTS {
            let generation = self.client.generation();
            let Some(stat) = self.stat().await? else {
                if value.len() > parts::PART_BYTES {
                    self.make().await?;
                } else if let Some(revision) = self.create(value.clone()).await? {
                    return Ok(revision);
                }
                continue;
            };
            if let Tried::Done(revision) = self.set(stat.version, generation, Some(&value)).await? {
                return Ok(revision);
            }
        }
        Err(contended())
    }

    async fn compare_and_write(&self, expected: Option<Revision>, value: Bytes) -> Result<CasOutcome> {
        if let Some(expected) = &expected {
            let Token { generation, version, .. } = Token::of(expected)?;
            for _ in 0..ATTEMPTS {
                match self.set(version, generation, Some(&value)).await? {
                    Tried::Done(revision) => return Ok(CasOutcome::Set(revision)),
                    Tried::Again => {}
                    Tried::Stale => {
                        let found = self.found().await?;
                        // A server that lags behind shows what was expected, and will refuse nothing.
                        if found.as_ref().is_none_or(|(_, now)| now != expected) {
                            return Ok(CasOutcome::Stale(found));
                        }
                    }
                }
            }
            return Err(contended());
        }
        for _ in 0..ATTEMPTS {
            if value.len() <= parts::PART_BYTES
                && let Some(revision) = self.create(value.clone()).await?
            {
                return Ok(CasOutcome::Set(revision));
            }
            let generation = self.client.generation();
            let Some(found) = self.read().await? else {
                self.make().await?;
                continue;
            };
            if let Some((_, there)) = found.value {
                return Ok(CasOutcome::Stale(Some((State::Bytes(there), revision(&found.stat, generation)))));
            }
            if let Tried::Done(revision) = self.set(found.stat.version, generation, Some(&value)).await? {
                return Ok(CasOutcome::Set(revision));
            }
        }
        Err(contended())
    }

    async fn found(&self) -> Result<Option<(State, Revision)>> {
        let generation = self.client.generation();
        let found = self.read().await?;
        let state = |Found { stat, value }| value.map(|(_, value)| (State::Bytes(value), revision(&stat, generation)));
        Ok(found.and_then(state))
    }

    async fn remove(&self) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let generation = self.client.generation();
            match self.stat().await? {
                None => return Ok(()),
                Some(stat) if stat.data_length == 0 => {
                    if stat.num_children > 0 {
                        self.clean(&stat, None).await;
                    }
                    return Ok(());
                }
                Some(stat) => {
                    if let Tried::Done(_) = self.set(stat.version, generation, None).await? {
                        return Ok(());
                    }
                }
            }
        }
        Err(contended())
    }
}

fn contended() -> Error {
    Error::new(ErrorKind::Unavailable, "others write this atom all the time")
}

#[async_trait]
impl StateContainer for Atom {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.remove().await.map_err(|error| self.wrong(error, "destroy"))
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.found().await.map_err(|error| self.wrong(error, "state"))
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        let set = async { self.write(parts::capabilities().bytes_of(value)?).await };
        set.await.map_err(|error| self.wrong(error, "set state"))
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let set = async { self.compare_and_write(expected, parts::capabilities().bytes_of(value)?).await };
        set.await.map_err(|error| self.wrong(error, "compare and set state"))
    }

    async fn changed(&self, since: Option<Revision>) -> Result<()> {
        let changed = async {
            let mut registration = Registration::new(&self.client, &self.hub, vec![self.path.clone()]);
            registration.arm().await?;
            // The watch comes before the look: a change after the look rings.
            let generation = self.client.generation();
            let now = self.stat().await?.filter(|stat| stat.data_length > 0);
            if now.map(|stat| revision(&stat, generation)) == since {
                registration.changed().await?;
            }
            Ok(())
        };
        changed.await.map_err(|error| self.wrong(error, "changed"))
    }
}
