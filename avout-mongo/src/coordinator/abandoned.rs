//! Transactions whose clients are gone.
//!
//! A client that dies between the two requests of a commit leaves its transaction open on the server, which keeps its
//! documents from all others until `transactionLifetimeLimitSeconds` are over, a minute unless set. So whoever is in its
//! way for long ends it:
//!
//! ```text
//! A   update holders .. killed, or stopped
//! B         update holders: write conflict .. again .. again: which of ours have been idle for a second?
//! B                                                          killSessions A's .. update holders: done
//! A                       (only stopped) goes on ................................. commitTransaction: no such transaction
//! ```
//!
//! This decides who waits, never what is committed. If A lives, the server refuses its commit for good and says so, and A
//! makes it again; if A's commit came first, there is nothing to end; and if A is interrupted while it waits for the reply, its
//! slot tells the outcome.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mongodb::bson::{Document, RawArrayBuf, RawDocumentBuf, rawdoc};
use tokio::time::Instant;

use crate::client::Client;
use crate::wire::driver::{DRIVER, mark};
use crate::wire::request::Failure;

/// How long a client says nothing in the middle of a commit before it is taken for gone. One that is there needs a round trip.
const IDLE: Duration = Duration::from_secs(1);

/// How long a commit is held up before it looks for the cause, and how long until it looks again.
const BLOCKED: Duration = Duration::from_millis(200);

/// The most sessions that are ended at a time.
const AT_ONCE: i32 = 100;

const UNAUTHORIZED: i32 = 13;

/// When a commit looks for what holds it up.
pub(crate) struct Looks {
    next: Instant,
}

impl Looks {
    pub(crate) fn new(begun: Instant) -> Self {
        Self { next: begun + BLOCKED }
    }

    /// Ends what others have left, if it is time to look.
    pub(crate) async fn look(&mut self, client: &Client) {
        if Instant::now() < self.next {
            return;
        }
        match end(client).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "ended transactions whose clients are gone"),
            // Then the server ends them when their time is over.
            Err(failure) => {
                tracing::debug!(code = failure.code(), "cannot look for transactions whose clients are gone")
            }
        }
        self.next = Instant::now() + BLOCKED;
    }
}

/// Ends the transactions of this namespace's clients that have been idle for too long, and tells how many there were.
async fn end(client: &Client) -> Result<usize, Failure> {
    let sessions = idle(client).await?;
    if !sessions.is_empty() {
        let mut ids = RawArrayBuf::new();
        sessions.iter().for_each(|session| ids.push(session.clone()));
        client.run_admin(rawdoc! { "killSessions": ids }).await?;
    }
    Ok(sessions.len())
}

/// The sessions of such transactions. A user sees those of all users, if it may, and otherwise its own.
async fn idle(client: &Client) -> Result<Vec<RawDocumentBuf>, Failure> {
    let only_own = &client.transactions.sees_only_own;
    if !only_own.load(Ordering::Relaxed) {
        match client.run_admin(current(client, true)).await {
            Err(failure) if failure.code() == Some(UNAUTHORIZED) => only_own.store(true, Ordering::Relaxed),
            reply => return reply.map(|reply| sessions(&reply)),
        }
    }
    Ok(sessions(&client.run_admin(current(client, false)).await?))
}

fn current(client: &Client, all_users: bool) -> RawDocumentBuf {
    let driver = format!("\\|{DRIVER}$");
    let namespace = format!("\\|{}$", literal(&mark(&client.options)));
    let micros = i64::try_from(IDLE.as_micros()).unwrap_or(i64::MAX);
    rawdoc! {
        "aggregate": 1,
        "pipeline": [
            { "$currentOp": { "allUsers": all_users, "idleSessions": true } },
            { "$match": {
                "type": "idleSession",
                "transaction.timeInactiveMicros": { "$gte": micros },
                "clientMetadata.driver.name": { "$regex": driver },
                "clientMetadata.driver.version": { "$regex": namespace },
            } },
            { "$limit": AT_ONCE },
            { "$project": { "lsid": 1 } },
        ],
        "cursor": { "batchSize": AT_ONCE },
    }
}

/// A text as an expression that only it matches.
fn literal(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c])).collect()
}

fn sessions(reply: &Document) -> Vec<RawDocumentBuf> {
    let batch = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let found = batch.map(Vec::as_slice).unwrap_or_default().iter();
    found.filter_map(|found| RawDocumentBuf::try_from(found.as_document()?.get_document("lsid").ok()?).ok()).collect()
}
