//! Reads that see all that was acknowledged before them.
//!
//! The servers read at the newest state that they know a majority to have. Two things can be missing there:
//!
//! ```text
//! old primary   P is written | a majority has it | P is acknowledged | dies
//! new primary    has P, and learns that a majority has it with its own first write
//! a read         in between shows what was before P
//!
//! primary       Q is written |                     | a majority has it
//! change stream              | opens, and begins after Q
//! a read                          shows what was before Q, and nothing tells of Q
//! ```
//!
//! A linearizable read makes the primary write something and waits until a majority has that. So it is made once for each
//! term of a primary that answers, before its first reply is used, and after a change stream was opened. What comes after
//! is read at that time or later.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use avout_core::protocol::Point;
use mongodb::bson::raw::cstr;
use mongodb::bson::{Document, RawDocumentBuf, rawdoc};

use crate::client::{Failure, Requests, point, timestamp};

/// What a client knows of the servers' log.
#[derive(Default)]
pub(crate) struct Progress {
    /// The latest point that this client has seen. Whatever it commits from now on has a later one.
    seen: AtomicU64,
    /// The last term of a primary that was found to know all that was acknowledged before.
    term: AtomicI64,
}

impl Progress {
    pub(crate) fn saw(&self, point: Point) {
        self.seen.fetch_max(point.number(), Ordering::AcqRel);
    }

    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }
}

impl Requests<'_> {
    /// Sends a read once for each term: a `find` without a read concern, at this level, and as of `at` or now.
    pub(crate) async fn read(
        &self,
        progress: &Progress,
        meta: &str,
        find: &RawDocumentBuf,
        level: &str,
        at: Option<Point>,
    ) -> Result<Document, Failure> {
        loop {
            let mut concern = rawdoc! { "level": level };
            match (at, progress.seen()) {
                (Some(at), _) => concern.append(cstr!("atClusterTime"), timestamp(at)),
                (None, 0) => {}
                (None, seen) => concern.append(cstr!("afterClusterTime"), timestamp(Point::new(seen))),
            }
            let mut command = find.clone();
            command.append(cstr!("readConcern"), concern);
            command.append(cstr!("$replData"), 1);
            let reply = self.run(command).await?;
            // What is read at a point was seen at it before. A stand-alone server tells no term.
            match term(&reply) {
                Some(term) if at.is_none() && term != progress.term.load(Ordering::Acquire) => {
                    self.catch_up(progress, meta).await?;
                }
                _ => return Ok(reply),
            }
        }
    }

    /// Waits until the primary knows that a majority has all that it has now. Later reads are of that or newer.
    pub(crate) async fn catch_up(&self, progress: &Progress, meta: &str) -> Result<(), Failure> {
        let reply = self.run(rawdoc! {
            "find": meta, "limit": 1, "singleBatch": true, "projection": { "_id": 1 },
            "readConcern": { "level": "linearizable" },
            "maxTimeMS": i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX)),
            "$replData": 1,
        });
        let reply = reply.await?;
        if let Ok(time) = reply.get_timestamp("operationTime") {
            progress.saw(point(time));
        }
        progress.term.store(term(&reply).unwrap_or(0), Ordering::Release);
        Ok(())
    }
}

/// The term of the primary that made this reply.
fn term(reply: &Document) -> Option<i64> {
    reply.get_document("$replData").ok()?.get_i64("term").ok()
}
