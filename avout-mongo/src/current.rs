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

use avout_core::{Error, ErrorKind};
use mongodb::bson::{Document, RawDocumentBuf, rawdoc};

use crate::progress::Progress;
use crate::wire::bson::point;
use crate::wire::request::{Failure, Requests};

/// Waits until the primary knows that a majority has all that it has now, and tells its term. Later reads are of that or newer.
pub(crate) async fn linearizable(
    requests: &Requests<'_>,
    progress: &Progress,
    collection: &str,
    filter: RawDocumentBuf,
) -> Result<(Document, i64), Failure> {
    let reply = requests.run(rawdoc! {
        "find": collection, "filter": filter, "limit": 1, "singleBatch": true,
        "readConcern": { "level": "linearizable" },
        "maxTimeMS": i64::try_from(requests.timeout.as_millis()).unwrap_or(i64::MAX).clamp(1, i64::from(i32::MAX)),
        "$replData": 1,
    });
    let reply = reply.await?;
    saw_time(progress, &reply);
    let term = term(&reply)?;
    Ok((reply, term))
}

/// Takes in when a reply was made, by which all that it tells of had happened.
pub(crate) fn saw_time(progress: &Progress, reply: &Document) {
    if let Ok(time) = reply.get_timestamp("operationTime") {
        progress.saw(point(time));
    }
}

/// The term of the primary that made this reply. One that does not tell it cannot be compared with the one before.
pub(crate) fn term(reply: &Document) -> Result<i64, Failure> {
    let term = reply.get_document("$replData").and_then(|data| data.get_i64("term"));
    term.map_err(|_| {
        let message =
            "the server does not tell the term of its primary: name the members of a replica set, and no proxy";
        Failure::Other(Error::new(ErrorKind::Unsupported, message))
    })
}

#[cfg(test)]
mod tests {
    use mongodb::bson::doc;

    use super::*;

    /// A reply that does not tell the term of its primary is refused, and not taken for one of the primary that is known.
    #[test]
    fn a_reply_without_a_term_is_refused() {
        assert!(matches!(term(&doc! { "$replData": { "term": 3_i64 } }), Ok(3)));
        for reply in [doc! { "ok": 1 }, doc! { "$replData": {} }, doc! { "$replData": { "term": "3" } }] {
            let error = term(&reply).map(drop).expect_err("no term").unapplied();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.to_string().contains("name the members"), "{error}");
        }
    }
}
