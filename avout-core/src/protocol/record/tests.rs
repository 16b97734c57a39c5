use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::protocol::{ClientId, Envelope};

fn meta(history: u16) -> Arc<Meta> {
    Arc::new(Meta { realm: Realm::new(1), codec: CodecId::MESSAGE_PACK, type_tag: "i64".into(), history })
}

fn holder() -> Holder {
    Holder { client: ClientId::new(4), number: 2 }
}

fn inline(bytes: &[u8]) -> Payload {
    Payload::Inline(Bytes::copy_from_slice(bytes))
}

fn stored(sequence: u64) -> Payload {
    Payload::Stored { realm: Realm::new(1), version: Version { epoch: 0, client: ClientId::new(2), slot: 0, sequence } }
}

fn any_payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        Just(Payload::Deleted),
        prop::collection::vec(any::<u8>(), 0..50).prop_map(|bytes| inline(&bytes)),
        any::<u64>().prop_map(stored),
    ]
}

proptest! {
    /// Arbitrary bytes are refused, and never panic.
    #[test]
    fn refuses_arbitrary_bytes(bytes: Vec<u8>) {
        prop_assert!(Record::decode(&bytes.into()).is_err());
    }

    /// A record comes back; with any one byte changed, or cut anywhere, it is refused.
    #[test]
    fn comes_back_or_is_refused(
        payload in any_payload(),
        earlier in prop::collection::vec(any_payload(), 0..5),
        at: prop::sample::Index,
        flip in 1u8..,
        reserved: bool,
    ) {
        let history = earlier.into_iter().zip(0u64..).map(|(p, n)| (Point::new(100 - n), p)).collect();
        let mut record = Record { meta: meta(5), payload, history, reservation: None };
        if reserved {
            record = record.reserved(Point::new(200), holder(), Duration::from_millis(50));
        }
        let bytes: Bytes = record.encode().expect("no shared value").into();
        prop_assert_eq!(bytes.len(), record.encoded_size());
        prop_assert_eq!(format!("{:?}", Record::decode(&bytes).expect("whole")), format!("{record:?}"));
        let mut changed = bytes.to_vec();
        let at = at.index(changed.len());
        changed[at] ^= flip;
        prop_assert!(Record::decode(&changed.into()).is_err());
        prop_assert!(Record::decode(&bytes.slice(..at)).is_err());
    }

    /// Whatever is written in whatever order, a record shows at each point the payload that was
    /// current there, or says that it is too far back.
    #[test]
    fn shows_what_was_current(sizes in prop::collection::vec(0usize..3000, 1..12), limit in 0u16..6) {
        let values: Vec<Payload> = sizes.iter().zip(0u8..).map(|(n, tag)| inline(&vec![tag; *n])).collect();
        let point = |n: usize| Point::new(10 * n as u64);
        let mut record = Record::first(meta(limit), values[0].clone());
        for (n, value) in values.iter().enumerate().skip(1) {
            record = record.succeed(point(n - 1), meta(limit), value.clone()).record;
        }
        let last = values.len() - 1;
        for at in 0..=point(last).number() + 5 {
            if let Some((since, payload)) = record.at(point(last), Point::new(at)) {
                let current = (at / 10) as usize;
                prop_assert_eq!(since, point(current.min(last)));
                prop_assert_eq!(format!("{payload:?}"), format!("{:?}", values[current.min(last)]));
            }
        }
        prop_assert!(record.history.len() <= usize::from(limit));
        let bytes = record.history.iter().map(|(_, p)| p.inline_bytes()).sum::<usize>();
        prop_assert!(bytes <= MAX_HISTORY_BYTES || record.history.len() == 1);
    }
}

/// Each value in a store is either still pointed at or told as trimmed, once.
#[test]
fn tells_every_trimmed_value_once() {
    let mut record = Record::first(meta(2), stored(0));
    let mut gone = Vec::new();
    for n in 1..10 {
        let next = record.succeed(Point::new(n), meta(2), stored(n));
        gone.extend(next.trimmed);
        record = next.record;
    }
    gone.extend(record.stored());
    let mut sequences: Vec<u64> = gone.iter().map(|(_, version)| version.sequence).collect();
    sequences.sort_unstable();
    assert_eq!(sequences, (0..10).collect::<Vec<_>>());
}

fn sealed(tag: &str, value: &[u8]) -> Payload {
    Payload::Inline(Envelope::seal(CodecId::MESSAGE_PACK, tag, value).expect("small"))
}

/// What is kept of values in envelopes is just what is kept of a list of them, however the record was passed on: in memory, or
/// as bytes; and an envelope that is not whole, or another type's, comes back as it was.
#[test]
fn earlier_values_come_back_in_their_envelopes() {
    let payloads = |n: u64| match n % 7 {
        0 => stored(n),
        1 => sealed("u8", &[n as u8; 3]),
        2 => inline(b"no envelope"),
        3 if n.is_multiple_of(2) => Payload::Deleted,
        4 => sealed("i64", &vec![n as u8; 700 * (n % 5) as usize]),
        _ => sealed("i64", &n.to_be_bytes()),
    };
    for limit in [0, 1, 3, 8] {
        let mut record = Record::first(meta(limit), payloads(0));
        let mut plain = record.clone();
        for n in 1..200 {
            let point = Point::new(10 * n);
            // As one that was put together by hand, which is never packed.
            let list: Vec<_> = plain.history.iter().map(|(point, payload)| (point, payload.clone())).collect();
            let by_list = Record { history: list.into(), ..plain };
            let expected = by_list.succeed(point, meta(limit), payloads(n));
            let next = record.succeed(point, meta(limit), payloads(n));
            assert_eq!(format!("{:?}", next.record), format!("{:?}", expected.record));
            assert_eq!(next.trimmed, expected.trimmed);
            let same = |(a, b): ((_, &Payload), (_, &Payload))| match (a.1, b.1) {
                (Payload::Inline(a), Payload::Inline(b)) => a == b,
                _ => true,
            };
            assert!(next.record.history.iter().zip(&expected.record.history).all(same), "{n}");
            (record, plain) = (next.record, expected.record);
            if n % 3 != 0 {
                let bytes = Bytes::from(record.encode().expect("no shared value"));
                assert_eq!(bytes.len(), record.encoded_size());
                record = Record::decode(&bytes).expect("whole");
            }
        }
    }
}

/// Points that do not fall are refused, and what is kept takes few bytes beside the values.
#[test]
fn a_history_is_small_and_in_order() {
    for points in [[5, 5], [3, 5]] {
        let history: History = points.map(|point| (Point::new(point), Payload::Deleted)).into_iter().collect();
        let record = Record { history, ..Record::first(meta(3), Payload::Deleted) };
        assert_eq!(record.encode().map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
    }
    let first = Record::first(meta(8), sealed("i64", &[7; 16]));
    let mut record = first.clone();
    for n in 1..20 {
        record = record.succeed(Point::new(1_000_000 + 60 * n), meta(8), sealed("i64", &[7; 16])).record;
    }
    // Of each a byte for its point, one for its length, and of the first two more for its point.
    assert_eq!(record.encoded_size() - first.encoded_size(), 8 * 18 + 2);
}

/// A record of another format is refused by its number.
#[test]
fn names_an_unknown_format() {
    let mut bytes = Record::first(meta(0), Payload::Deleted).encode().expect("no shared value");
    bytes[0] = 9;
    let error = Record::decode(&bytes.into()).expect_err("format 9");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("format 9"), "{error}");
}

/// A reservation changes nothing of what was current when, nor does its end, and the next record is without it.
#[test]
fn a_reservation_leaves_the_values() {
    let record = Record::first(meta(3), inline(b"a")).succeed(Point::new(5), meta(3), inline(b"b")).record;
    let reserved = record.reserved(Point::new(7), holder(), Duration::from_millis(50));
    let again = reserved.reserved(Point::new(9), holder(), Duration::from_millis(50));
    for at in 0..12 {
        let shown = |record: &Record, point| format!("{:?}", record.at(Point::new(point), Point::new(at)));
        assert_eq!(shown(&record, 7), shown(&reserved, 9));
        assert_eq!(shown(&record, 7), shown(&again, 11));
    }
    let over = again.released();
    assert_eq!(over.reservation.as_ref().map(|over| over.lease), Some(Duration::ZERO));
    let bytes = Bytes::from(over.encode().expect("no shared value"));
    assert_eq!(Record::decode(&bytes).expect("whole").reservation, over.reservation);
    for at in 0..14 {
        let shown = |record: &Record, point| format!("{:?}", record.at(Point::new(point), Point::new(at)));
        assert_eq!(shown(&again, 11), shown(&over, 13));
    }
    let next = again.succeed(Point::new(11), meta(3), inline(b"c")).record;
    assert_eq!(next.reservation, None);
    let points: Vec<u64> = next.payloads(Point::new(12)).map(|(point, _)| point.number()).collect();
    assert_eq!(points, [12, 7, 5]);
}
