//! Chunks of atoms whose clients died before the atom's document named them.

use std::collections::{BTreeMap, BTreeSet};

use avout_core::Result;
use avout_core::protocol::Key;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::RawBson;
use mongodb::bson::{Document, RawArrayBuf, doc, rawdoc};

use super::values::ids;
use crate::client::Client;
use crate::wire::bson::{binary, majority, strange};
use crate::wire::request::{Failure, WriteErrors};

/// Removes them. What cannot be removed now is left to the next sweep.
pub(super) async fn sweep(client: &Client) {
    match remove_all(client).await {
        Ok(0) => {}
        Ok(count) => tracing::debug!(count, "removed states of atoms that were never finished"),
        Err(error) => tracing::debug!(%error, "states of atoms that were never finished were not removed"),
    }
}

async fn remove_all(client: &Client) -> Result<usize> {
    let mut states: BTreeMap<Key, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for id in ids(client, doc! { "_id": { "$gte": { "a": "" }, "$lt": { "b": "" } } }).await? {
        if let (Ok(key), Ok(token)) = (id.get_str("a"), id.get_binary_generic("t"))
            && let Ok(key) = Key::from_stored(key)
        {
            states.entry(key).or_default().insert(token.clone());
        }
    }
    let mut removed = 0;
    for (key, tokens) in &states {
        let atom = client.find_one(&client.names.atoms, key.as_str().to_owned()).await?;
        if tokens.iter().any(|token| !is_named(atom.as_ref(), token)) {
            removed += remove_of(client, key, tokens).await?;
        }
    }
    Ok(removed)
}

fn is_named(atom: Option<&Document>, token: &[u8]) -> bool {
    atom.is_some_and(|atom| atom.get_binary_generic("t").is_ok_and(|named| named.as_slice() == token))
}

/// Puts up a fence, after the chunks were listed: whoever has written one of them and has not named it yet finds it there, and writes
/// its chunks again. What the document names then stays.
async fn remove_of(client: &Client, key: &Key, tokens: &BTreeSet<Vec<u8>>) -> Result<usize> {
    let fenced = client.run(rawdoc! {
        "findAndModify": client.names.atoms.as_str(), "query": { "_id": key.as_str() },
        "update": { "$set": { "f": ObjectId::new() } }, "upsert": true, "new": true, "fields": { "t": 1 },
        "writeConcern": majority(),
    });
    let fenced = fenced.await.map_err(Failure::unapplied)?;
    WriteErrors::of(&fenced).check()?;
    let atom = fenced.get_document("value").map_err(|_| strange())?;
    let mut deletes = RawArrayBuf::new();
    let mut count = 0;
    for token in tokens.iter().filter(|token| !is_named(Some(atom), token)) {
        let first = rawdoc! { "a": key.as_str(), "t": binary(token.clone()) };
        let mut last = first.clone();
        last.append(mongodb::bson::raw::cstr!("i"), RawBson::MaxKey);
        deletes.push(rawdoc! { "q": { "_id": { "$gte": first, "$lt": last } }, "limit": 0 });
        count += 1;
    }
    if count > 0 {
        let command = rawdoc! { "delete": client.names.values.as_str(), "deletes": deletes };
        client.run(command).await.map_err(Failure::unapplied)?;
    }
    Ok(count)
}
