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

use avout_core::backend::history::Known;
use avout_core::protocol::{Entry, Key, Point, Record, Snapshot};
use avout_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use mongodb::bson::{Bson, Document, RawArrayBuf, rawdoc};

use crate::client::{Client, MAX_RECORD};
use crate::eras::{Beat, ERA, enter};
use crate::revisions::{bound, revision_of};
use crate::wire::bson::{point, strange};
use crate::wire::request::Failure;

/// From this size on a reply may have been cut to MongoDB's 16 MiB.
const MAY_BE_CUT: usize = (16 << 20) - MAX_RECORD - (2 << 20);

const INVALID_OPTIONS: i32 = 72;
const BAD_VALUE: i32 = 2;
const SNAPSHOT_TOO_OLD: i32 = 239;
const SNAPSHOT_UNAVAILABLE: i32 = 246;

/// Reads the entries of `keys` in one snapshot: one request, and more only where they are larger than one reply.
pub(crate) async fn read(client: &Client, keys: &[Key], at: Option<Point>) -> Result<Snapshot> {
    client.usable()?;
    // `None`: not answered yet, or absent.
    let mut found: HashMap<&str, Option<Entry>> = keys.iter().map(|key| (key.as_str(), None)).collect();
    let mut taken = None;
    let known = client.progress.history.known();
    let mut beat = None;
    loop {
        let mut ids = RawArrayBuf::new();
        found.iter().filter(|(_, entry)| entry.is_none()).for_each(|(id, _)| ids.push(*id));
        if taken.is_none() {
            ids.push(ERA);
        }
        let command = rawdoc! {
            "find": client.names.refs.as_str(), "filter": { "_id": { "$in": ids }, "r": { "$exists": true } },
            "projection": { "r": 1, "d": 1, "beat": 1 }, "batchSize": keys.len() as i64 + 2, "singleBatch": true,
        };
        let reply = client.find(&command, "snapshot", taken.or(at)).await;
        let mut reply = reply.map_err(|failure| refused(failure, at.is_some()))?;
        let cursor = reply.get_document_mut("cursor").map_err(|_| strange())?;
        let Ok(now) = cursor.get_timestamp("atClusterTime").map(point) else {
            // There is no such collection.
            client.check_realm().await?;
            return Err(strange());
        };
        taken = Some(now);
        let batch = std::mem::take(cursor.get_array_mut("firstBatch").map_err(|_| strange())?);
        let mut bytes = 0;
        for document in batch {
            let Bson::Document(document) = document else { return Err(strange()) };
            if document.get_i32("_id").is_ok_and(|id| id == ERA) {
                beat = Some(Beat::of(&document).ok_or_else(strange)?);
                continue;
            }
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
    if at.is_none() {
        compare(client, known, beat).await?;
    }
    let entries = keys.iter().map(|key| found.get(key.as_str()).cloned().flatten()).collect();
    Ok(Snapshot { point, entries })
}

/// Compares what a read brings along with what was known before it was sent.
async fn compare(client: &Client, known: Known, beat: Option<Beat>) -> Result<()> {
    let progress = &client.progress;
    match beat {
        Some(Beat { era, beat }) if era == known.era && beat < known.seen => {
            progress.history.went_back(era, known.seen, beat);
        }
        Some(Beat { era, beat }) if era == progress.history.known().era => {
            progress.beat(era, beat);
            return Ok(());
        }
        // It is another client's.
        Some(_) => {}
        None => client.check_realm().await?,
    }
    enter(&client.requests(), progress, &client.names, None).await.map(drop).map_err(Failure::unapplied)
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
