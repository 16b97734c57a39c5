use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, CasOutcome, Kind, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm, Revision, State, Version};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, params};

use crate::client::{Client, MAX_BYTES};
use crate::clock::Stamp;
use crate::error::classify;
use crate::poller;
use crate::records::{self, Keys};
use crate::watch::{Registration, Table};
use crate::work::{Batch, Work};

/// Keeps the states of atoms and the values of refs in tables of the file.
///
/// An atom's revision is a point of the coordinator's clock. A client is told of its own changes at once, and
/// of those by others within about 10 ms.
#[derive(Clone)]
pub struct Store {
    client: Arc<Client>,
}

impl Store {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        Self { client }
    }
}

#[async_trait]
impl backend::Store for Store {
    fn realm(&self) -> Realm {
        self.client.shared.realm
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.client.stores.clone()
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        self.client.losses()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom { client: Arc::clone(&self.client), key: key.clone() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        Arc::new(Values { client: Arc::clone(&self.client), key: key.clone() })
    }

    async fn keys(&self, kind: Kind, prefix: &Key) -> Result<Vec<Key>> {
        let of = match kind {
            Kind::Atom => Keys::Atoms,
            Kind::Ref => Keys::Values,
        };
        self.client.keys(of, prefix).await.map_err(|error| error.during("keys"))
    }
}

/// The bytes of a state that the store can take.
fn bytes_of(value: State) -> Result<Bytes> {
    match value {
        State::Bytes(bytes) if bytes.len() <= MAX_BYTES => Ok(bytes),
        State::Bytes(_) => Err(Error::new(ErrorKind::TooLarge, "a value has at most 512 MiB")),
        State::Shared(_) => Err(Error::new(
            ErrorKind::Unsupported,
            "a value with the in-process codec can be kept in the memory of this process only",
        )),
    }
}

/// A value that a statement reads, if it is not larger than `limit`. SQLite gives the length without reading the value.
fn limited(
    connection: &Connection,
    sql: &'static str,
    params: impl rusqlite::Params,
    limit: usize,
) -> Result<Option<Option<(Bytes, Stamp)>>> {
    let found = connection.prepare_cached(sql).and_then(|mut statement| {
        statement
            .query_row(params, |row| {
                let (length, stamp) = (row.get::<_, i64>(0)?, Stamp { point: row.get(1)?, writer: row.get(2)? });
                if usize::try_from(length).is_ok_and(|length| length > limit) {
                    return Ok(None);
                }
                Ok(Some((Bytes::from(row.get::<_, Vec<u8>>(3)?), stamp)))
            })
            .optional()
    });
    Ok(match found.map_err(classify)? {
        None => Some(None),
        Some(None) => None,
        Some(Some(found)) => Some(Some(found)),
    })
}

const READ_ATOM: &str = "SELECT length(state), revision, writer, state FROM atoms WHERE key = ?1";
const READ_VALUE: &str = "SELECT length(state), 0, 0, state FROM ref_values WHERE key = ?1 AND version = ?2";

struct Atom {
    client: Arc<Client>,
    key: Key,
}

impl Atom {
    async fn write(&self, write: AtomWrite, operation: &'static str) -> Result<Option<AtomAnswer>> {
        let work = AtomWork { key: self.key.clone(), write };
        self.client.write(work).await.map_err(|error| error.at(&self.key).during(operation))
    }
}

#[async_trait]
impl StateContainer for Atom {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.write(AtomWrite::Destroy, "destroy").await.map(|_| ())
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        let (key, shared) = (self.key.clone(), Arc::clone(&self.client.shared));
        let read = move |c: &Connection, limit| {
            let known = shared.history.known();
            let found = limited(c, READ_ATOM, [key.as_str()], limit)?;
            shared.look(c, known)?;
            Ok(found)
        };
        let found = self.client.read(true, read).await.map_err(|error| error.at(&self.key).during("state"))?;
        Ok(found.map(|(bytes, stamp)| (State::Bytes(bytes), stamp.revision())))
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        let value = bytes_of(value).map_err(|error| error.at(&self.key).during("set state"))?;
        match self.write(AtomWrite::Set(value), "set state").await? {
            Some(AtomAnswer::Set(stamp)) => Ok(stamp.revision()),
            _ => Err(records::broken(&self.key)),
        }
    }

    async fn compare_and_set_state(&self, current: Option<Revision>, value: State) -> Result<CasOutcome> {
        let operation = "compare and set state";
        let value = bytes_of(value).map_err(|error| error.at(&self.key).during(operation))?;
        let current = current.as_ref().map(Stamp::expected);
        Ok(match self.write(AtomWrite::Cas(current, value), operation).await? {
            Some(AtomAnswer::Set(stamp)) => CasOutcome::Set(stamp.revision()),
            Some(AtomAnswer::Found(bytes, stamp)) => CasOutcome::Stale(Some((State::Bytes(bytes), stamp.revision()))),
            None => CasOutcome::Stale(None),
        })
    }

    /// Returns within about 10 ms of a change.
    async fn changed(&self, since: Option<Revision>) -> Result<()> {
        let spots = vec![(Table::Atoms, self.key.clone())];
        let registration = Registration::new(&self.client, spots.clone());
        // The watch comes before the look: a change after the look rings.
        let shared = Arc::clone(&self.client.shared);
        let read = self.client.read(true, move |c, _| {
            let known = shared.history.known();
            let found = records::stamps(c, &spots)?;
            shared.look(c, known)?;
            Ok(Some(found))
        });
        let now = read.await.map_err(|error| error.at(&self.key).during("changed"))?;
        let stamp = now.first().and_then(|change| change.stamp);
        if stamp != since.as_ref().map(Stamp::expected) {
            return Ok(());
        }
        self.client.shared.hub.observe(now);
        poller::start(&self.client.shared)?;
        registration.changed().await.map(|_| ())
    }
}

struct AtomWork {
    key: Key,
    write: AtomWrite,
}

enum AtomWrite {
    Set(Bytes),
    Cas(Option<Stamp>, Bytes),
    Destroy,
}

enum AtomAnswer {
    Set(Stamp),
    Found(Bytes, Stamp),
}

impl Work for AtomWork {
    /// `None`: there is no state.
    type Answer = Option<AtomAnswer>;

    fn bytes(&self) -> usize {
        match &self.write {
            AtomWrite::Set(value) | AtomWrite::Cas(_, value) => value.len(),
            AtomWrite::Destroy => 0,
        }
    }

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Self::Answer> {
        let (connection, name) = (batch.connection, self.key.as_str());
        let value = match &self.write {
            AtomWrite::Destroy => {
                let rows = connection
                    .prepare_cached("DELETE FROM atoms WHERE key = ?1")
                    .and_then(|mut statement| statement.execute([name]))
                    .map_err(classify)?;
                if rows > 0 {
                    batch.next()?;
                    batch.changed(Table::Atoms, &self.key, None);
                }
                return Ok(None);
            }
            AtomWrite::Cas(expected, value) => {
                if records::stamp(connection, Table::Atoms, &self.key)? != *expected {
                    let found = limited(connection, READ_ATOM, [name], usize::MAX)?.flatten();
                    return Ok(found.map(|(bytes, stamp)| AtomAnswer::Found(bytes, stamp)));
                }
                value
            }
            AtomWrite::Set(value) => value,
        };
        let stamp = batch.next()?;
        connection
            .prepare_cached(
                "INSERT INTO atoms (key, revision, writer, state) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (key)
                 DO UPDATE SET revision = excluded.revision, writer = excluded.writer, state = excluded.state",
            )
            .and_then(|mut statement| statement.execute(params![name, stamp.point, stamp.writer, &value[..]]))
            .map_err(classify)?;
        batch.changed(Table::Atoms, &self.key, Some(stamp));
        Ok(Some(AtomAnswer::Set(stamp)))
    }
}

struct Values {
    client: Arc<Client>,
    key: Key,
}

impl Values {
    async fn write(&self, write: ValueWrite, operation: &'static str) -> Result<()> {
        let work = ValueWork { key: self.key.clone(), write };
        self.client.write(work).await.flatten().map_err(|error| error.at(&self.key).during(operation))
    }
}

#[async_trait]
impl VersionedStateContainer for Values {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.write(ValueWrite::Destroy, "destroy").await
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        let (key, version) = (self.key.clone(), version.encode());
        let read =
            self.client.read(true, move |c, limit| limited(c, READ_VALUE, params![key.as_str(), version], limit));
        let found = read.await.map_err(|error| error.at(&self.key).during("state at"))?;
        Ok(found.map(|(bytes, _)| State::Bytes(bytes)))
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        let operation = "set state at";
        let value = bytes_of(value).map_err(|error| error.at(&self.key).during(operation))?;
        self.write(ValueWrite::Set(version.encode(), value), operation).await
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.write(ValueWrite::Delete(version.encode()), "delete state at").await
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        let key = self.key.clone();
        let read = self.client.read(false, move |c, _| versions(c, &key).map(Some));
        read.await.map_err(|error| error.at(&self.key).during("versions"))
    }
}

/// The bytes of versions sort as versions do.
fn versions(connection: &Connection, key: &Key) -> Result<Vec<Version>> {
    let read = || -> rusqlite::Result<Vec<Vec<u8>>> {
        let mut statement =
            connection.prepare_cached("SELECT version FROM ref_values WHERE key = ?1 ORDER BY version")?;
        statement.query_map([key.as_str()], |row| row.get(0))?.collect()
    };
    read().map_err(classify)?.iter().map(|bytes| Version::decode(bytes)).collect()
}

struct ValueWork {
    key: Key,
    write: ValueWrite,
}

enum ValueWrite {
    Set([u8; Version::ENCODED_BYTES], Bytes),
    Delete([u8; Version::ENCODED_BYTES]),
    Destroy,
}

impl Work for ValueWork {
    type Answer = Result<()>;

    fn bytes(&self) -> usize {
        if let ValueWrite::Set(_, value) = &self.write { value.len() } else { 0 }
    }

    /// A transaction writes its values to all stores at once.
    fn may_keep_caller(&self) -> bool {
        false
    }

    fn apply(&self, batch: &mut Batch<'_>) -> Result<Result<()>> {
        let (connection, name) = (batch.connection, self.key.as_str());
        let rows = match &self.write {
            ValueWrite::Set(version, value) => connection
                .prepare_cached(
                    "INSERT INTO ref_values (key, version, state) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key, version) DO NOTHING",
                )
                .and_then(|mut statement| statement.execute(params![name, version, &value[..]])),
            ValueWrite::Delete(version) => connection
                .prepare_cached("DELETE FROM ref_values WHERE key = ?1 AND version = ?2")
                .and_then(|mut statement| statement.execute(params![name, version])),
            ValueWrite::Destroy => connection
                .prepare_cached("DELETE FROM ref_values WHERE key = ?1")
                .and_then(|mut statement| statement.execute([name])),
        };
        if rows.map_err(classify)? > 0 {
            batch.wrote_value();
            return Ok(Ok(()));
        }
        let ValueWrite::Set(version, value) = &self.write else {
            return Ok(Ok(()));
        };
        let same: bool = connection
            .prepare_cached("SELECT state = ?3 FROM ref_values WHERE key = ?1 AND version = ?2")
            .and_then(|mut statement| statement.query_row(params![name, version, &value[..]], |row| row.get(0)))
            .map_err(classify)?;
        Ok(if same {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::AlreadyExists, "the version has another value already; versions are unique"))
        })
    }
}
