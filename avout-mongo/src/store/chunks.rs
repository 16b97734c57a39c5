//! States that are larger than one document, in chunks of the collection `<namespace>.values`.
//!
//! Chunks are written first, under a token that nobody else has, and then the one document that names the token. So a
//! state is there as a whole or not at all, and two writers never mix.

use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};

use crate::client::Client;
use crate::wire::bson::{binary, strange};

/// The bytes of a chunk, and the most that lie in the document itself. A document has at most 16 MiB.
pub(crate) const CHUNK: usize = 8 << 20;

/// The name of chunks: what they belong to, and a token.
pub(crate) struct Chunks {
    owner: RawDocumentBuf,
    pub(crate) token: Vec<u8>,
    pub(crate) count: i32,
}

impl Chunks {
    /// Those that a document names.
    pub(crate) fn named_by(owner: RawDocumentBuf, document: &Document) -> Result<Option<Self>> {
        let Ok(count) = document.get_i32("c") else { return Ok(None) };
        let token = document.get_binary_generic("t").map_err(|_| strange())?.clone();
        Ok(Some(Self { owner, token, count }))
    }

    fn id(&self, index: i32) -> RawDocumentBuf {
        let mut id = self.owner.clone();
        id.append(cstr!("t"), binary(self.token.clone()));
        id.append(cstr!("i"), index);
        id
    }

    /// Writes them.
    pub(crate) async fn write(client: &Client, owner: RawDocumentBuf, bytes: &Bytes) -> Result<Self> {
        let count = i32::try_from(bytes.len().div_ceil(CHUNK)).unwrap_or(i32::MAX);
        let chunks = Self { owner, token: rand::random::<[u8; 16]>().to_vec(), count };
        for (index, chunk) in bytes.chunks(CHUNK).enumerate() {
            let id = chunks.id(i32::try_from(index).unwrap_or(i32::MAX));
            let chunk = rawdoc! { "$setOnInsert": { "d": binary(chunk.to_vec()) } };
            // Nothing names them yet, so a lost reply is a failure and no more.
            client.put_one(&client.names.values, rawdoc! { "_id": id }, chunk).await.map_err(|error| {
                match error.kind() {
                    ErrorKind::StoreLost => error,
                    ErrorKind::OutcomeUnknown => unwritten(ErrorKind::Unavailable, error),
                    kind => unwritten(kind, error),
                }
            })?;
        }
        Ok(chunks)
    }

    /// Reads them; `None` if some are gone.
    pub(crate) async fn read(&self, client: &Client) -> Result<Option<Bytes>> {
        let mut bytes = Vec::new();
        for index in 0..self.count {
            let Some(mut document) = client.find_one(&client.names.values, self.id(index)).await? else {
                return Ok(None);
            };
            let Some(Bson::Binary(chunk)) = document.remove("d") else { return Err(strange()) };
            bytes.extend_from_slice(&chunk.bytes);
        }
        Ok(Some(bytes.into()))
    }

    /// Removes them. What cannot be removed stays, and harms nobody.
    pub(crate) async fn remove(&self, client: &Client) {
        let mut deletes = RawArrayBuf::new();
        for index in 0..self.count {
            deletes.push(rawdoc! { "q": { "_id": self.id(index) }, "limit": 1 });
        }
        let command = rawdoc! { "delete": client.names.values.as_str(), "deletes": deletes };
        if client.run(command).await.is_err() {
            tracing::debug!("chunks of a value that is no longer used were not removed");
        }
    }
}

fn unwritten(kind: ErrorKind, error: Error) -> Error {
    Error::new(kind, "a part of the value could not be written").with_source(error)
}
