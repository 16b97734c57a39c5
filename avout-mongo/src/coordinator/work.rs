//! What a commit asks of the servers.

use avout_core::backend::history::Era;
use avout_core::protocol::{Commit, Floor, Point, Put, Revision};
use avout_core::{Error, ErrorKind, Payload, Result};
use mongodb::bson::raw::cstr;
use mongodb::bson::{Binary, RawArrayBuf, RawBsonRef, RawDocumentBuf, rawdoc};

use crate::client::{Client, MAX_COMMIT};
use crate::eras;
use crate::revisions::{bound, revision, revision_bytes};
use crate::schema::{self, STRIPES};
use crate::store::documents;
use crate::wire::bson::{binary, timestamp};

/// A commit that is ready to be sent.
pub(crate) struct Work {
    pub(crate) commit: Commit,
    records: Vec<Vec<u8>>,
    /// The values as BSON, where that is wanted and they lie in the record.
    copies: Vec<Option<RawDocumentBuf>>,
    pub(crate) revisions: Vec<Revision>,
    /// Before the point that the commit will have.
    pub(crate) bound: Point,
    /// Whether it needs a stripe: as a copy of the floor's revision, or since it expects no revision. Those are of this namespace only,
    /// while an absent key is absent in any.
    pub(crate) stripe: bool,
}

impl Work {
    pub(crate) fn new(client: &Client, commit: &Commit) -> Result<Self> {
        let encode = |put: &Put| put.record.encode().map_err(|error| error.at(&put.key));
        let records: Vec<_> = commit.puts.iter().map(encode).collect::<Result<_>>()?;
        let copy = |put: &Put| match &put.record.payload {
            Payload::Inline(bytes) if client.options.documents && !put.key.is_reserved() => {
                documents::copy(bytes).map(Some).map_err(|error| error.at(&put.key))
            }
            _ => Ok(None),
        };
        let copies: Vec<_> = commit.puts.iter().map(copy).collect::<Result<_>>()?;
        let bytes: usize = records.iter().map(Vec::len).sum::<usize>()
            + copies.iter().flatten().map(|copy| copy.as_bytes().len()).sum::<usize>()
            + commit.expectations().map(|(key, _)| key.as_str().len()).sum::<usize>();
        if bytes > MAX_COMMIT {
            return Err(Error::new(ErrorKind::TooLarge, "a commit has at most 8 MiB: it is one request to MongoDB"));
        }
        let expected = commit.expectations().filter_map(|(_, revision)| bound(revision?));
        let latest = expected.map(Point::number).fold(client.seen(), u64::max);
        let bound = Point::new(latest + 1);
        let revisions = commit.puts.iter().map(|_| revision(bound)).collect();
        let floor = Floor::key();
        let stripe = commit.expectations().any(|(key, _)| *key == floor)
            || commit.expectations().all(|(_, revision)| revision.is_none());
        Ok(Self { commit: commit.clone(), records, copies, revisions, bound, stripe })
    }

    /// The commands of the transaction, each with the count that its reply has if all conditions hold.
    pub(crate) fn commands(&self, client: &Client, stripe: i32, beat: Option<Era>) -> Vec<(RawDocumentBuf, i32)> {
        let floor = Floor::key();
        let (mut updates, mut count) = (RawArrayBuf::new(), 0);
        let mut push = |query: RawDocumentBuf, change: RawDocumentBuf, kind: Kind| {
            let mut update = rawdoc! { "q": query, "u": change };
            match kind {
                Kind::One => count += 1,
                Kind::Upsert => {
                    update.append(cstr!("upsert"), true);
                    count += 1;
                }
                Kind::AllStripes => {
                    update.append(cstr!("multi"), true);
                    count += STRIPES;
                }
            }
            updates.push(update);
        };
        let of = schema::bytes_of(client.realm);
        let or_new = |revision: Option<&Revision>| if revision.is_some() { Kind::One } else { Kind::Upsert };
        let checked = self.commit.checks.iter().find(|check| check.key == floor);
        if self.stripe {
            let mut query = match checked {
                Some(check) => query(stripe, check.revision.as_ref()),
                None => rawdoc! { "_id": stripe },
            };
            query.append(cstr!("of"), of.clone());
            push(query, rawdoc! { "$inc": { "n": 1 } }, Kind::One);
        }
        for check in self.commit.checks.iter().filter(|check| check.key != floor) {
            let revision = check.revision.as_ref();
            push(query(check.key.as_str(), revision), rawdoc! { "$inc": { "n": 1 } }, or_new(revision));
        }
        let contents = self.records.iter().zip(&self.copies);
        for ((put, (record, copy)), new) in self.commit.puts.iter().zip(contents).zip(&self.revisions) {
            let mut fields =
                rawdoc! { "r": revision_bytes(new), "at": timestamp(self.bound), "d": binary(record.clone()) };
            let value = copy.as_ref().and_then(|copy| copy.get("v").ok().flatten());
            let mut set = rawdoc! {};
            match value {
                Some(value) => fields.append(cstr!("v"), value),
                // The copy of an earlier value, by a client that wanted one, would be a lie.
                None if put.revision.is_some() => set.append(cstr!("$unset"), rawdoc! { "v": 1 }),
                None => {}
            }
            set.append(cstr!("$set"), fields);
            push(query(put.key.as_str(), put.revision.as_ref()), set, or_new(put.revision.as_ref()));
            if put.key == floor {
                push(stripes(&of), rawdoc! { "$set": { "r": revision_bytes(new) } }, Kind::AllStripes);
            }
        }
        for delete in self.commit.deletes.iter().filter(|delete| delete.key == floor) {
            push(stripes(&of), rawdoc! { "$unset": { "r": 1 } }, Kind::AllStripes);
            let _ = delete;
        }
        if let Some(era) = beat {
            let (query, change) = eras::beat(era, self.bound);
            push(query, change, Kind::One);
        }
        let refs = client.names.refs.as_str();
        let mut commands = Vec::with_capacity(1);
        if count > 0 {
            commands.push((rawdoc! { "update": refs, "updates": updates }, count));
        }
        if !self.commit.deletes.is_empty() {
            let mut deletes = RawArrayBuf::new();
            for delete in &self.commit.deletes {
                deletes.push(rawdoc! { "q": query(delete.key.as_str(), Some(&delete.revision)), "limit": 1 });
            }
            let count = i32::try_from(self.commit.deletes.len()).unwrap_or(i32::MAX);
            commands.push((rawdoc! { "delete": refs, "deletes": deletes }, count));
        }
        commands
    }
}

enum Kind {
    One,
    Upsert,
    AllStripes,
}

/// What selects a document with this revision; `None`: with none. An absent key may have a document that counts checks.
fn query<'a>(id: impl Into<RawBsonRef<'a>>, revision: Option<&Revision>) -> RawDocumentBuf {
    let id: RawBsonRef<'a> = id.into();
    match revision {
        Some(revision) => rawdoc! { "_id": id, "r": revision_bytes(revision) },
        None => rawdoc! { "_id": id, "r": { "$exists": false } },
    }
}

/// The floor is checked by many commits at once, and each check is a write. So its revision is kept in as many copies
/// as may be in use at a time: a commit checks one of them, and a change of the floor, which is rare, writes all.
fn stripes(of: &Binary) -> RawDocumentBuf {
    rawdoc! { "_id": { "$gte": 0, "$lt": STRIPES }, "of": of.clone() }
}
