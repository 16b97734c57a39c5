//! The documents of `<namespace>.values`.
//!
//! ```text
//! { _id: { k: <key>, v: <version> }, d: <state> }                              up to 8 MiB
//! { _id: { k: <key>, v: <version> }, t: <token>, c: <number of chunks> }
//! { _id: { k: <key>, v: <version>, t: <token>, i: <index> }, d: <chunk> }
//! { _id: { a: <key>, t: <token>, i: <index> }, d: <chunk> }                    of an atom's state
//! ```
//!
//! Chunks whose client died before it wrote the document that names them are listed as their version, so that a sweep removes them.
//!
//! Documents are compared field by field, and one that ends earlier comes first. So what belongs to a key, or to a
//! version, is a range of ids.

use std::sync::Arc;

use async_trait::async_trait;
use avout_core::backend::{Page, VersionedStateContainer};
use avout_core::protocol::{Key, State, Version};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use mongodb::bson::raw::{RawBson, cstr};
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc, rawdoc};

use super::chunks::{CHUNK, Chunks};
use super::documents;
use crate::client::Client;
use crate::listing::{listed, page};
use crate::marks::Outcome;
use crate::wire::bson::{binary, majority, strange};
use crate::wire::request::WriteErrors;

/// How many values one request deletes: each takes up to about a kilobyte of it.
const MAX_DELETES: usize = 1000;

pub(crate) struct Values {
    client: Arc<Client>,
    key: Key,
}

impl Values {
    pub(crate) fn new(client: &Arc<Client>, key: &Key) -> Self {
        Self { client: Arc::clone(client), key: key.clone() }
    }

    fn at(&self, operation: &'static str) -> impl Fn(Error) -> Error {
        let key = self.key.clone();
        move |error| error.at(&key).during(operation)
    }

    fn id(&self, version: &Version) -> RawDocumentBuf {
        id(&self.key, version)
    }

    async fn read(&self, version: &Version) -> Result<Option<Bytes>> {
        self.client.usable()?;
        let mut missing = false;
        loop {
            let Some(mut document) = self.client.find_one(&self.client.names.values, self.id(version)).await? else {
                return Ok(None);
            };
            let Some(chunks) = Chunks::named_by(self.id(version), &document)? else {
                let Some(Bson::Binary(state)) = document.remove("d") else { return Err(strange()) };
                return Ok(Some(state.bytes.into()));
            };
            if let Some(bytes) = chunks.read(&self.client).await? {
                return Ok(Some(bytes));
            }
            // The version was deleted meanwhile; then its own document is gone too, which goes first.
            if std::mem::replace(&mut missing, true) {
                return Err(Error::new(ErrorKind::Corrupt, "parts of the value are missing"));
            }
        }
    }

    async fn write(&self, version: &Version, value: State) -> Result<()> {
        self.client.usable()?;
        let bytes = self.client.stores.bytes_of(value)?;
        let mut document = RawDocumentBuf::new();
        let mut chunks = None;
        if bytes.len() <= CHUNK {
            document.append(cstr!("d"), binary(bytes.to_vec()));
            documents::append(&mut document, self.client.options.documents, &bytes)?;
        } else {
            documents::check_size(self.client.options.documents)?;
            let written = Chunks::write(&self.client, self.id(version), &bytes).await?;
            document.append(cstr!("t"), binary(written.token.clone()));
            document.append(cstr!("c"), written.count);
            chunks = Some(written);
        }
        let query = rawdoc! { "_id": self.id(version) };
        let put = self.client.put_one(&self.client.names.values, query, rawdoc! { "$setOnInsert": document }).await;
        if put.map_err(repeatable)? == Outcome::Made {
            return Ok(());
        }
        if let Some(chunks) = chunks {
            chunks.remove(&self.client).await;
        }
        // What is read here is what a majority has, so it is as good as written.
        match self.read(version).await? {
            Some(found) if found == bytes => Ok(()),
            Some(_) => {
                let message = "the version has another value already; versions are unique";
                Err(Error::new(ErrorKind::AlreadyExists, message))
            }
            None => Err(Error::new(ErrorKind::Unavailable, "the value is being written or deleted by somebody else")),
        }
    }
}

/// The name of a value.
fn id(key: &Key, version: &Version) -> RawDocumentBuf {
    rawdoc! { "k": key.as_str(), "v": binary(version.encode().to_vec()) }
}

/// The names of a value and all its chunks.
fn ids_of(key: &Key, version: &Version) -> RawDocumentBuf {
    let mut last = id(key, version);
    last.append(cstr!("t"), RawBson::MaxKey);
    rawdoc! { "$gte": id(key, version), "$lt": last }
}

/// Deletes the documents with these ids, in one request.
async fn delete(client: &Client, ids: impl Iterator<Item = RawDocumentBuf>) -> Result<()> {
    client.usable()?;
    let mut deletes = RawArrayBuf::new();
    ids.for_each(|ids| deletes.push(rawdoc! { "q": { "_id": ids }, "limit": 0 }));
    let command = rawdoc! {
        "delete": client.names.values.as_str(), "deletes": deletes, "ordered": false, "writeConcern": majority(),
    };
    let reply = client.run(command).await.map_err(|failure| failure.unapplied())?;
    WriteErrors::of(&reply).check().map_err(repeatable)
}

/// Deletes values.
pub(crate) async fn delete_all(client: &Client, values: &[(Key, Version)]) -> Result<()> {
    for values in values.chunks(MAX_DELETES) {
        delete(client, values.iter().map(|(key, version)| ids_of(key, version))).await?;
    }
    Ok(())
}

/// An outcome that stays open is harmless here: all may be repeated.
fn repeatable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::OutcomeUnknown => {
            Error::new(ErrorKind::Unavailable, "it is not known to be done").with_source(error)
        }
        _ => error,
    }
}

#[async_trait]
impl VersionedStateContainer for Values {
    async fn init(&self) -> Result<()> {
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let key = self.key.as_str();
        let ids = rawdoc! { "$gte": { "k": key }, "$lt": { "k": key, "v": RawBson::MaxKey } };
        delete(&self.client, [ids].into_iter()).await.map_err(self.at("destroy"))
    }

    async fn state_at(&self, version: &Version) -> Result<Option<State>> {
        let found = self.read(version).await.map_err(self.at("state at"))?;
        Ok(found.map(State::Bytes))
    }

    async fn set_state_at(&self, version: &Version, value: State) -> Result<()> {
        self.write(version, value).await.map_err(self.at("set state at"))
    }

    async fn delete_state_at(&self, version: &Version) -> Result<()> {
        delete(&self.client, [ids_of(&self.key, version)].into_iter()).await.map_err(self.at("delete state at"))
    }

    async fn versions(&self) -> Result<Vec<Version>> {
        let key = self.key.as_str();
        let range = doc! { "$gte": { "k": key }, "$lt": { "k": key, "v": Bson::MaxKey } };
        let read = async {
            let ids = ids(&self.client, doc! { "_id": range }).await?;
            let version = |id: &Document| Version::decode(id.get_binary_generic("v").map_err(|_| strange())?);
            let mut versions: Vec<Version> = ids.iter().map(version).collect::<Result<_>>()?;
            versions.sort_unstable();
            versions.dedup();
            Ok(versions)
        };
        read.await.map_err(self.at("versions"))
    }
}

pub(super) async fn ids(client: &Client, filter: Document) -> Result<Vec<Document>> {
    let documents = listed(client, &client.names.values, filter, 0).await?;
    Ok(documents.into_iter().filter_map(|document| document.get_document("_id").ok().cloned()).collect())
}

/// A page of the keys that have values, or parts of such that were never finished, and are `prefix` or lie under it.
pub(crate) async fn keys(client: &Client, prefix: &Key, after: Option<&Key>) -> Result<Page> {
    let (key, folder) = (prefix.as_str(), prefix.as_str().trim_end_matches('/'));
    let (first, end) = (format!("{folder}/"), format!("{folder}0"));
    let select = |after: Option<&str>| {
        let under = match after.filter(|after| **after > *first) {
            Some(after) => doc! { "_id": { "$gt": { "k": after, "v": Bson::MaxKey }, "$lt": { "k": &*end } } },
            None => doc! { "_id": { "$gt": { "k": &*first }, "$lt": { "k": &*end } } },
        };
        match after.is_none_or(|after| after < key) {
            true => {
                doc! { "$or": [{ "_id": { "$gte": { "k": key }, "$lt": { "k": key, "v": Bson::MaxKey } } }, under] }
            }
            false => under,
        }
    };
    page(client, &client.names.values, select, |id| id.get_document("_id").ok()?.get_str("k").ok(), after).await
}
