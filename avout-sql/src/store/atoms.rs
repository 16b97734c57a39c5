use std::sync::Arc;

use async_trait::async_trait;
use avout_core::Result;
use avout_core::backend::{CasOutcome, StateContainer, Watcher};
use avout_core::protocol::{Key, Revision, State};
use bytes::Bytes;
use rusqlite::{Connection, params};

use super::bytes::limited;
use crate::client::Client;
use crate::coordinator::read;
use crate::schema::clock::Stamp;
use crate::watch::Registration;
use crate::watch::hub::Table;
use crate::wire::error::classify;
use crate::writer::work::{Batch, Work};

const READ_ATOM: &str = "SELECT length(state), revision, writer, state FROM atoms WHERE key = ?1";

/// The state of an atom.
pub(super) struct Atom {
    pub(super) client: Arc<Client>,
    pub(super) key: Key,
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
        let value = self.client.stores.bytes_of(value).map_err(|error| error.at(&self.key).during("set state"))?;
        match self.write(AtomWrite::Set(value), "set state").await? {
            Some(AtomAnswer::Set(stamp)) => Ok(stamp.revision()),
            _ => Err(read::broken(&self.key)),
        }
    }

    async fn compare_and_set_state(&self, current: Option<Revision>, value: State) -> Result<CasOutcome> {
        let operation = "compare and set state";
        let value = self.client.stores.bytes_of(value).map_err(|error| error.at(&self.key).during(operation))?;
        let current = current.as_ref().map(Stamp::expected);
        Ok(match self.write(AtomWrite::Cas(current, value), operation).await? {
            Some(AtomAnswer::Set(stamp)) => CasOutcome::Set(stamp.revision()),
            Some(AtomAnswer::Found(bytes, stamp)) => CasOutcome::Stale(Some((State::Bytes(bytes), stamp.revision()))),
            None => CasOutcome::Stale(None),
        })
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let watch = Registration::begin(&self.client, vec![(Table::Atoms, self.key.clone())]);
        Ok(Box::new(watch.await.map_err(|error| error.at(&self.key).during("watch"))?))
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
                if read::stamp(connection, Table::Atoms, &self.key)? != *expected {
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
