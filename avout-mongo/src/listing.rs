//! The keys that there are.

use avout_core::Result;
use avout_core::protocol::Key;
use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, RawArrayBuf, doc, rawdoc};
use mongodb::options::ReadConcern;

use crate::client::Client;
use crate::marks::MARK;
use crate::wire::request::{Failure, bounded};

/// What selects the ids that are `prefix` or lie under it. MongoDB compares strings byte by byte, as [`Key`] does. What
/// lies under `/a` is between `/a/` and `/a0`, the next text that has not `/a/` in front.
pub(crate) fn under(field: &str, prefix: &Key) -> Document {
    let folder = prefix.as_str().trim_end_matches('/');
    doc! { "$or": [
        { field: prefix.as_str() },
        { field: { "$gt": format!("{folder}/"), "$lt": format!("{folder}0") } },
    ] }
}

/// The keys that have a record and are `prefix` or lie under it, sorted. Whoever lists all, as each sweep does, removes what checks of
/// absent keys have left.
pub(crate) async fn list(client: &Client, prefix: &Key) -> Result<Vec<Key>> {
    let listed = keys(client, &client.names.refs, prefix).await?;
    if *prefix == Key::root() {
        forget_absent(client).await;
    }
    Ok(listed)
}

/// Removes the documents of absent keys. A transaction that has written one of them, or has seen that there is none, and one that removes it
/// conflict as any two writers of a document do. So a check that is under way stays one. What cannot be removed now is left to the
/// next sweep.
async fn forget_absent(client: &Client) {
    let mut deletes = RawArrayBuf::new();
    deletes.push(rawdoc! { "q": { "_id": { "$type": "string" }, "r": { "$exists": false } }, "limit": 0 });
    let most = i64::try_from(client.options.timeout.as_millis() / 2).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX));
    let command = rawdoc! { "delete": client.names.refs.as_str(), "deletes": deletes, "maxTimeMS": most };
    match client.run(command).await {
        Ok(reply) => tracing::debug!(count = reply.get_i32("n").ok(), "removed the documents of absent keys"),
        Err(failure) => tracing::debug!(code = failure.code(), "documents of absent keys were not removed"),
    }
}

/// The keys of a collection whose documents have them as id, and a revision.
pub(crate) async fn keys(client: &Client, collection: &str, prefix: &Key) -> Result<Vec<Key>> {
    let mut filter = under("_id", prefix);
    filter.insert("r", doc! { "$exists": true });
    let documents = listed(client, collection, filter).await?;
    Ok(sorted(documents.iter().map(|document| document.get_str("_id").ok())))
}

/// The documents that a filter selects, with their ids alone, if the collection is still this namespace's.
pub(crate) async fn listed(client: &Client, collection: &str, filter: Document) -> Result<Vec<Document>> {
    client.usable()?;
    let collection = client.database.collection::<Document>(collection);
    let filter = doc! { "$or": [{ "_id": MARK }, filter] };
    let find = collection.find(filter).projection(doc! { "_id": 1, "of": 1 }).read_concern(ReadConcern::majority());
    let all = async {
        let documents: Vec<Document> = find.await?.try_collect().await?;
        mongodb::error::Result::Ok(documents)
    };
    let documents = bounded(client.options.timeout.saturating_mul(6), all).await.map_err(Failure::unapplied)?;
    client.unmarked(documents)
}

/// Ids as keys. One that is none is skipped: nobody can name it, so nobody misses it.
pub(crate) fn sorted<'a>(ids: impl Iterator<Item = Option<&'a str>>) -> Vec<Key> {
    let mut keys: Vec<Key> = ids.filter_map(|id| Key::from_stored(id?).ok()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}
