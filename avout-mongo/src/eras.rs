//! Whether the servers' history is the one that this client has seen.
//!
//! What a majority has acknowledged outlives failovers and restarts. An older copy of the data that is put back does not have it,
//! and looks the same. So the namespace is divided into eras, in one document of `<namespace>.refs`:
//!
//! ```text
//! { _id: -1, r: <number and id>, process: <the primary's process>, beat: <point>, earlier: [{ r, beat }, ..] }
//! ```
//!
//! An older copy can only come under a server that is started anew. So whoever meets a primary of another process than the era
//! was begun under begins a new one, before it uses any reply, and notes how far the one before went. That is told by the beat:
//! about each second, and first in each era, a commit writes its bound there. Every read brings era and beat along.
//!
//! ```text
//! A    reads beat 7 | stopped
//! data                      put back: beat 5
//! B                                   another process: begins an era, the one before ended at 5 | commits
//! A                                                                                                 reads: 5 < 7, a loss
//! ```
//!
//! Of what came after the last beat an older copy tells nothing. So a client whose own last commit came after it looks for that one: if
//! the record of its slot is older, the commit is lost.
//!
//! A client that only reads begins no era. It stays in the one that it finds until somebody who writes begins the next, and compares
//! beats meanwhile, after a read that all acknowledged commits precede.
//!
//! A server's process is asked for when a connection was made, and when the term of the primary changes. A connection that was
//! there before leads to the process that it led to before.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use avout_core::backend::history::{Entered, Era, Survived};
use avout_core::backend::tasks;
use avout_core::protocol::Point;
use avout_core::{Error, ErrorKind};
use mongodb::bson::oid::ObjectId;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Binary, Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};

use crate::current::{linearizable, saw_time, term};
use crate::progress::{Own, Progress};
use crate::revisions::{bound, revision_of};
use crate::schema::{self, Names, incomplete, unavailable};
use crate::wire::bson::{binary, majority, strange};
use crate::wire::request::{Failure, Requests, WriteErrors};

/// The id of the document of eras.
pub(crate) const ERA: i32 = -1;

/// How many earlier eras the document names. A client that was away for more of them is not told of a loss in those.
const NAMED: i32 = 256;

const DUPLICATE_KEY: i32 = 11000;

/// How often an era is begun that others begin too.
const TRIES: u32 = 16;

/// What a read brings along.
pub(crate) struct Beat {
    pub(crate) era: Era,
    pub(crate) beat: u64,
}

impl Beat {
    pub(crate) fn of(document: &Document) -> Option<Self> {
        let era = era_of(document)?;
        Some(Self { era, beat: u64::try_from(document.get_i64("beat").ok()?).ok()? })
    }
}

fn era_of(document: &Document) -> Option<Era> {
    let bytes: &[u8; 16] = document.get_binary_generic("r").ok()?.as_slice().try_into().ok()?;
    let (number, id) = bytes.split_first_chunk::<8>()?;
    Some(Era { number: u32::try_from(u64::from_be_bytes(*number)).ok()?, id: id.try_into().ok()? })
}

fn bytes_of(era: Era) -> Binary {
    binary([&u64::from(era.number).to_be_bytes()[..], &era.id].concat())
}

/// The part of a commit that is a beat: it holds in its era only.
pub(crate) fn beat(era: Era, bound: Point) -> (RawDocumentBuf, RawDocumentBuf) {
    let bound = i64::try_from(bound.number()).unwrap_or(i64::MAX);
    (rawdoc! { "_id": ERA, "r": bytes_of(era) }, rawdoc! { "$max": { "beat": bound } })
}

/// Asks which process the primary is, unless that is known. If it is another one the history is compared with what this client has
/// seen, a loss is reported, and nothing that was answered before is to be used. `again`: whatever is known.
///
/// One asks for all. That runs in a task of the library's own, so that a caller that is not polled any more holds up no other.
///
/// # Cancel safety
/// Safe: the task ends within the time that its requests may take.
pub(crate) async fn prove(
    requests: &Requests<'_>,
    progress: &Arc<Progress>,
    names: &Arc<Names>,
    again: bool,
) -> Result<(), Failure> {
    let (database, timeout) = (requests.database.clone(), requests.timeout);
    let (progress, names) = (Arc::clone(progress), Arc::clone(names));
    // An answer is good for whoever had one of these before it was asked for.
    let (known, needed) = (progress.term(), progress.signs.connections());
    let asking = tasks::connections().spawn(async move {
        let requests = Requests { database: &database, timeout };
        ask(&requests, &progress, &names, again.then_some(known), needed).await
    });
    match tasks::request(async { tokio::time::timeout(timeout, asking).await }).await {
        Ok(Ok(proven)) => proven,
        Ok(Err(_)) => Err(Failure::Other(Error::new(ErrorKind::Unavailable, "the task that asked ended early"))),
        Err(_) => Err(Failure::Late),
    }
}

/// Asks, unless another one has meanwhile, when there were as many connections as are `needed`. `known`: the term that was known, whose
/// primary has been replaced.
async fn ask(
    requests: &Requests<'_>,
    progress: &Progress,
    names: &Names,
    known: Option<i64>,
    needed: u64,
) -> Result<(), Failure> {
    let mut process = progress.process.lock().await;
    let made = progress.signs.connections();
    let again = known.is_some_and(|known| progress.term() == known);
    if !again && progress.proven.load(Ordering::Acquire) >= needed && process.is_some() {
        return Ok(());
    }
    let hello = requests.run(rawdoc! { "hello": 1 }).await?;
    let now = process_of(&hello).ok_or_else(|| {
        let message = "the server is no primary, or does not tell which process it is";
        Failure::Other(Error::new(ErrorKind::Unavailable, message))
    })?;
    let another = *process != Some(now);
    if again || another {
        let term = enter(requests, progress, names, Some(now)).await?;
        progress.in_term(term);
    }
    if another {
        *process = Some(now);
        progress.changed();
    }
    progress.proven.store(made, Ordering::Release);
    Ok(())
}

/// Reads the current era from a primary that knows all, begins one if need be and the client may write, and tells the primary's term.
pub(crate) async fn enter(
    requests: &Requests<'_>,
    progress: &Progress,
    names: &Names,
    process: Option<ObjectId>,
) -> Result<i64, Failure> {
    for _ in 0..TRIES {
        let asked = progress.history.known();
        let Some(found) = look(requests, names).await? else {
            // Nobody begins another namespace in the place of one that was dropped.
            schema::check_realm(requests, names, progress.realm).await.map_err(Failure::Other)?;
            if progress.readonly {
                return Err(Failure::Other(incomplete()));
            }
            first(requests, names, process).await?;
            continue;
        };
        // The eras of one that was made anew are others.
        let looked = era_of(&found);
        if looked != Some(asked.era) {
            schema::check_realm(requests, names, progress.realm).await.map_err(Failure::Other)?;
        }
        let other = |process: &ObjectId| found.get_object_id("process").ok().as_ref() != Some(process);
        let current = match process.filter(|process| !progress.readonly && other(process)) {
            Some(process) => begin(requests, progress, names, &found, process).await?,
            None => current(requests, progress, names).await?.filter(|(found, _)| era_of(found) == looked),
        };
        // Another client was first.
        let Some((found, term)) = current else { continue };
        let now = Beat::of(&found).ok_or_else(|| Failure::Other(strange()))?;
        let survived = survived(&found, asked.era, &now);
        if let Some(Survived::UpTo(kept)) = survived
            && let Some(own) = progress.last(asked.era).filter(|own| own.bound.number() > kept)
            && is_lost(requests, names, &own).await?
        {
            progress.history.observe(own.era, own.bound.number());
        }
        if progress.history.enter(asked, now.era, now.beat, survived) == Entered::Current {
            return Ok(term);
        }
    }
    let message = "other clients met another primary again and again";
    Err(Failure::Other(Error::new(ErrorKind::Unavailable, message)))
}

/// The document of eras as the primary has it, whether a majority has that or not.
async fn look(requests: &Requests<'_>, names: &Names) -> Result<Option<Document>, Failure> {
    let find = rawdoc! { "find": names.refs.as_str(), "filter": { "_id": ERA }, "limit": 1, "singleBatch": true };
    first_of(&requests.run(find).await?)
}

/// The document of eras, after all that was acknowledged, and the primary's term.
async fn current(
    requests: &Requests<'_>,
    progress: &Progress,
    names: &Names,
) -> Result<Option<(Document, i64)>, Failure> {
    let (reply, term) = linearizable(requests, progress, &names.refs, rawdoc! { "_id": ERA }).await?;
    Ok(first_of(&reply)?.map(|found| (found, term)))
}

fn first_of(reply: &Document) -> Result<Option<Document>, Failure> {
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let batch = batch.map_err(|_| Failure::Other(strange()))?;
    Ok(batch.first().and_then(Bson::as_document).cloned())
}

/// Makes the document of a namespace that has none: it is new, or the version before made it.
async fn first(requests: &Requests<'_>, names: &Names, process: Option<ObjectId>) -> Result<(), Failure> {
    let mut fields = rawdoc! { "r": bytes_of(Era::begin(1)), "beat": 0_i64, "earlier": [] };
    if let Some(process) = process {
        fields.append(cstr!("process"), process);
    }
    let made = requests.run(rawdoc! {
        "update": names.refs.as_str(), "writeConcern": majority(),
        "updates": [{ "q": { "_id": ERA }, "u": { "$setOnInsert": fields }, "upsert": true }],
    });
    match WriteErrors::of(&made.await?) {
        // Two that insert at once are as good as one. It is read again in any case.
        WriteErrors { write: Some(DUPLICATE_KEY), .. } => Ok(()),
        errors => errors.check().map_err(unavailable).map_err(Failure::Other),
    }
}

/// Begins an era after the one that was found, and gives its document and the primary's term; `None` if another client was first. A
/// majority has it, so later reads are of all that was acknowledged before.
async fn begin(
    requests: &Requests<'_>,
    progress: &Progress,
    names: &Names,
    found: &Document,
    process: ObjectId,
) -> Result<Option<(Document, i64)>, Failure> {
    let era = era_of(found).ok_or_else(|| Failure::Other(strange()))?;
    let next = bytes_of(Era::begin(era.number.saturating_add(1)));
    let all = rawdoc! { "$concatArrays": ["$earlier", [{ "r": "$r", "beat": "$beat" }]] };
    let mut pipeline = RawArrayBuf::new();
    pipeline.push(rawdoc! { "$set": {
        "r": { "$literal": next }, "process": process, "earlier": { "$slice": [all, -NAMED] },
    } });
    let reply = requests.run(rawdoc! {
        "findAndModify": names.refs.as_str(), "query": { "_id": ERA, "r": bytes_of(era) }, "update": pipeline,
        "new": true, "writeConcern": majority(), "$replData": 1,
    });
    let reply = reply.await?;
    WriteErrors::of(&reply).check().map_err(unavailable).map_err(Failure::Other)?;
    let Ok(begun) = reply.get_document("value") else { return Ok(None) };
    saw_time(progress, &reply);
    Ok(Some((begun.clone(), term(&reply)?)))
}

/// Whether a commit of this client, which was after the last beat of its era, is surely lost: its record is older. Bounds of one record
/// only grow.
async fn is_lost(requests: &Requests<'_>, names: &Names, own: &Own) -> Result<bool, Failure> {
    let reply = requests.run(rawdoc! {
        "find": names.refs.as_str(), "filter": { "_id": own.key.as_str() }, "projection": { "r": 1 }, "limit": 1,
        "singleBatch": true, "readConcern": { "level": "majority" },
    });
    let found = first_of(&reply.await?)?.as_ref().and_then(revision_of);
    Ok(found.as_ref().and_then(bound).is_some_and(|found| found < own.bound))
}

/// How much of `era` is a part of the history that a document of eras tells; `None`: it is the current one, or nothing is known of it.
fn survived(found: &Document, era: Era, now: &Beat) -> Option<Survived> {
    if era == now.era || era.number == 0 {
        return None;
    }
    let earlier = found.get_array("earlier").map(Vec::as_slice).unwrap_or_default();
    let earlier: Vec<Beat> = earlier.iter().filter_map(Bson::as_document).filter_map(Beat::of).collect();
    if let Some(ended) = earlier.iter().find(|ended| ended.era == era) {
        return Some(Survived::UpTo(ended.beat));
    }
    // It may be one of those that are named no longer.
    let oldest = earlier.iter().map(|ended| ended.era.number).min().unwrap_or(now.era.number);
    Some(if era.number < oldest { Survived::UpTo(now.beat) } else { Survived::Nothing })
}

fn process_of(hello: &Document) -> Option<ObjectId> {
    if !hello.get_bool("isWritablePrimary").unwrap_or(false) {
        return None;
    }
    hello.get_document("topologyVersion").ok()?.get_object_id("processId").ok()
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    fn era(number: u32, id: u8) -> Era {
        Era { number, id: [id; 8] }
    }

    fn found(earlier: &[(Era, i64)]) -> Document {
        let earlier: Vec<Bson> =
            earlier.iter().map(|(era, beat)| doc! { "r": bytes_of(*era), "beat": *beat }.into()).collect();
        doc! { "_id": ERA, "r": bytes_of(era(5, 5)), "beat": 50_i64, "earlier": earlier }
    }

    /// A document tells how far each earlier era went, and which one was never a part of its history.
    #[test]
    fn eras_that_ended_are_told() {
        let found = found(&[(era(3, 3), 30), (era(4, 4), 40)]);
        let now = Beat::of(&found).expect("a document of eras");
        assert_eq!((now.era, now.beat), (era(5, 5), 50));
        assert_eq!(survived(&found, era(5, 5), &now), None);
        assert_eq!(survived(&found, Era::default(), &now), None);
        assert_eq!(survived(&found, era(4, 4), &now), Some(Survived::UpTo(40)));
        assert_eq!(survived(&found, era(3, 3), &now), Some(Survived::UpTo(30)));
        assert_eq!(survived(&found, era(4, 9), &now), Some(Survived::Nothing));
        assert_eq!(survived(&found, era(7, 7), &now), Some(Survived::Nothing));
        assert_eq!(survived(&found, era(2, 2), &now), Some(Survived::UpTo(50)));
    }
}
