//! The keys that there are.

use avout_core::Result;
use avout_core::backend::Page;
use avout_core::protocol::Key;
use futures_util::TryStreamExt as _;
use mongodb::bson::{Document, RawArrayBuf, doc, rawdoc};
use mongodb::options::ReadConcern;

use crate::client::Client;
use crate::marks::MARK;
use crate::wire::request::{Failure, bounded};

/// How many documents one request lists.
const DOCUMENTS: usize = Page::SIZE;

/// A page of the keys that have a record and are `prefix` or lie under it. Whoever lists all, as each sweep does, removes what checks of
/// absent keys have left.
pub(crate) async fn list(client: &Client, prefix: &Key, after: Option<&Key>) -> Result<Page> {
    let listed = keys(client, &client.names.refs, prefix, after).await?;
    if *prefix == Key::root() && !listed.more {
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

/// A page of the keys of a collection whose documents have them as id, and a revision. MongoDB compares strings byte by byte, as [`Key`]
/// does. What lies under `/a` is between `/a/` and `/a0`, the next text that has not `/a/` in front.
pub(crate) async fn keys(client: &Client, collection: &str, prefix: &Key, after: Option<&Key>) -> Result<Page> {
    let (key, folder) = (prefix.as_str(), prefix.as_str().trim_end_matches('/'));
    let (first, end) = (format!("{folder}/"), format!("{folder}0"));
    let select = |after: Option<&str>| {
        let under = doc! { "_id": { "$gt": after.map_or(&*first, |after| after.max(&first)), "$lt": &*end } };
        let mut filter = match after.is_none_or(|after| after < key) {
            true => doc! { "$or": [{ "_id": key }, under] },
            false => under,
        };
        filter.insert("r", doc! { "$exists": true });
        filter
    };
    page(client, collection, select, |document| document.get_str("_id").ok(), after).await
}

/// A page of keys, which `key` finds in the documents that `select` selects behind a text. A document without one is skipped: nobody can
/// name it, so nobody misses it.
pub(crate) async fn page(
    client: &Client,
    collection: &str,
    select: impl Fn(Option<&str>) -> Document,
    key: impl Fn(&Document) -> Option<&str>,
    after: Option<&Key>,
) -> Result<Page> {
    let mut after = after.map(|key| key.as_str().to_owned());
    loop {
        let documents = listed(client, collection, select(after.as_deref()), DOCUMENTS).await?;
        let last = documents.iter().rev().find_map(&key).map(str::to_owned);
        let more = documents.len() >= DOCUMENTS && last.is_some();
        let mut keys: Vec<Key> = documents.iter().filter_map(|id| Key::from_stored(key(id)?).ok()).collect();
        keys.sort_unstable();
        keys.dedup();
        if !keys.is_empty() || !more {
            return Ok(Page { keys, more });
        }
        after = last;
    }
}

/// The first documents of a collection that `filter` selects, in the order of their ids and with the ids alone, if the collection is still
/// this namespace's. `limit` 0: all.
pub(crate) async fn listed(client: &Client, collection: &str, filter: Document, limit: usize) -> Result<Vec<Document>> {
    client.usable()?;
    // The mark comes first: numbers do so.
    let limit = if limit == 0 { 0 } else { i64::try_from(limit + 1).unwrap_or(0) };
    let collection = client.database.collection::<Document>(collection);
    let find = collection.find(doc! { "$or": [{ "_id": MARK }, filter] }).projection(doc! { "_id": 1, "of": 1 });
    let find = find.sort(doc! { "_id": 1 }).limit(limit).read_concern(ReadConcern::majority());
    let all = async {
        let documents: Vec<Document> = find.await?.try_collect().await?;
        mongodb::error::Result::Ok(documents)
    };
    let documents = bounded(client.options.timeout.saturating_mul(6), all).await.map_err(Failure::unapplied)?;
    client.unmarked(documents)
}
