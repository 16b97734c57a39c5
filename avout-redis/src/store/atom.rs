//! The state of an atom, beside the records.

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{CasOutcome, StateContainer, StoreCapabilities, Watcher};
use avout_core::protocol::{Key, Revision, State};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::Value;

use crate::coordinator::Hub;
use crate::schema::atom_field;
use crate::schema::cell::{self, Clock, expected, revision};
use crate::wire::{Client, Script, foreign};

pub(super) struct Atom {
    client: Arc<Client>,
    hub: Arc<Hub>,
    capabilities: StoreCapabilities,
    key: Key,
    field: String,
}

enum Write<'a> {
    Set(&'a Bytes),
    Cas(Option<&'a Revision>, &'a Bytes),
    Destroy,
}

enum Written {
    At(Revision),
    Stale(Option<(State, Revision)>),
}

impl Atom {
    pub(super) fn new(client: &Arc<Client>, hub: &Arc<Hub>, capabilities: &StoreCapabilities, key: &Key) -> Self {
        Self {
            client: Arc::clone(client),
            hub: Arc::clone(hub),
            capabilities: capabilities.clone(),
            key: key.clone(),
            field: atom_field(key),
        }
    }

    async fn write(&self, write: Write<'_>) -> Result<Written> {
        let names = &self.client.names;
        let (mode, old, value) = match &write {
            Write::Set(value) => ("s", None, Some(*value)),
            Write::Cas(revision, value) => ("c", Some(expected(*revision)), Some(*value)),
            Write::Destroy => ("d", None, None),
        };
        let size = (5, 64 + self.field.len() + value.map_or(0, Bytes::len));
        let keys = [&*names.cells, &names.names];
        let ran = self.client.run(Script::Atom, &keys, size, ErrorKind::OutcomeUnknown, |cmd, head| {
            let (old, length) = old.unwrap_or_default();
            cmd.arg(&head[..]).arg(&self.field).arg(mode).arg(&old[..length]).arg(value.map_or(&[][..], |value| value));
        });
        let (reply, head, link) = ran.await?;
        let unreadable = || Error::new(ErrorKind::OutcomeUnknown, "the server's answer to a write is not understood");
        if let Some(point) = cell::point(&reply) {
            self.client.still_true(&link, point)?;
            self.client.confirm(link.era, point).await?;
            let nonce = u64::from_be_bytes(head[16..].try_into().expect("a head has 24 bytes"));
            return Ok(Written::At(revision(point, nonce)));
        }
        let Value::Array(found) = reply else { return Err(unreadable()) };
        let mut found = found.into_iter();
        let clock = found.next().and_then(|clock| Clock::read(&clock)).ok_or_else(unreadable)?;
        self.client.history.observe(link.era, clock.point);
        self.client.confirm_read(link.era, clock.point, None).await?;
        let found = cell::split(found.next().ok_or_else(unreadable)?)?;
        Ok(Written::Stale(found.map(|(revision, _, bytes)| (State::Bytes(bytes), revision))))
    }

    fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        move |error| error.at(&self.key).during(operation)
    }

    async fn found(&self) -> Result<Option<(State, Revision)>> {
        let (_, mut cells) = self.client.read(std::iter::once(&*self.field)).await?;
        let found = cell::split(cells.next().unwrap_or_default())?;
        Ok(found.map(|(revision, _, bytes)| (State::Bytes(bytes), revision)))
    }
}

#[async_trait]
impl StateContainer for Atom {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.write(Write::Destroy).await.map(drop).map_err(self.named("destroy"))
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.found().await.map_err(self.named("state"))
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        let named = self.named("set state");
        let value = self.capabilities.bytes_of(value).map_err(&named)?;
        match self.write(Write::Set(&value)).await.map_err(&named)? {
            Written::At(revision) => Ok(revision),
            Written::Stale(_) => Err(named(foreign())),
        }
    }

    async fn compare_and_set_state(&self, current: Option<Revision>, value: State) -> Result<CasOutcome> {
        let named = self.named("compare and set state");
        let value = self.capabilities.bytes_of(value).map_err(&named)?;
        Ok(match self.write(Write::Cas(current.as_ref(), &value)).await.map_err(&named)? {
            Written::At(revision) => CasOutcome::Set(revision),
            Written::Stale(found) => CasOutcome::Stale(found),
        })
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let watch = self.hub.watch(vec![self.client.names.channel(&self.field)]).await;
        Ok(Box::new(watch.map_err(self.named("watch"))?))
    }
}
