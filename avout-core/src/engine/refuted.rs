//! What records tell of a commit whose slot tells nothing. See `docs/protocol.md#lost-replies`.

use tokio::time::Instant;

use super::client::Engine;
use super::plan::CommitPlan;
use crate::protocol::{Commit, Entry, Key, Payload};

/// What one record tells of a commit that would have replaced it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trace {
    /// It is as it was, or its history goes back to what it was, without what the commit would have written.
    Untouched,
    /// It may hold what the commit would have written.
    Written,
    /// Too much has happened to it since.
    Lost,
}

impl Trace {
    /// `base` is the entry that the commit would have replaced, `put` what it would have written, and `now` is what is there.
    fn of(base: Option<&Entry>, put: Option<&Payload>, now: Option<&Entry>) -> Self {
        match (base, put, now) {
            (None, _, None) => Self::Untouched,
            (Some(base), _, Some(now)) if (&base.revision, base.point) == (&now.revision, now.point) => Self::Untouched,
            (base, Some(put), Some(now)) => {
                let mut oldest = None;
                for (point, payload) in now.record.payloads(now.point) {
                    if payload.may_be(put) {
                        return Self::Written;
                    }
                    oldest = Some(point);
                }
                let reaches = base.zip(oldest).is_some_and(|(base, oldest)| oldest <= base.record.since(base.point));
                if reaches { Self::Untouched } else { Self::Lost }
            }
            (_, Some(Payload::Deleted) | None, _) => Self::Written,
            (_, Some(_), None) => Self::Lost,
        }
    }
}

impl Engine {
    /// Whether a commit that was answered with a conflict did not take effect, as far as the records show that it would have replaced.
    /// A request is sent once, so the answer stands, unless one of them may hold what this commit would have written, and none shows
    /// that it was not touched.
    pub(super) async fn is_refuted(&self, plan: &CommitPlan, commit: &Commit, deadline: Option<Instant>) -> bool {
        let keys: Vec<Key> = plan.writes.iter().map(|planned| planned.write.cell.key.clone()).collect();
        let Ok(now) = self.read(&keys, deadline).await else { return false };
        let traces: Vec<Trace> = (plan.writes.iter().zip(&keys).zip(&now.entries))
            .map(|((planned, key), now)| {
                let put = commit.puts.iter().find(|put| put.key == *key).map(|put| &put.record.payload);
                Trace::of(planned.base(), put, now.as_ref())
            })
            .collect();
        traces.contains(&Trace::Untouched) || !traces.contains(&Trace::Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{CodecId, Meta, Point, Realm, Record, Revision};

    fn inline(text: &'static str) -> Payload {
        Payload::Inline(text.as_bytes().into())
    }

    fn entry(point: u64, payloads: &[(u64, Payload)]) -> Entry {
        let payload = payloads[0].1.clone();
        let history = payloads[1..].iter().map(|(at, payload)| (Point::new(*at), payload.clone())).collect();
        let meta = Meta { realm: Realm::new(1), codec: CodecId::MESSAGE_PACK, type_tag: "i64".into(), history: 5 };
        let record = Record { meta: meta.into(), payload, history, reservation: None };
        Entry { record: record.into(), revision: Revision::number(point.into()), point: Point::new(point) }
    }

    #[test]
    fn a_record_tells_of_a_commit_that_would_have_replaced_it() {
        let base = entry(5, &[(5, inline("old"))]);
        let others = [(9, inline("other")), (5, inline("old"))];
        let ours = [(9, inline("other")), (7, inline("new")), (5, inline("old"))];
        let (new, deleted) = (inline("new"), Payload::Deleted);
        for (put, now, expected) in [
            (&new, Some(entry(5, &[(5, inline("old"))])), Trace::Untouched),
            (&new, Some(entry(9, &others)), Trace::Untouched),
            (&new, Some(entry(9, &others[..1])), Trace::Lost),
            (&new, Some(entry(9, &ours)), Trace::Written),
            (&new, Some(entry(9, &ours[..2])), Trace::Written),
            (&new, None, Trace::Lost),
            (&deleted, None, Trace::Written),
            (&deleted, Some(entry(9, &[(9, Payload::Deleted), (5, inline("old"))])), Trace::Written),
            (&deleted, Some(entry(9, &others)), Trace::Untouched),
        ] {
            assert_eq!(Trace::of(Some(&base), Some(put), now.as_ref()), expected, "{put:?} {now:?}");
        }
        assert_eq!(Trace::of(None, Some(&new), None), Trace::Untouched);
        assert_eq!(Trace::of(None, Some(&new), Some(&entry(9, &others))), Trace::Lost);
        assert_eq!(Trace::of(None, Some(&new), Some(&entry(9, &ours))), Trace::Written);
    }
}
