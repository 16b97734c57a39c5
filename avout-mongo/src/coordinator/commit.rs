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

use avout_core::backend::history::Era;
use avout_core::backend::tasks;
use avout_core::protocol::{Commit, CommitOutcome, Committed, Key, Point};
use avout_core::{Error, ErrorKind, Result};
use mongodb::bson::raw::cstr;
use mongodb::bson::{Bson, Document, rawdoc};
use mongodb::error::{ErrorKind as Driver, TRANSIENT_TRANSACTION_ERROR};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::abandoned::Looks;
use super::read::read;
use super::work::Work;
use crate::client::Client;
use crate::eras::{ERA, prove};
use crate::progress::Own;
use crate::schema::STRIPES;
use crate::sessions::Session;
use crate::wire::bson::{majority, point};
use crate::wire::error::{interrupted, meaning_of_code};
use crate::wire::request::{Failure, WriteErrors};

const DUPLICATE_KEY: i32 = 11000;
const WRITE_CONFLICT: i32 = 112;

/// How often the end of a transaction is asked for. Each time takes up to the timeout.
const ABORTS: u32 = 6;

/// After how many tries without a reason the namespace itself is looked at.
const LOOK_AROUND: u32 = 3;

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

/// How one transaction ended.
enum Ended {
    Committed(Point),
    /// A condition did not hold, or the transaction got in the way of another one. Nothing happened.
    Lost,
}

impl Work {
    async fn run(&self, client: &Arc<Client>) -> Result<CommitOutcome> {
        let shared = &client.transactions;
        let begun = Instant::now();
        let mut looks = Looks::new(begun);
        let losses = client.progress.history.losses();
        let lost = losses.count();
        for tries in 0.. {
            let stripe = if self.stripe { shared.stripes.take() } else { None };
            let started = Instant::now();
            // What only checks or deletes writes none.
            let beats = tries == 0 && !self.commit.puts.is_empty() && client.progress.takes_beat();
            let era = client.progress.history.known().era;
            let beat = beats.then_some(era);
            let ended = self.attempt(client, stripe.unwrap_or_else(|| rand::random_range(0..STRIPES)), beat).await;
            stripe.into_iter().for_each(|stripe| shared.stripes.give_back(stripe));
            if let Ended::Committed(point) = ended? {
                shared.took(started.elapsed());
                client.saw(point);
                beat.into_iter().for_each(|era| client.progress.beat(era, self.bound.number()));
                if let Some(put) = self.commit.puts.iter().rfind(|put| put.key.is_reserved()) {
                    client.progress.committed(Own { era, bound: self.bound, key: put.key.clone() });
                }
                return Ok(CommitOutcome::Committed(Committed { point, revisions: self.revisions.clone() }));
            }
            // Whoever was in the way is probably committing. Until then a read does not show it.
            if tries > 0 {
                tokio::time::sleep(shared.pause(tries)).await;
            }
            let keys: Vec<Key> = self.commit.expectations().map(|(key, _)| key.clone()).collect();
            let now = read(client, &keys, None).await?;
            if let Some(conflict) = self.commit.conflict_with(now) {
                return Ok(CommitOutcome::Conflict(conflict));
            }
            if losses.count() != lost {
                let message = "the servers have lost commits, on which this one may rest";
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            if begun.elapsed() > client.options.timeout {
                break;
            }
            looks.look(client).await;
            // Where nobody is in the way, the collections may have been dropped.
            if tries == LOOK_AROUND {
                client.check_realm().await?;
                client.find_one(&client.names.refs, ERA).await?;
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "other transactions held the keys for the whole timeout"))
    }

    async fn attempt(&self, client: &Arc<Client>, stripe: i32, beat: Option<Era>) -> Result<Ended> {
        let changes = client.progress.changes();
        let mut session = client.transactions.session().await?;
        session.number += 1;
        let mut first = true;
        for (command, expected) in self.commands(client, stripe, beat) {
            let command = session.part(command, std::mem::take(&mut first));
            match client.run_in(&client.database, &mut session.session, command).await {
                Ok(reply) => {
                    let refused = WriteErrors::of(&reply).write;
                    if refused.is_none() && reply.get_i32("n").is_ok_and(|count| count == expected) {
                        continue;
                    }
                    abandon(session, client);
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
                    abandon(session, client);
                    return Err(failure.unapplied());
                }
            }
        }
        match self.is_same(client, changes, beat.is_some()).await {
            Ok(true) => {}
            Ok(false) => {
                abandon(session, client);
                return Ok(Ended::Lost);
            }
            Err(failure) => {
                abandon(session, client);
                return Err(failure.unapplied());
            }
        }
        let ended = commit(&mut session, client).await;
        match &ended {
            Ok(_) => client.transactions.sessions.give_back(session),
            Err(_) => abandon(session, client),
        }
        ended
    }

    /// Whether the primary is the process that it was after so many changes. If not, what the commit expects may be of another history.
    /// To begin an era its document is written, so a transaction that has written a beat there is not waited for: it is made again.
    async fn is_same(&self, client: &Client, changes: u64, beat: bool) -> Result<bool, Failure> {
        if client.progress.is_unproven() {
            if beat {
                return Ok(false);
            }
            prove(&client.requests(), &client.progress, &client.names, false).await?;
        }
        Ok(client.progress.changes() == changes)
    }
}

/// Whether the transaction got in the way of another one, or the server gave it up. Nothing of it happened.
fn is_lost(failure: &Failure) -> bool {
    let Failure::Driver(error) = failure else { return false };
    let Driver::Command(command) = &*error.kind else { return false };
    matches!(command.code, DUPLICATE_KEY | WRITE_CONFLICT)
        || (error.contains_label(TRANSIENT_TRANSACTION_ERROR) && !interrupted(command.code))
}

/// Ends the transaction in the background, so that it keeps nobody from its keys. If its commit was sent and took
/// effect, this does nothing. If nobody can be reached, whoever it keeps from its keys ends it: see `abandoned.rs`.
fn abandon(mut session: Session, client: &Arc<Client>) {
    let client = Arc::clone(client);
    tasks::connections().spawn(async move {
        for tries in 0..ABORTS {
            let command = session.part(rawdoc! { "abortTransaction": 1 }, false);
            match client.run_in(&client.admin, &mut session.session, command).await {
                Err(failure) if failure.code().is_none() => {
                    tracing::debug!(tries, "no reply to the abort of a transaction");
                    tokio::time::sleep(client.transactions.pause(tries)).await;
                }
                _ => break,
            }
        }
        client.transactions.sessions.give_back(session);
    });
}

async fn commit(session: &mut Session, client: &Client) -> Result<Ended> {
    let mut command = session.part(rawdoc! { "commitTransaction": 1 }, false);
    command.append(cstr!("writeConcern"), majority());
    let unknown = |why| Error::new(ErrorKind::OutcomeUnknown, why);
    match client.run_in(&client.admin, &mut session.session, command).await {
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
        Err(Failure::Other(error)) => Err(error),
        Err(Failure::Late) => Err(unknown("no reply to the commit came within the timeout")),
    }
}

/// When a write took effect, by its reply.
fn time(reply: &Document) -> Option<Point> {
    match reply.get("operationTime") {
        Some(Bson::Timestamp(time)) => Some(point(*time)),
        _ => None,
    }
}
