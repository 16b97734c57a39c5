//! Whose a collection is.
//!
//! A namespace can be dropped under its clients, and be made anew by others. So that no request takes one for the other, each
//! collection but `<namespace>.meta` holds documents that name its realm:
//!
//! ```text
//! { _id: 0, of: <realm> }                    in values and atoms
//! { _id: 0 to 255, of: <realm>, r, n }       in refs, where they are the copies of the floor's revision as well
//! ```
//!
//! A collection that is dropped takes them along. A read brings one of them along, a commit has one among its conditions, and a
//! document is inserted behind one that fails:
//!
//! ```text
//! update   _id 0: fails unless it is of this realm | the document, if there is none
//! ```

use avout_core::protocol::Realm;
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::raw::{RawBson, cstr};
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};

use crate::client::Client;
use crate::schema::{self, Names, STRIPES, Use, bytes_of, dropped, incomplete, unavailable};
use crate::wire::bson::{majority, strange};
use crate::wire::request::{Failure, Requests, WriteErrors};

/// The id of the document that reads bring along.
pub(crate) const MARK: i32 = 0;

/// How often a collection is marked that others mark too.
const TRIES: u32 = 16;

const DUPLICATE_KEY: i32 = 11000;
const CONVERSION_FAILURE: i32 = 241;

/// Marks the collections of a namespace, which was found to be of this realm, where they are not marked yet. Any number of clients may
/// do this at once.
pub(crate) async fn mark_all(requests: &Requests<'_>, names: &Names, realm: Realm, wanted: Use) -> Result<()> {
    let refs = wanted.coordinator.then_some((&names.refs, STRIPES));
    // One after the other: a client that opens has one connection, and more would have to be made.
    for (collection, count) in [(&names.values, 1), (&names.atoms, 1)].into_iter().chain(refs) {
        if is_marked(requests, collection, count, realm).await? {
            continue;
        }
        if wanted.readonly {
            schema::check_realm(requests, names, realm).await.map_err(replaced)?;
            return Err(incomplete());
        }
        mark(requests, names, collection, count, realm).await?;
    }
    Ok(())
}

/// Marks are made from the first to the last.
async fn is_marked(requests: &Requests<'_>, collection: &str, count: i32, realm: Realm) -> Result<bool> {
    let ours = Bson::from(bytes_of(realm));
    let ends = marks(requests, collection, rawdoc! { "$in": [0, count - 1] }).await?;
    Ok(ends.len() == usize::from(count > 1) + 1 && ends.iter().all(|mark| mark.get("of") == Some(&ours)))
}

async fn mark(requests: &Requests<'_>, names: &Names, collection: &str, count: i32, realm: Realm) -> Result<()> {
    let ours = Bson::from(bytes_of(realm));
    for _ in 0..TRIES {
        let found = marks(requests, collection, rawdoc! { "$gte": 0, "$lt": count }).await?;
        let mut others: Vec<Option<Bson>> = Vec::new();
        for of in found.iter().map(|mark| mark.get("of").cloned()).filter(|of| of.as_ref() != Some(&ours)) {
            if !others.contains(&of) {
                others.push(of);
            }
        }
        let is_there = |id: i32| found.iter().any(|mark| mark.get_i32("_id").is_ok_and(|found| found == id));
        let missing: Vec<i32> = (0..count).filter(|id| !is_there(*id)).collect();
        if missing.is_empty() && others.is_empty() {
            return Ok(());
        }
        // What was found may be of a namespace that was made after this one: then it is left alone. If it is older, nobody
        // marks the collection with it again.
        schema::check_realm(requests, names, realm).await.map_err(replaced)?;
        let (mut documents, mut updates) = (RawArrayBuf::new(), RawArrayBuf::new());
        for id in missing {
            documents.push(rawdoc! { "_id": id, "of": bytes_of(realm) });
        }
        for other in others {
            let mut query = rawdoc! { "_id": { "$gte": 0, "$lt": count } };
            match other {
                Some(other) => query.append(cstr!("of"), RawBson::try_from(other).map_err(|_| strange())?),
                // The version before had no marks.
                None => query.append(cstr!("of"), rawdoc! { "$exists": false }),
            }
            updates.push(rawdoc! { "q": query, "u": { "$set": { "of": bytes_of(realm) } }, "multi": true });
        }
        write(requests, rawdoc! { "insert": collection, "documents": documents.clone() }, documents.is_empty()).await?;
        write(requests, rawdoc! { "update": collection, "updates": updates.clone() }, updates.is_empty()).await?;
    }
    Err(Error::new(ErrorKind::Unavailable, "other clients made the namespace at the same time, again and again"))
}

/// What others have written meanwhile is found by the next look.
async fn write(requests: &Requests<'_>, mut command: RawDocumentBuf, is_nothing: bool) -> Result<()> {
    if is_nothing {
        return Ok(());
    }
    command.append(cstr!("ordered"), false);
    command.append(cstr!("writeConcern"), majority());
    let reply = requests.run(command).await.map_err(|failure| failure.unapplied())?;
    match WriteErrors::of(&reply) {
        WriteErrors { write: Some(DUPLICATE_KEY), .. } => Ok(()),
        errors => errors.check().map_err(unavailable),
    }
}

/// While a namespace is opened, another one in its place is no loss.
pub(crate) fn replaced(error: Error) -> Error {
    match error.kind() {
        ErrorKind::StoreLost => {
            Error::new(ErrorKind::Unavailable, "the namespace was dropped or replaced while it was opened")
        }
        _ => error,
    }
}

async fn marks(requests: &Requests<'_>, collection: &str, ids: RawDocumentBuf) -> Result<Vec<Document>> {
    let find = rawdoc! {
        "find": collection, "filter": { "_id": ids }, "projection": { "of": 1 }, "batchSize": STRIPES, "singleBatch": true, "readConcern": { "level": "majority" },
    };
    let reply = requests.run(find).await.map_err(|failure| failure.unapplied())?;
    let batch =
        reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch")).map_err(|_| strange())?;
    Ok(batch.iter().filter_map(Bson::as_document).cloned().collect())
}

/// What became of a document that was to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Made,
    /// There was one, and it was changed.
    Found,
    /// There is one that the query does not select.
    Taken,
}

impl Client {
    /// Whether a document is the mark of a collection of this namespace.
    pub(crate) fn is_mark(&self, document: &Document) -> bool {
        document.get_i32("_id").is_ok_and(|id| id == MARK)
            && document.get("of") == Some(&Bson::from(bytes_of(self.realm)))
    }

    /// Takes the mark out of what was read of a collection.
    ///
    /// # Errors
    /// [`StoreLost`](ErrorKind::StoreLost): there is none, or it is another namespace's.
    pub(crate) fn unmarked(&self, documents: Vec<Document>) -> Result<Vec<Document>> {
        let count = documents.len();
        let others: Vec<_> = documents.into_iter().filter(|document| !self.is_mark(document)).collect();
        if others.len() == count { Err(dropped()) } else { Ok(others) }
    }

    /// The document of this id, as a majority has it.
    pub(crate) async fn find_one(&self, collection: &str, id: impl Into<RawBson>) -> Result<Option<Document>> {
        let id: RawBson = id.into();
        let command = rawdoc! {
            "find": collection, "filter": { "_id": { "$in": [MARK, id] } }, "projection": { "v": 0 }, "limit": 2,
            "singleBatch": true,
        };
        let mut reply = self.find(&command, "majority", None).await.map_err(Failure::unapplied)?;
        let cursor = reply.get_document_mut("cursor").map_err(|_| strange())?;
        let batch = std::mem::take(cursor.get_array_mut("firstBatch").map_err(|_| strange())?);
        let found = batch.into_iter().filter_map(|found| match found {
            Bson::Document(document) => Some(document),
            _ => None,
        });
        Ok(self.unmarked(found.collect())?.pop())
    }

    /// Makes the document that `query` names, or changes the one that it finds.
    ///
    /// # Errors
    /// Those of a write that takes effect by itself; [`StoreLost`](ErrorKind::StoreLost): the collection is not this namespace's
    /// any more, and nothing was written.
    pub(crate) async fn put_one(
        &self,
        collection: &str,
        query: RawDocumentBuf,
        change: RawDocumentBuf,
    ) -> Result<Outcome> {
        let mut updates = RawArrayBuf::new();
        updates.push(self.fails_unless_marked());
        updates.push(rawdoc! { "q": query, "u": change, "upsert": true });
        let command = rawdoc! { "update": collection, "updates": updates, "writeConcern": majority() };
        let reply = self.run(command).await.map_err(Failure::lost_write)?;
        match WriteErrors::of(&reply) {
            WriteErrors { write: Some(DUPLICATE_KEY), .. } => Ok(Outcome::Taken),
            WriteErrors { write: Some(CONVERSION_FAILURE), .. } => Err(dropped()),
            errors => {
                errors.check()?;
                Ok(if reply.contains_key("upserted") { Outcome::Made } else { Outcome::Found })
            }
        }
    }

    /// A part of an `update` that changes nothing if the collection is this namespace's. Otherwise it fails, and the parts after it
    /// are not done.
    fn fails_unless_marked(&self) -> RawDocumentBuf {
        let is_ours = rawdoc! { "$eq": ["$of", { "$literal": bytes_of(self.realm) }] };
        // It is no number.
        let fail = rawdoc! { "$toInt": { "$concat": ["not ", { "$toString": "$_id" }] } };
        let mut pipeline = RawArrayBuf::new();
        pipeline.push(rawdoc! { "$set": { "of": { "$cond": [is_ours, "$of", fail] } } });
        rawdoc! { "q": { "_id": MARK }, "u": pipeline, "upsert": true }
    }
}
