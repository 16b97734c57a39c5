use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::VersionedStateContainer;
use avout_core::protocol::{Key, State, Version};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::bytes::limited;
use crate::client::Client;
use crate::wire::error::classify;
use crate::writer::work::{Batch, Work};

const READ_VALUE: &str = "SELECT length(state), 0, 0, state FROM ref_values WHERE key = ?1 AND version = ?2";

/// The values of a ref.
pub(super) struct Values {
    pub(super) client: Arc<Client>,
    pub(super) key: Key,
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
        let value = self.client.stores.bytes_of(value).map_err(|error| error.at(&self.key).during(operation))?;
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
