use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{CasOutcome, StateContainer, Watcher};
use avout_core::protocol::{Key, Revision, State};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use zookeeper::{Client as Zk, CreateMode, Error as ZkError, MultiWriteResult, Stat};

use super::parts::{self, Found, Head};
use crate::coordinator::{Hub, Registration, Token};
use crate::schema::{ANY_VERSION, Folder, made_by, stamp, steps};
use crate::wire::{Change, Changes, Client, Ground, Refused, classify, classify_write};

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
        let stat = stat.await?.map_err(classify)?;
        if stat.is_none_or(|stat| stat.data_length == 0) {
            // It may have gone with the whole namespace.
            self.client.read(|_| Ok(())).await?;
        }
        Ok(stat)
    }

    /// Makes the znode, empty.
    async fn make(&self) -> Result<()> {
        let options = &made_by(&self.client.options, CreateMode::Persistent);
        match self.client.change(|changes| changes.create(&self.path, b"", options)).await? {
            Ok(()) | Err(ZkError::NodeExists) => Ok(()),
            Err(error) => Err(classify(error)),
        }
    }

    /// Makes the znode with a small value, if there is none.
    async fn create(&self, value: Bytes) -> Result<Tried> {
        let options = &made_by(&self.client.options, CreateMode::Persistent);
        let data = stamp(0, self.client.options.hop_at, &Head::Whole(value).encode());
        let created = self.client.request(ErrorKind::OutcomeUnknown, async |ground: Ground| {
            self.client.check_writes(&ground)?;
            // Version 0 is only seen of a znode that somebody else has made, or that is empty.
            let create = |changes: &mut Changes<'_>| {
                changes.create(&self.path, b"", options)?;
                steps(0, self.client.options.hop_at).try_for_each(|step| changes.set(&self.path, &data, step))
            };
            match self.client.change_in(&ground, create).await.map_err(classify_write)? {
                Change::Done(results) => Ok(Tried::Done(revision(&last_set(results)?, ground.generation))),
                Change::Refused(Refused { source: ZkError::NodeExists, .. }) => Ok(Tried::Stale),
                Change::Refused(refused) => Err(refused.told()),
                Change::Over => Ok(Tried::Again),
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
        let hop_at = self.client.options.hop_at;
        let data = head.as_ref().map(|head| stamp(version, hop_at, &head.encode())).unwrap_or_default();
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
        let set = |changes: &mut Changes<'_>| {
            for step in steps(version, self.client.options.hop_at) {
                changes.set(&self.path, data, step)?;
            }
            for name in of.into_iter().flat_map(parts::Parts::names) {
                changes.check(&format!("{}{name}", self.before), ANY_VERSION)?;
            }
            Ok(())
        };
        match self.client.change_in(ground, set).await.map_err(classify_write)? {
            Change::Done(results) => last_set(results).map(Ok),
            Change::Refused(Refused { index: 0, source: ZkError::BadVersion | ZkError::NoNode, .. }) => {
                Ok(Err(Tried::Stale))
            }
            Change::Refused(Refused { source: ZkError::NoNode, .. }) | Change::Over => Ok(Err(Tried::Again)),
            Change::Refused(refused) => Err(refused.told()),
        }
    }

    /// Deletes the parts that do not belong to the head that was just written, if it is still there. Who is about to write a head for
    /// some of them finds them gone, and writes them anew.
    async fn clean(&self, stat: &Stat, of: Option<&parts::Parts>) {
        let cleaned = async {
            let children = self.client.ask(async |zk| zk.list_children(&self.path).await).await?.map_err(classify)?;
            let clean = self.client.change(|changes| {
                changes.check(&self.path, stat.version)?;
                for name in children.iter().filter(|name| of.is_none_or(|of| of.names().all(|own| own != **name))) {
                    changes.delete(&format!("{}{name}", self.before), ANY_VERSION)?;
                }
                Ok(())
            });
            clean.await?.map_err(classify)
        };
        if let Err(error) = cleaned.await {
            tracing::debug!(%error, key = %self.key, "parts of an earlier value are left for the next write");
        }
    }

    async fn write(&self, value: Bytes) -> Result<Revision> {
        for _ in 0..ATTEMPTS {
            let generation = self.client.generation();
            let Some(stat) = self.stat().await? else {
                if value.len() > parts::PART_BYTES {
                    self.make().await?;
                } else if let Tried::Done(revision) = self.create(value.clone()).await? {
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
                && let Tried::Done(revision) = self.create(value.clone()).await?
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

/// What the last set of a change tells of its znode.
fn last_set(results: Vec<MultiWriteResult>) -> Result<Stat> {
    let mut stats = results.into_iter().rev().filter_map(|result| match result {
        MultiWriteResult::SetData { stat } => Some(stat),
        _ => None,
    });
    let unclear = || Error::new(ErrorKind::OutcomeUnknown, "the server's answer is not understood");
    stats.next().ok_or_else(unclear)
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

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let registration = Registration::new(&self.client, &self.hub, vec![self.path.clone()]);
        registration.arm().await.map_err(|error| self.wrong(error, "watch"))?;
        Ok(Box::new(registration))
    }
}
