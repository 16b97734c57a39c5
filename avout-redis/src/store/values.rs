//! The values of a ref, in a hash of their own.

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{StoreCapabilities, VersionedStateContainer};
use avout_core::protocol::{Key, State, Version};
use avout_core::{Error, ErrorKind, Result};
use redis::{Cmd, Value};

use crate::schema::values_member;
use crate::wire::{Client, Script, foreign};

pub(super) struct Values {
    client: Arc<Client>,
    capabilities: StoreCapabilities,
    key: Key,
    hash: String,
    member: String,
}

impl Values {
    pub(super) fn new(client: &Arc<Client>, capabilities: &StoreCapabilities, key: &Key) -> Self {
        Self {
            client: Arc::clone(client),
            capabilities: capabilities.clone(),
            key: key.clone(),
            hash: client.names.values(key),
            member: values_member(key),
        }
    }

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
        let value = self.capabilities.bytes_of(value).map_err(&named)?;
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
