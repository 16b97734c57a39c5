use avout_core::Result;
use avout_core::protocol::{Key, Revision, State};
use mongodb::bson::raw::{RawBson, cstr};
use mongodb::bson::{Bson, RawDocumentBuf, rawdoc};

use super::chunks::{CHUNK, Chunks};
use super::documents;
use crate::client::Client;
use crate::revisions::revision_bytes;
use crate::wire::bson::{binary, strange};

/// A state that is ready to be put into an atom's document.
pub(super) struct Ready {
    pub(super) revision: Revision,
    pub(super) fields: RawDocumentBuf,
    chunks: Option<Chunks>,
    /// The fence that there was before the chunks were written.
    fence: Option<Bson>,
}

impl Ready {
    /// Writes the chunks of a state, if it has some.
    pub(super) async fn new(client: &Client, key: &Key, value: &State) -> Result<Self> {
        client.usable()?;
        let bytes = client.stores.bytes_of(value.clone())?;
        let revision = Revision::number(first_half(client) | u128::from(rand::random::<u64>()));
        let mut fields = rawdoc! { "r": revision_bytes(&revision) };
        if bytes.len() <= CHUNK {
            fields.append(cstr!("d"), binary(bytes.to_vec()));
            documents::append(&mut fields, client.options.documents, &bytes)?;
            return Ok(Self { revision, fields, chunks: None, fence: None });
        }
        documents::check_size(client.options.documents)?;
        let atom = client.find_one(&client.names.atoms, key.as_str().to_owned()).await?;
        let fence = atom.and_then(|atom| atom.get("f").cloned());
        let chunks = Chunks::write(client, owner(key), &bytes).await?;
        fields.append(cstr!("t"), binary(chunks.token.clone()));
        fields.append(cstr!("c"), chunks.count);
        Ok(Self { revision, fields, chunks: Some(chunks), fence })
    }

    /// Chunks are named only as long as there is the fence that there was before they were written.
    pub(super) fn add_fence(&self, query: &mut RawDocumentBuf) -> Result<()> {
        match (&self.chunks, &self.fence) {
            (None, _) => {}
            (Some(_), None) => query.append(cstr!("f"), rawdoc! { "$exists": false }),
            (Some(_), Some(fence)) => {
                query.append(cstr!("f"), RawBson::try_from(fence.clone()).map_err(|_| strange())?)
            }
        }
        Ok(())
    }

    /// Whether it cannot be put anywhere any more, since there is another fence.
    pub(super) fn is_fenced(&self, fence: Option<&Bson>) -> bool {
        self.chunks.is_some() && fence != self.fence.as_ref()
    }

    /// After a write that surely did not happen.
    pub(super) async fn give_up(&self, client: &Client) {
        if let Some(chunks) = &self.chunks {
            chunks.remove(client).await;
        }
    }
}

/// What the chunks of an atom belong to.
pub(super) fn owner(key: &Key) -> RawDocumentBuf {
    rawdoc! { "a": key.as_str() }
}

fn first_half(client: &Client) -> u128 {
    client.realm.number() >> 64 << 64
}

/// The revisions that are of this namespace.
pub(super) fn ours(client: &Client) -> RawBson {
    let first = first_half(client);
    let [least, most] = [first, first | u128::from(u64::MAX)].map(|number| revision_bytes(&Revision::number(number)));
    RawBson::Document(rawdoc! { "$gte": least, "$lte": most })
}
