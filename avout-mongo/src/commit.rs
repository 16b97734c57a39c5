//! A commit as one transaction of MongoDB.
//!
//! ```text
//! update             all conditional writes; starts the transaction
//! commitTransaction  w: majority, j: true
//! ```
//!
//! A condition that does not hold matches no document, so that the reply's count is short: then the transaction is
//! aborted. The driver's own transactions are not used: its `commit_transaction` sends the request again when the reply
//! is lost, and the reply to the second request has not the time of the commit. Here it is sent once, and a lost reply is
//! for the engine's slot to decide.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use avout_core::backend::tasks;
use avout_core::protocol::{Commit, CommitOutcome, Committed, Floor, Key, Point, Revision};
use avout_core::{Error, ErrorKind, Payload, Result};
use mongodb::ClientSession;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, rawdoc};
use mongodb::error::{ErrorKind as Driver, TRANSIENT_TRANSACTION_ERROR};
use rand::seq::SliceRandom as _;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::abandoned::Looks;
use crate::client::{Client, Failure, MAX_COMMIT, Pool, WriteErrors, point, timestamp};
use crate::coordinator::stale;
use crate::documents;
use crate::error::meaning_of_code;
use crate::records::{self, binary, revision_bytes};
use crate::schema::{self, STRIPES, majority};

const DUPLICATE_KEY: i32 = 11000;
const WRITE_CONFLICT: i32 = 112;

/// How often the end of a transaction is asked for. Each time takes up to the timeout.
const ABORTS: u32 = 6;

/// After how many tries without a reason the namespace itself is looked at.
const LOOK_AROUND: u32 = 3;

/// What the transactions of a client share.
pub(crate) struct Transactions {
    driver: mongodb::Client,
    /// One transaction at a time runs in a session.
    sessions: Pool<Session>,
    /// Copies of the floor's revision that no transaction of this client checks now.
    stripes: Pool<i32>,
    /// How long a commit takes, in microseconds.
    usual: AtomicU64,
    /// The server has refused to tell of other users' sessions.
    pub(crate) sees_only_own: AtomicBool,
}

struct Session {
    session: ClientSession,
    /// Of its last transaction. A higher one ends it, should it still be open on the server.
    number: i64,
}

impl Transactions {
    pub(crate) fn new(driver: mongodb::Client) -> Self {
        let stripes = Pool::new();
        let mut all: Vec<i32> = (0..STRIPES).collect();
        all.shuffle(&mut rand::rng());
        all.into_iter().for_each(|stripe| stripes.give_back(stripe));
        let sees_only_own = AtomicBool::new(false);
        Self { driver, sessions: Pool::new(), stripes, usual: AtomicU64::new(2_000), sees_only_own }
    }

    async fn session(&self) -> Result<Session> {
        if let Some(session) = self.sessions.take() {
            return Ok(session);
        }
        let session = self.driver.start_session().causal_consistency(false).await;
        Ok(Session { session: session.map_err(crate::error::classify)?, number: 0 })
    }

    fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).min(1_000_000);
        let usual = self.usual.load(Ordering::Relaxed);
        self.usual.store(usual - usual / 8 + micros / 8, Ordering::Relaxed);
    }

    /// Some time in which a commit that is under way has probably ended.
    fn pause(&self, tries: u32) -> Duration {
        let most = self.usual.load(Ordering::Relaxed).saturating_mul(1 << tries.min(6)).min(200_000);
        Duration::from_micros(rand::random_range(most / 4..=most))
    }
}

/// Commits in a task of its own, which ends within the time that its requests may take. So a dropped future leaves no
/// transaction open that would keep others from its keys, and no connection with half a reply on it.
pub(crate) async fn send(client: &Arc<Client>, commit: &Commit) -> Result<CommitOutcome> {
    client.usable()?;
    let work = Work::new(client, commit)?;
    let client = Arc::clone(client);
    let (reply, ended) = oneshot::channel();
    // Whoever gave up needs no reply.
    tasks::spawn_near(tasks::inside(async move { drop(reply.send(work.run(&client).await)) }));
    let early = |_| Error::new(ErrorKind::OutcomeUnknown, "the task of the commit ended early");
    tasks::request(ended).await.map_err(early)?
}

/// A commit that is ready to be sent.
struct Work {
    commit: Commit,
    records: Vec<Vec<u8>>,
    /// The values as BSON, where that is wanted and they lie in the record.
    copies: Vec<Option<RawDocumentBuf>>,
    revisions: Vec<Revision>,
    /// Before the point that the commit will have.
    bound: Point,
    floor: bool,
}

/// How one transaction ended.
enum Ended {
    Committed(Point),
    /// A condition did not hold, or the transaction got in the way of another one. Nothing happened.
    Lost,
}

impl Work {
    fn new(client: &Client, commit: &Commit) -> Result<Self> {
        let encode = |put: &avout_core::protocol::Put| put.record.encode().map_err(|error| error.at(&put.key));
        let records: Vec<_> = commit.puts.iter().map(encode).collect::<Result<_>>()?;
        let copy = |put: &avout_core::protocol::Put| match &put.record.payload {
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
        let expected = commit.expectations().filter_map(|(_, revision)| records::bound(revision?));
        let latest = expected.map(Point::number).fold(client.seen(), u64::max);
        let bound = Point::new(latest + 1);
        let revisions = commit.puts.iter().map(|_| records::revision(bound)).collect();
        let floor = Floor::key();
        let floor = commit.expectations().any(|(key, _)| *key == floor);
        Ok(Self { commit: commit.clone(), records, copies, revisions, bound, floor })
    }

    async fn run(&self, client: &Arc<Client>) -> Result<CommitOutcome> {
        let shared = &client.transactions;
        let begun = Instant::now();
        let mut looks = Looks::new(begun);
        for tries in 0.. {
            let stripe = if self.floor { shared.stripes.take() } else { None };
            let started = Instant::now();
            let ended = self.attempt(client, stripe.unwrap_or_else(|| rand::random_range(0..STRIPES))).await;
            stripe.into_iter().for_each(|stripe| shared.stripes.give_back(stripe));
            if let Ended::Committed(point) = ended? {
                shared.took(started.elapsed());
                client.saw(point);
                return Ok(CommitOutcome::Committed(Committed { point, revisions: self.revisions.clone() }));
            }
            // Whoever was in the way is probably committing. Until then a read does not show it.
            if tries > 0 {
                tokio::time::sleep(shared.pause(tries)).await;
            }
            let keys: Vec<Key> = self.commit.expectations().map(|(key, _)| key.clone()).collect();
            let now = records::read(client, &keys, None).await?;
            if let Some(conflict) = stale(&self.commit, now) {
                return Ok(CommitOutcome::Conflict(conflict));
            }
            if begun.elapsed() > client.options.timeout {
                break;
            }
            looks.look(client).await;
            // Where nobody is in the way, the collections may have been dropped.
            if tries == LOOK_AROUND {
                schema::check_realm(client).await?;
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "other transactions held the keys for the whole timeout"))
    }

    async fn attempt(&self, client: &Arc<Client>, stripe: i32) -> Result<Ended> {
        let mut session = client.transactions.session().await?;
        session.number += 1;
        let mut first = true;
        for (command, expected) in self.commands(client, stripe) {
            let command = session.part(command, std::mem::take(&mut first));
            match client.run_in(&client.database, &mut session.session, command).await {
                Ok(reply) => {
                    let refused = WriteErrors::of(&reply).write;
                    if refused.is_none() && reply.get_i32("n").is_ok_and(|count| count == expected) {
                        continue;
                    }
                    session.abandon(client);
                    return match refused {
                        None | Some(DUPLICATE_KEY | WRITE_CONFLICT) => Ok(Ended::Lost),
                        Some(code) => {
                            let (kind, message) = meaning_of_code(code);
                            Err(Error::new(kind, message))
                        }
                    };
                }
                Err(failure) if is_lost(&failure) => {
                    // The server has ended it.
                    client.transactions.sessions.give_back(session);
                    return Ok(Ended::Lost);
                }
                Err(failure) => {
                    session.abandon(client);
                    return Err(failure.unapplied());
                }
            }
        }
        let ended = session.commit(client).await;
        match &ended {
            Ok(_) => client.transactions.sessions.give_back(session),
            Err(_) => session.abandon(client),
        }
        ended
    }

    /// The commands of the transaction, each with the count that its reply has if all conditions hold.
    fn commands(&self, client: &Client, stripe: i32) -> Vec<(RawDocumentBuf, i32)> {
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
        let or_new = |revision: Option<&Revision>| if revision.is_some() { Kind::One } else { Kind::Upsert };
        for check in &self.commit.checks {
            let (revision, counter) = (check.revision.as_ref(), rawdoc! { "$inc": { "n": 1 } });
            if check.key == floor {
                push(query(stripe, revision), counter, Kind::One);
            } else {
                push(query(check.key.as_str(), revision), counter, or_new(revision));
            }
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
                push(stripes(), rawdoc! { "$set": { "r": revision_bytes(new) } }, Kind::AllStripes);
            }
        }
        for delete in self.commit.deletes.iter().filter(|delete| delete.key == floor) {
            push(stripes(), rawdoc! { "$unset": { "r": 1 } }, Kind::AllStripes);
            let _ = delete;
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
fn query<'a>(id: impl Into<mongodb::bson::RawBsonRef<'a>>, revision: Option<&Revision>) -> RawDocumentBuf {
    let id: mongodb::bson::RawBsonRef<'a> = id.into();
    match revision {
        Some(revision) => rawdoc! { "_id": id, "r": revision_bytes(revision) },
        None => rawdoc! { "_id": id, "r": { "$exists": false } },
    }
}

/// The floor is checked by many commits at once, and each check is a write. So its revision is kept in as many copies
/// as may be in use at a time: a commit checks one of them, and a change of the floor, which is rare, writes all.
fn stripes() -> RawDocumentBuf {
    rawdoc! { "_id": { "$gte": 0, "$lt": STRIPES } }
}

/// Whether the transaction got in the way of another one, or the server gave it up. Nothing of it happened.
fn is_lost(failure: &Failure) -> bool {
    let Failure::Driver(error) = failure else { return false };
    let Driver::Command(command) = &*error.kind else { return false };
    matches!(command.code, DUPLICATE_KEY | WRITE_CONFLICT)
        || (error.contains_label(TRANSIENT_TRANSACTION_ERROR) && !crate::error::interrupted(command.code))
}

impl Session {
    /// A command as a part of the transaction.
    fn part(&self, mut command: RawDocumentBuf, first: bool) -> RawDocumentBuf {
        if first {
            command.append(cstr!("readConcern"), rawdoc! { "level": "local" });
            command.append(cstr!("startTransaction"), true);
        }
        command.append(cstr!("txnNumber"), self.number);
        command.append(cstr!("autocommit"), false);
        command
    }

    /// Ends the transaction in the background, so that it keeps nobody from its keys. If its commit was sent and took
    /// effect, this does nothing. If nobody can be reached, whoever it keeps from its keys ends it: see `abandoned.rs`.
    fn abandon(mut self, client: &Arc<Client>) {
        let client = Arc::clone(client);
        tasks::connections().spawn(async move {
            for tries in 0..ABORTS {
                let command = self.part(rawdoc! { "abortTransaction": 1 }, false);
                match client.run_in(&client.admin, &mut self.session, command).await {
                    Err(failure) if failure.code().is_none() => {
                        tracing::debug!(tries, "no reply to the abort of a transaction");
                        tokio::time::sleep(client.transactions.pause(tries)).await;
                    }
                    _ => break,
                }
            }
            client.transactions.sessions.give_back(self);
        });
    }

    async fn commit(&mut self, client: &Client) -> Result<Ended> {
        let mut command = self.part(rawdoc! { "commitTransaction": 1 }, false);
        command.append(cstr!("writeConcern"), majority());
        let unknown = |why| Error::new(ErrorKind::OutcomeUnknown, why);
        match client.run_in(&client.admin, &mut self.session, command).await {
            Ok(reply) if reply.contains_key("writeConcernError") => {
                Err(unknown("a majority of the servers did not confirm the commit"))
            }
            Ok(reply) => match time(&reply) {
                Some(time) => Ok(Ended::Committed(time)),
                None => Err(unknown("the reply to the commit tells no time")),
            },
            Err(Failure::Driver(error)) => match &*error.kind {
                // The server gave it up before, and has made sure that it stays so.
                Driver::Command(_) if error.contains_label(TRANSIENT_TRANSACTION_ERROR) => Ok(Ended::Lost),
                // Not sent.
                Driver::ServerSelection { .. } => {
                    Err(Error::new(ErrorKind::Unavailable, "no primary was found in time").with_source(error))
                }
                _ => Err(unknown("the reply to the commit was lost").with_source(error)),
            },
            Err(Failure::Late) => Err(unknown("no reply to the commit came within the timeout")),
        }
    }
}

/// When a write took effect, by its reply.
fn time(reply: &Document) -> Option<Point> {
    match reply.get("operationTime") {
        Some(Bson::Timestamp(time)) => Some(point(*time)),
        _ => None,
    }
}
