//! The documents of `<namespace>.refs`, and reading them.
//!
//! ```text
//! { _id: <key>, r: <revision>, at: <timestamp>, d: <record>, n: <number> }
//! ```
//!
//! `n` counts the commits that checked the key and did not write it: MongoDB's transactions notice only writes of
//! others, so a check is a write too, of a field that is in no revision. A document without `r` is an absent key that
//! somebody checked.

use std::collections::HashMap;
use std::sync::Arc;

use avout_core::protocol::{Entry, Key, Point, Record, Revision, Snapshot};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, RawArrayBuf, doc, rawdoc};
use mongodb::options::ReadConcern;

use crate::client::{Client, Failure, MAX_RECORD, bounded, point};
use crate::schema;

/// From this size on a reply may have been cut to MongoDB's 16 MiB.
const MAY_BE_CUT: usize = (16 << 20) - MAX_RECORD - (2 << 20);

const INVALID_OPTIONS: i32 = 72;
const BAD_VALUE: i32 = 2;
const SNAPSHOT_TOO_OLD: i32 = 239;
const SNAPSHOT_UNAVAILABLE: i32 = 246;

/// A revision: a bound for the point of the commit that made it, which nobody knows before, and a random number that
/// makes it unique.
pub(crate) fn revision(bound: Point) -> Revision {
    Revision::number(u128::from(bound.number()) << 64 | u128::from(rand::random::<u64>()))
}

/// The bound in a revision.
pub(crate) fn bound(revision: &Revision) -> Option<Point> {
    let number = revision.as_number()? >> 64;
    u64::try_from(number).ok().map(Point::new)
}

/// A revision as bytes. One that is not ours gives some that no document has.
pub(crate) fn revision_bytes(revision: &Revision) -> Binary {
    let bytes = revision.as_number().map(|number| number.to_be_bytes().to_vec()).unwrap_or_default();
    binary(bytes)
}

pub(crate) fn binary(bytes: Vec<u8>) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes }
}

/// A revision that was read.
pub(crate) fn revision_of(document: &Document) -> Option<Revision> {
    let bytes = document.get_binary_generic("r").ok()?;
    Some(Revision::number(u128::from_be_bytes(bytes.as_slice().try_into().ok()?)))
}

/// Reads the entries of `keys` in one snapshot: one request, and more only where they are larger than one reply.
pub(crate) async fn read(client: &Client, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
    client.usable()?;
    // `None`: not answered yet, or absent.
    let mut found: HashMap<&str, Option<Entry>> = keys.iter().map(|key| (key.as_str(), None)).collect();
    let mut taken = None;
    loop {
        let mut ids = RawArrayBuf::new();
        found.iter().filter(|(_, entry)| entry.is_none()).for_each(|(id, _)| ids.push(*id));
        let command = rawdoc! {
            "find": client.names.refs.as_str(), "filter": { "_id": { "$in": ids }, "r": { "$exists": true } },
            "projection": { "r": 1, "d": 1 }, "batchSize": keys.len() as i64 + 1, "singleBatch": true,
        };
        let reply = client.find(&command, "snapshot", taken.or(at)).await;
        let mut reply = reply.map_err(|failure| refused(failure, at.is_some()))?;
        let cursor = reply.get_document_mut("cursor").map_err(|_| strange())?;
        let Ok(now) = cursor.get_timestamp("atClusterTime").map(point) else {
            // There is no such collection.
            schema::check_realm(client).await?;
            return Err(strange());
        };
        taken = Some(now);
        let batch = std::mem::take(cursor.get_array_mut("firstBatch").map_err(|_| strange())?);
        let mut bytes = 0;
        for document in batch {
            let Bson::Document(document) = document else { return Err(strange()) };
            bytes += document.get_binary_generic("d").map_or(0, Vec::len) + 1024;
            let place = document.get_str("_id").ok().and_then(|id| found.get_key_value(id)).map(|(id, _)| *id);
            let entry = decode(document).map_err(|error| match place.map(Key::from_stored) {
                Some(Ok(key)) => error.at(&key),
                _ => error,
            })?;
            found.insert(place.ok_or_else(strange)?, Some(entry));
        }
        if bytes < MAY_BE_CUT {
            break;
        }
    }
    let point = taken.ok_or_else(strange)?;
    client.saw(point);
    let entries = keys.iter().map(|key| found.get(key.as_str()).cloned().flatten()).collect();
    Ok(Snapshot { point, entries })
}

fn decode(mut document: Document) -> Result<Entry> {
    let corrupt = || Error::new(ErrorKind::Corrupt, "its document is not as avout wrote it");
    let revision = revision_of(&document).ok_or_else(corrupt)?;
    let point = bound(&revision).ok_or_else(corrupt)?;
    let Some(Bson::Binary(record)) = document.remove("d") else { return Err(corrupt()) };
    let record = Arc::new(Record::decode(&Bytes::from(record.bytes))?);
    Ok(Entry { revision, point, record })
}

/// Why a read was refused. With a point of its own, that may be out of the server's window.
fn refused(failure: Failure, chosen: bool) -> Error {
    match failure.code() {
        Some(SNAPSHOT_TOO_OLD | SNAPSHOT_UNAVAILABLE | INVALID_OPTIONS | BAD_VALUE) if chosen => {
            Error::new(ErrorKind::TooOld, "the servers no longer hold that point: take a new one")
        }
        // It was asked for what is not before the last point that this client has seen.
        Some(INVALID_OPTIONS) => {
            let message = "the servers' log ends before what this client has seen of it: open the namespace anew";
            Error::new(ErrorKind::StoreLost, message)
        }
        Some(SNAPSHOT_UNAVAILABLE) => Error::new(ErrorKind::Unavailable, "the server has no snapshot just now"),
        _ => failure.unapplied(),
    }
}

pub(crate) fn strange() -> Error {
    Error::new(ErrorKind::Corrupt, "the reply is not what a MongoDB server answers")
}

/// What selects the ids that are `prefix` or lie under it. MongoDB compares strings byte by byte, as [`Key`] does. What
/// lies under `/a` is between `/a/` and `/a0`, the next text that has not `/a/` in front.
pub(crate) fn under(field: &str, prefix: &Key) -> Document {
    let folder = prefix.as_str().trim_end_matches('/');
    doc! { "$or": [
        { field: prefix.as_str() },
        { field: { "$gt": format!("{folder}/"), "$lt": format!("{folder}0") } },
    ] }
}

/// The keys that have a record and are `prefix` or lie under it, sorted.
pub(crate) async fn list(client: &Client, prefix: &Key) -> Result<Vec<Key>> {
    keys(client, &client.names.refs, prefix).await
}

/// The keys of a collection whose documents have them as id, and a revision.
pub(crate) async fn keys(client: &Client, collection: &str, prefix: &Key) -> Result<Vec<Key>> {
    client.usable()?;
    let collection = client.database.collection::<Document>(collection);
    let mut filter = under("_id", prefix);
    filter.insert("r", doc! { "$exists": true });
    let find = collection.find(filter).projection(doc! { "_id": 1 }).read_concern(ReadConcern::majority());
    let all = async {
        let documents: Vec<Document> = find.await?.try_collect().await?;
        mongodb::error::Result::Ok(documents)
    };
    let documents = bounded(client.options.timeout.saturating_mul(6), all).await.map_err(Failure::unapplied)?;
    Ok(sorted(documents.iter().map(|document| document.get_str("_id").ok())))
}

/// Ids as keys. One that is none is skipped: nobody can name it, so nobody misses it.
pub(crate) fn sorted<'a>(ids: impl Iterator<Item = Option<&'a str>>) -> Vec<Key> {
    let mut keys: Vec<Key> = ids.filter_map(|id| Key::from_stored(id?).ok()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
