use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::history::Losses;
use avout_core::backend::{self, CasOutcome, Kind, StateContainer, StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, Realm, Revision, State, Version};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use redis::{Cmd, Value};

use crate::cell::{self, Clock, expected, revision};
use crate::client::Client;
use crate::names::{atom_field, mark, values_member};
use crate::scripts::Script;

/// How many names one request lists: the server does nothing else meanwhile.
const PAGE: usize = 10_000;

/// Keeps the states of atoms beside the records, and the values of refs in a hash each.
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
        self.client.realm()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.client.stores()
    }

    fn state(&self, key: &Key) -> Arc<dyn StateContainer> {
        Arc::new(Atom { client: Arc::clone(&self.client), field: atom_field(key), key: key.clone() })
    }

    fn versioned_state(&self, key: &Key) -> Arc<dyn VersionedStateContainer> {
        let hash = self.client.names.values(key);
        Arc::new(Values { client: Arc::clone(&self.client), hash, member: values_member(key), key: key.clone() })
    }

    fn losses(&self) -> Option<&Arc<Losses>> {
        Some(self.client.history.losses())
    }

    async fn keys(&self, kind: Kind, prefix: &Key) -> Result<Vec<Key>> {
        self.client.list(mark(Some(kind)), prefix).await.map_err(|error| error.during("keys"))
    }
}

impl Client {
    /// The keys with this mark that are `prefix` or lie under it, sorted. The server sorts names by their bytes, as
    /// [`Key`] does; what lies under `/a` is between `/a/` and `/a0`.
    pub(crate) async fn list(&self, mark: &str, prefix: &Key) -> Result<Vec<Key>> {
        let folder = prefix.as_str().trim_end_matches('/');
        let mut keys = Vec::new();
        if !folder.is_empty() {
            let mut cmd = Cmd::new();
            cmd.arg("ZRANGE").arg(&self.names.names).arg(format!("[{mark}{folder}")).arg(format!("[{mark}{folder}"));
            cmd.arg("BYLEX");
            self.page(&cmd, mark, &mut keys).await?;
        }
        let mut from = format!("({mark}{folder}/");
        let to = format!("({mark}{folder}0");
        loop {
            let mut cmd = Cmd::new();
            cmd.arg("ZRANGE").arg(&self.names.names).arg(&from).arg(&to).arg("BYLEX").arg("LIMIT").arg(0).arg(PAGE);
            match self.page(&cmd, mark, &mut keys).await? {
                Some(last) => from = last,
                None => return Ok(keys),
            }
        }
    }

    /// Takes in one page; gives where the next one begins, if there may be one.
    async fn page(&self, command: &Cmd, mark: &str, keys: &mut Vec<Key>) -> Result<Option<String>> {
        let Value::Array(members) = self.look(command).await? else { return Err(foreign()) };
        let full = members.len() == PAGE;
        let mut last = None;
        for member in members {
            let Value::BulkString(member) = member else { return Err(foreign()) };
            match std::str::from_utf8(&member) {
                Ok(member) => {
                    last = Some(format!("({member}"));
                    match member.strip_prefix(mark).map(Key::from_stored) {
                        Some(Ok(key)) => keys.push(key),
                        _ => tracing::warn!("a name in the namespace is none that avout wrote"),
                    }
                }
                Err(_) => tracing::warn!("a name in the namespace is none that avout wrote"),
            }
        }
        Ok(last.filter(|_| full))
    }
}

fn foreign() -> Error {
    Error::new(ErrorKind::Mismatch, "a key of the namespace holds something that avout did not write")
}

struct Atom {
    client: Arc<Client>,
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
        let value = self.client.stores().bytes_of(value).map_err(&named)?;
        match self.write(Write::Set(&value)).await.map_err(&named)? {
            Written::At(revision) => Ok(revision),
            Written::Stale(_) => Err(named(foreign())),
        }
    }

    async fn compare_and_set_state(&self, current: Option<Revision>, value: State) -> Result<CasOutcome> {
        let named = self.named("compare and set state");
        let value = self.client.stores().bytes_of(value).map_err(&named)?;
        Ok(match self.write(Write::Cas(current.as_ref(), &value)).await.map_err(&named)? {
            Written::At(revision) => CasOutcome::Set(revision),
            Written::Stale(found) => CasOutcome::Stale(found),
        })
    }

    /// Told of each change by the server, and returns after a lost connection too.
    async fn changed(&self, since: Option<Revision>) -> Result<()> {
        let changed = async {
            let watch = self.client.hub.watch(vec![self.client.names.channel(&self.field)]).await?;
            // The watch comes before the look: a change after the look rings.
            if self.found().await?.map(|(_, revision)| revision) != since {
                return Ok(());
            }
            watch.rung().await.map(drop)
        };
        changed.await.map_err(self.named("changed"))
    }
}

struct Values {
    client: Arc<Client>,
    key: Key,
    hash: String,
    member: String,
}

impl Values {
    fn named(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        move |error| error.at(&self.key).during(operation)
    }

    async fn run(&self, script: Script, version: Option<&Version>, value: &[u8]) -> Result<()> {
        let names = &self.client.names;
        let keys = [&*names.cells, &names.names, &self.hash];
        let version = version.map(Version::encode);
        let size = (4, 64 + self.member.len() + Version::ENCODED_BYTES + value.len());
        // All of it may be repeated, so that a lost reply is no unknown outcome.
        let ran = self.client.run(script, &keys, size, ErrorKind::Unavailable, |cmd, head| {
            cmd.arg(&head[..]).arg(&self.member);
            if let Some(version) = &version {
                cmd.arg(&version[..]);
            }
            if script == Script::PutValue {
                cmd.arg(value);
            }
        });
        // Replicas need not confirm it: the commit that points at it comes later, and they confirm that.
        match ran.await?.0 {
            Value::Int(3) => Ok(()),
            Value::Int(4) => {
                let message = "the version has another value already; versions are unique";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
            _ => Err(foreign()),
        }
    }
}

#[async_trait]
impl VersionedStateContainer for Values {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.run(Script::DropValue, None, &[]).await.map_err(self.named("destroy"))
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        let mut cmd = Cmd::new();
        cmd.arg("HGET").arg(&self.hash).arg(&version.encode()[..]);
        match self.client.look(&cmd).await.map_err(self.named("state at"))? {
            Value::Nil => Ok(None),
            Value::BulkString(bytes) => Ok(Some(State::Bytes(bytes.into()))),
            _ => Err(self.named("state at")(foreign())),
        }
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        let named = self.named("set state at");
        let value = self.client.stores().bytes_of(value).map_err(&named)?;
        self.run(Script::PutValue, Some(version), &value).await.map_err(named)
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        self.run(Script::DropValue, Some(version), &[]).await.map_err(self.named("delete state at"))
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        let named = self.named("versions");
        let mut cmd = Cmd::new();
        cmd.arg("HKEYS").arg(&self.hash);
        let Value::Array(fields) = self.client.look(&cmd).await.map_err(&named)? else { return Err(named(foreign())) };
        let version = |field| match field {
            Value::BulkString(bytes) => Version::decode(&bytes),
            _ => Err(foreign()),
        };
        let mut versions = fields.into_iter().map(version).collect::<Result<Vec<_>>>().map_err(named)?;
        versions.sort_unstable();
        Ok(versions)
    }
}
