//! The documents of `<namespace>.atoms`.
//!
//! ```text
//! { _id: <key>, r: <revision>, f: <fence>, d: <state> }                       up to 8 MiB
//! { _id: <key>, r: <revision>, f: <fence>, t: <token>, c: <number of chunks> }
//! { _id: <key>, f: <fence> }                                                  an atom that is absent
//! ```
//!
//! A revision begins with half of the realm. So a state that is set, whatever was there before, replaces none of another namespace
//! that was made in the place of this one.
//!
//! Chunks whose client died before the document named them are removed by a sweep. A client that lives may be about to name them, so
//! the sweep puts up a fence first, which is there from then on:
//!
//! ```text
//! A       reads the fence: none | writes chunks                           names them, if there is no fence: refused | again
//! sweep                                        lists them | a fence | removes them
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{CasOutcome, Polling, StateContainer, Watcher};
use avout_core::protocol::{Key, Revision, State};
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::raw::{RawBson, cstr};
use mongodb::bson::{Bson, Document, RawDocumentBuf, rawdoc};

use super::chunks::Chunks;
use super::ready::{Ready, ours, owner};
use crate::client::Client;
use crate::hub::Table;
use crate::marks::Outcome;
use crate::revisions::{revision_bytes, revision_of};
use crate::watch::Watch;
use crate::wire::bson::{majority, strange};
use crate::wire::request::{Failure, WriteErrors};

/// How often a state is read whose chunks were replaced meanwhile.
const LOOKS: u32 = 100;

pub(crate) struct Atom {
    client: Arc<Client>,
    key: Key,
}

impl Atom {
    pub(crate) fn new(client: &Arc<Client>, key: &Key) -> Self {
        Self { client: Arc::clone(client), key: key.clone() }
    }

    fn at(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        let key = self.key.clone();
        move |error| error.at(&key).during(operation)
    }

    async fn document(&self) -> Result<Option<Document>> {
        self.client.usable()?;
        self.client.find_one(&self.client.names.atoms, self.key.as_str().to_owned()).await
    }

    async fn read(&self) -> Result<Option<(State, Revision)>> {
        for _ in 0..LOOKS {
            let Some(mut document) = self.document().await? else { return Ok(None) };
            if is_absent(&document) {
                return Ok(None);
            }
            let revision = revision_of(&document).ok_or_else(strange)?;
            let bytes = match Chunks::named_by(owner(&self.key), &document)? {
                Some(chunks) => chunks.read(&self.client).await?,
                None => match document.remove("d") {
                    Some(Bson::Binary(state)) => Some(state.bytes.into()),
                    _ => return Err(strange()),
                },
            };
            if let Some(bytes) = bytes {
                return Ok(Some((State::Bytes(bytes), revision)));
            }
        }
        Err(Error::new(ErrorKind::Corrupt, "parts of the state are missing"))
    }

    /// Puts a state in the place of one with this revision, and gives the document as it was, without the state; `None`: there is no
    /// such document.
    async fn replace(&self, revision: RawBson, ready: &Ready) -> Result<Option<Document>> {
        let mut query = rawdoc! { "_id": self.key.as_str(), "r": revision };
        ready.add_fence(&mut query)?;
        let mut gone = RawDocumentBuf::new();
        for name in [cstr!("d"), cstr!("v"), cstr!("t"), cstr!("c")] {
            if ready.fields.get(name.as_str()).is_ok_and(|field| field.is_none()) {
                gone.append(name, 1);
            }
        }
        let change = rawdoc! { "$set": ready.fields.clone(), "$unset": gone };
        self.modify(query, rawdoc! { "update": change }).await
    }

    /// Makes the document. `false`: there is one, or a fence was put up.
    async fn make(&self, ready: &Ready) -> Result<bool> {
        let mut query = rawdoc! { "_id": self.key.as_str(), "r": { "$exists": false } };
        ready.add_fence(&mut query)?;
        let change = rawdoc! { "$set": ready.fields.clone() };
        Ok(self.client.put_one(&self.client.names.atoms, query, change).await? != Outcome::Taken)
    }

    /// Changes the document that `query` finds, and gives what it was, without the state. The request is sent once.
    async fn modify(&self, query: RawDocumentBuf, how: RawDocumentBuf) -> Result<Option<Document>> {
        let mut command = rawdoc! { "findAndModify": self.client.names.atoms.as_str(), "query": query };
        for field in how.iter() {
            let (name, value) = field.map_err(|_| strange())?;
            command.append(name, value);
        }
        command.append(cstr!("fields"), rawdoc! { "t": 1, "c": 1 });
        command.append(cstr!("writeConcern"), majority());
        let reply = self.client.run(command).await.map_err(Failure::lost_write)?;
        WriteErrors::of(&reply).check()?;
        Ok(reply.get_document("value").ok().cloned())
    }

    /// Removes the chunks of a state that was replaced.
    async fn sweep(&self, replaced: &Document) {
        if let Ok(Some(chunks)) = Chunks::named_by(owner(&self.key), replaced) {
            chunks.remove(&self.client).await;
        }
    }

    /// Writes a state, and gives its revision; `None`: the document is not as it is expected. The chunks of a state that was not
    /// written are removed, unless the outcome is open.
    async fn put(&self, value: State, expected: Expected) -> Result<Option<Revision>> {
        let mut ready = Ready::new(&self.client, &self.key, &value).await?;
        loop {
            let done = match self.put_ready(&ready, &expected).await {
                Ok(Put::Done) => return Ok(Some(ready.revision)),
                Ok(Put::Again) => continue,
                Ok(Put::Fenced) => {
                    ready.give_up(&self.client).await;
                    ready = Ready::new(&self.client, &self.key, &value).await?;
                    continue;
                }
                Ok(Put::Stale) => Ok(None),
                Err(error) => Err(error),
            };
            if !done.as_ref().is_err_and(|error| error.kind() == ErrorKind::OutcomeUnknown) {
                ready.give_up(&self.client).await;
            }
            return done;
        }
    }

    async fn put_ready(&self, ready: &Ready, expected: &Expected) -> Result<Put> {
        let first = match expected {
            Expected::Any => Some(ours(&self.client)),
            Expected::Revision(revision) => Some(revision_bytes(revision).into()),
            Expected::Absent => None,
        };
        if let Some(revision) = first
            && let Some(replaced) = self.replace(revision, ready).await?
        {
            self.sweep(&replaced).await;
            return Ok(Put::Done);
        }
        if matches!(expected, Expected::Absent) && self.make(ready).await? {
            return Ok(Put::Done);
        }
        let found = self.document().await?;
        if ready.is_fenced(found.as_ref().and_then(|found| found.get("f"))) {
            return Ok(Put::Fenced);
        }
        let found = found.as_ref().and_then(revision_of);
        match (expected, found) {
            (Expected::Any, None) => Ok(if self.make(ready).await? { Put::Done } else { Put::Again }),
            // The version before wrote it.
            (Expected::Any, Some(found)) => match self.replace(revision_bytes(&found).into(), ready).await? {
                Some(replaced) => {
                    self.sweep(&replaced).await;
                    Ok(Put::Done)
                }
                None => Ok(Put::Again),
            },
            // It may have become what was expected just now.
            (Expected::Revision(revision), Some(found)) if found == *revision => Ok(Put::Again),
            (Expected::Absent, None) => Ok(Put::Again),
            _ => Ok(Put::Stale),
        }
    }

    async fn compare_and_set(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let expect = expected.clone().map_or(Expected::Absent, Expected::Revision);
        loop {
            if let Some(revision) = self.put(value.clone(), expect.clone()).await? {
                return Ok(CasOutcome::Set(revision));
            }
            let found = self.read().await?;
            if found.as_ref().map(|(_, revision)| revision) != expected.as_ref() {
                return Ok(CasOutcome::Stale(found));
            }
        }
    }

    /// Removes the state. A fence stays.
    async fn remove(&self) -> Result<()> {
        loop {
            let query = rawdoc! { "_id": self.key.as_str(), "r": ours(&self.client), "f": { "$exists": false } };
            if let Some(removed) = self.modify(query, rawdoc! { "remove": true }).await? {
                self.sweep(&removed).await;
                return Ok(());
            }
            let Some(found) = self.document().await?.filter(|found| !is_absent(found)) else { return Ok(()) };
            let revision = revision_of(&found).ok_or_else(strange)?;
            let query = rawdoc! { "_id": self.key.as_str(), "r": revision_bytes(&revision) };
            let how = match found.contains_key("f") {
                true => rawdoc! { "update": { "$unset": { "r": 1, "d": 1, "v": 1, "t": 1, "c": 1 } } },
                false => rawdoc! { "remove": true },
            };
            if let Some(removed) = self.modify(query, how).await? {
                self.sweep(&removed).await;
                return Ok(());
            }
        }
    }
}

/// A document with a fence alone.
fn is_absent(document: &Document) -> bool {
    !document.contains_key("r")
}

/// What a state is put in the place of.
#[derive(Clone)]
enum Expected {
    Any,
    Absent,
    Revision(Revision),
}

/// What became of it.
enum Put {
    Done,
    /// Others were quicker.
    Again,
    /// A sweep has put up a fence, and may have removed the chunks.
    Fenced,
    Stale,
}

#[async_trait]
impl StateContainer for Atom {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let at = self.at("destroy");
        self.client.usable().map_err(&at)?;
        self.remove().await.map_err(at)
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.read().await.map_err(self.at("state"))
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        let set = self.put(value, Expected::Any).await.map_err(self.at("set state"))?;
        Ok(set.expect("any state may be replaced"))
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        self.compare_and_set(expected, value).await.map_err(self.at("compare and set state"))
    }

    async fn watch(&self) -> Result<Box<dyn Watcher>> {
        let at = self.at("watch");
        if self.client.stores.push {
            let spots = vec![(Table::Atoms, self.key.clone())];
            return Ok(Box::new(Watch::begin(&self.client, spots).await.map_err(at)?));
        }
        let (client, key) = (Arc::clone(&self.client), self.key.clone());
        let look = move || {
            let atom = Self::new(&client, &key);
            async move { Ok(atom.document().await?.as_ref().and_then(revision_of)) }
        };
        Ok(Box::new(Polling::begin(look).await.map_err(at)?))
    }
}
