//! The documents of `<namespace>.atoms`.
//!
//! ```text
//! { _id: <key>, r: <revision>, d: <state> }                       up to 8 MiB
//! { _id: <key>, r: <revision>, t: <token>, c: <number of chunks> }
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::time::sleep;
use avout_core::backend::{CasOutcome, StateContainer};
use avout_core::protocol::{Key, Revision, State};
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};

use super::chunks::{CHUNK, Chunks, find};
use super::documents;
use crate::client::Client;
use crate::hub::Table;
use crate::revisions::{revision_bytes, revision_of};
use crate::wire::bson::{binary, majority, strange};
use crate::wire::request::WriteErrors;

const DUPLICATE_KEY: i32 = 11000;

/// How often a state is read whose chunks were replaced meanwhile.
const LOOKS: u32 = 100;

pub(crate) struct Atom {
    client: Arc<Client>,
    key: Key,
}

/// A state that is ready to be put into the atom's document.
struct Ready {
    revision: Revision,
    fields: RawDocumentBuf,
    chunks: Option<Chunks>,
}

impl Atom {
    pub(crate) fn new(client: &Arc<Client>, key: &Key) -> Self {
        Self { client: Arc::clone(client), key: key.clone() }
    }

    fn at(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        let key = self.key.clone();
        move |error| error.at(&key).during(operation)
    }

    fn owner(&self) -> RawDocumentBuf {
        rawdoc! { "a": self.key.as_str() }
    }

    async fn document(&self) -> Result<Option<Document>> {
        self.client.usable()?;
        find(&self.client, &self.client.names.atoms, self.key.as_str().to_owned()).await
    }

    async fn read(&self) -> Result<Option<(State, Revision)>> {
        for _ in 0..LOOKS {
            let Some(mut document) = self.document().await? else { return Ok(None) };
            let revision = revision_of(&document).ok_or_else(strange)?;
            let bytes = match Chunks::named_by(self.owner(), &document)? {
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

    async fn ready(&self, value: State) -> Result<Ready> {
        self.client.usable()?;
        let bytes = self.client.stores.bytes_of(value)?;
        let revision = Revision::number(rand::random());
        let mut fields = rawdoc! { "r": revision_bytes(&revision) };
        if bytes.len() <= CHUNK {
            fields.append(cstr!("d"), binary(bytes.to_vec()));
            documents::append(&mut fields, self.client.options.documents, &bytes)?;
            return Ok(Ready { revision, fields, chunks: None });
        }
        documents::check_size(self.client.options.documents)?;
        let chunks = Chunks::write(&self.client, self.owner(), &bytes).await?;
        fields.append(cstr!("t"), binary(chunks.token.clone()));
        fields.append(cstr!("c"), chunks.count);
        Ok(Ready { revision, fields, chunks: Some(chunks) })
    }

    /// Changes the document that `query` finds, and gives what it was, without the state. The request is sent once.
    async fn modify(&self, query: RawDocumentBuf, how: RawDocumentBuf) -> Result<Option<Document>, Modify> {
        let mut command = rawdoc! { "findAndModify": self.client.names.atoms.as_str(), "query": query };
        for field in how.iter() {
            let (name, value) = field.map_err(|_| Modify::Failed(strange()))?;
            command.append(name, value);
        }
        command.append(cstr!("fields"), rawdoc! { "t": 1, "c": 1 });
        command.append(cstr!("writeConcern"), majority());
        let reply = self.client.run(command).await.map_err(|failure| match failure.code() {
            Some(DUPLICATE_KEY) => Modify::Taken,
            _ => Modify::Failed(failure.lost_write()),
        })?;
        WriteErrors::of(&reply).check().map_err(Modify::Failed)?;
        Ok(reply.get_document("value").ok().cloned())
    }

    /// Removes the chunks of a state that was replaced.
    async fn sweep(&self, replaced: Option<&Document>) {
        if let Some(document) = replaced
            && let Ok(Some(chunks)) = Chunks::named_by(self.owner(), document)
        {
            chunks.remove(&self.client).await;
        }
    }

    /// After a write that surely did not happen.
    async fn give_up(&self, ready: &Ready) {
        if let Some(chunks) = &ready.chunks {
            chunks.remove(&self.client).await;
        }
    }

    async fn set(&self, value: State) -> Result<Revision> {
        let ready = self.ready(value).await?;
        loop {
            let query = rawdoc! { "_id": self.key.as_str() };
            match self.modify(query, rawdoc! { "update": ready.fields.clone(), "upsert": true }).await {
                Ok(replaced) => {
                    self.sweep(replaced.as_ref()).await;
                    return Ok(ready.revision);
                }
                // Two that made it at once: this one changes what the other one made.
                Err(Modify::Taken) => {}
                Err(Modify::Failed(error)) => {
                    if error.kind() != ErrorKind::OutcomeUnknown {
                        self.give_up(&ready).await;
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn compare_and_set(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        let ready = self.ready(value).await?;
        loop {
            let done = match &expected {
                Some(expected) => {
                    let query = rawdoc! { "_id": self.key.as_str(), "r": revision_bytes(expected) };
                    self.modify(query, rawdoc! { "update": ready.fields.clone() }).await
                }
                None => self.insert(&ready).await,
            };
            match done {
                Ok(Some(replaced)) => {
                    self.sweep(Some(&replaced)).await;
                    return Ok(CasOutcome::Set(ready.revision));
                }
                Ok(None) | Err(Modify::Taken) => {}
                Err(Modify::Failed(error)) => {
                    if error.kind() != ErrorKind::OutcomeUnknown {
                        self.give_up(&ready).await;
                    }
                    return Err(error);
                }
            }
            let found = self.read().await?;
            // It may have become what was expected just now.
            if found.as_ref().map(|(_, revision)| revision) != expected.as_ref() {
                self.give_up(&ready).await;
                return Ok(CasOutcome::Stale(found));
            }
        }
    }

    /// Makes the document. What it was before is nothing.
    async fn insert(&self, ready: &Ready) -> Result<Option<Document>, Modify> {
        let mut document = rawdoc! { "_id": self.key.as_str() };
        for field in ready.fields.iter() {
            let (name, value) = field.map_err(|_| Modify::Failed(strange()))?;
            document.append(name, value);
        }
        let mut documents = RawArrayBuf::new();
        documents.push(document);
        let command = rawdoc! {
            "insert": self.client.names.atoms.as_str(), "documents": documents, "writeConcern": majority(),
        };
        let reply = self.client.run(command).await.map_err(|failure| Modify::Failed(failure.lost_write()))?;
        match WriteErrors::of(&reply) {
            WriteErrors { write: Some(DUPLICATE_KEY), .. } => Err(Modify::Taken),
            errors => errors.check().map(|()| Some(Document::new())).map_err(Modify::Failed),
        }
    }
}

enum Modify {
    /// There is a document already.
    Taken,
    Failed(Error),
}

#[async_trait]
impl StateContainer for Atom {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let at = self.at("destroy");
        self.client.usable().map_err(&at)?;
        match self.modify(rawdoc! { "_id": self.key.as_str() }, rawdoc! { "remove": true }).await {
            Ok(removed) => {
                self.sweep(removed.as_ref()).await;
                Ok(())
            }
            Err(Modify::Failed(error)) => Err(at(error)),
            Err(Modify::Taken) => Err(at(strange())),
        }
    }

    async fn state(&self) -> Result<Option<(State, Revision)>> {
        self.read().await.map_err(self.at("state"))
    }

    async fn set_state(&self, value: State) -> Result<Revision> {
        self.set(value).await.map_err(self.at("set state"))
    }

    async fn compare_and_set_state(&self, expected: Option<Revision>, value: State) -> Result<CasOutcome> {
        self.compare_and_set(expected, value).await.map_err(self.at("compare and set state"))
    }

    async fn changed(&self, since: Option<Revision>) -> Result<()> {
        let at = self.at("changed");
        let look = || async {
            let document = self.document().await?;
            Ok(document.as_ref().and_then(revision_of) != since)
        };
        if self.client.stores.push {
            return atom_changed(&self.client, &self.key, look()).await.map_err(at);
        }
        let mut pause = std::time::Duration::from_millis(10);
        while !look().await.map_err(&at)? {
            sleep(pause).await;
            pause = (pause * 2).min(std::time::Duration::from_secs(1));
        }
        Ok(())
    }
}

/// Waits for a change of an atom that comes after `look` was called, unless that says that there was one already.
async fn atom_changed(client: &Arc<Client>, key: &Key, look: impl Future<Output = Result<bool>>) -> Result<()> {
    let bell = client.hub.listen(vec![(Table::Atoms, key.clone())], client.options.timeout).await?;
    if !look.await? {
        bell.rung().await?;
    }
    Ok(())
}
