//! A value comes back as it was written, or is refused: over all that serde knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Newtype<T>(T);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u8, u8);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum External {
    Unit,
    Newtype(Option<Option<u8>>),
    Nothing(()),
    Tuple(u8, Vec<u8>),
    Struct { a: Option<()>, b: ByteBuf },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
enum Internal {
    Unit,
    Newtype(Inside),
    Struct { a: Option<Option<u8>>, b: Vec<u8>, c: BTreeMap<i16, ()> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inside {
    bytes: Option<Vec<u8>>,
    unit: Option<Unit>,
    outer: External,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    Newtype(Option<Option<u8>>),
    Tuple(u64, Vec<u8>),
    Struct { a: Option<()> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Untagged {
    Number(i64),
    Text(String),
    Bytes(Vec<u8>),
    Nested { nested: Option<Option<Box<Untagged>>> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    a: u8,
    #[serde(skip)]
    left_out: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maybe: Option<Option<u8>>,
    #[serde(flatten)]
    inside: Inside,
    #[serde(flatten)]
    more: BTreeMap<String, Option<Option<Vec<u8>>>>,
}

/// Floats by their bits are compared as trees.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Floats {
    single: f32,
    double: f64,
    list: Vec<f64>,
    maybe: Option<f32>,
}

type Options = (Option<Option<Option<u8>>>, Option<()>, Option<Option<()>>, Option<Unit>, Option<Newtype<Option<u8>>>);
type Integers = ((i8, i16, i32, i64, i128), (u8, u16, u32, u64, u128));
type Lists = (Vec<u8>, Vec<Vec<u8>>, [u8; 7], Vec<Newtype<u8>>, Vec<Option<u8>>, BTreeSet<u8>, Vec<(u8, u8)>);

fn external() -> impl Strategy<Value = External> {
    prop_oneof![
        Just(External::Unit),
        any::<Option<Option<u8>>>().prop_map(External::Newtype),
        Just(External::Nothing(())),
        any::<(u8, Vec<u8>)>().prop_map(|(a, b)| External::Tuple(a, b)),
        any::<(Option<()>, Vec<u8>)>().prop_map(|(a, b)| External::Struct { a, b: ByteBuf::from(b) }),
    ]
}

fn inside() -> impl Strategy<Value = Inside> {
    (any::<Option<Vec<u8>>>(), any::<bool>(), external()).prop_map(|(bytes, unit, outer)| Inside {
        bytes,
        unit: unit.then_some(Unit),
        outer,
    })
}

fn internal() -> impl Strategy<Value = Internal> {
    prop_oneof![
        Just(Internal::Unit),
        inside().prop_map(Internal::Newtype),
        any::<(Option<Option<u8>>, Vec<u8>, BTreeMap<i16, ()>)>().prop_map(|(a, b, c)| Internal::Struct { a, b, c }),
    ]
}

fn adjacent() -> impl Strategy<Value = Adjacent> {
    prop_oneof![
        Just(Adjacent::Unit),
        any::<Option<Option<u8>>>().prop_map(Adjacent::Newtype),
        any::<(u64, Vec<u8>)>().prop_map(|(a, b)| Adjacent::Tuple(a, b)),
        any::<Option<()>>().prop_map(|a| Adjacent::Struct { a }),
    ]
}

fn untagged() -> impl Strategy<Value = Untagged> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(Untagged::Number),
        ".{0,9}".prop_map(Untagged::Text),
        any::<Vec<u8>>().prop_map(Untagged::Bytes),
        Just(Untagged::Nested { nested: None }),
        Just(Untagged::Nested { nested: Some(None) }),
    ];
    leaf.prop_recursive(4, 8, 1, |inner| {
        inner.prop_map(|inner| Untagged::Nested { nested: Some(Some(Box::new(inner))) })
    })
}

fn flat() -> impl Strategy<Value = Flat> {
    let more = btree_map("[k-z]{2,5}", any::<Option<Option<Vec<u8>>>>(), 0..4);
    (any::<u8>(), any::<Option<Option<u8>>>(), inside(), more).prop_map(|(a, maybe, inside, more)| Flat {
        a,
        left_out: 0,
        maybe,
        inside,
        more,
    })
}

fn floats() -> impl Strategy<Value = Floats> {
    (any::<u32>(), any::<u64>(), vec(any::<u64>(), 0..4), any::<Option<u32>>()).prop_map(
        |(single, double, list, maybe)| Floats {
            single: f32::from_bits(single),
            double: f64::from_bits(double),
            list: list.into_iter().map(f64::from_bits).collect(),
            maybe: maybe.map(f32::from_bits),
        },
    )
}

fn is_same<T: Serialize>(value: &T, back: &T) -> bool {
    Tree::of(value, false).expect("a tree").equals(Tree::of(back, false).expect("a tree"))
}

/// `None`: the codec refuses it.
#[track_caller]
pub(super) fn comes_back_or_is_refused<T, C: Codec<T>>(codec: C, value: &T) -> Option<Vec<u8>>
where
    T: Serialize + std::fmt::Debug,
{
    let bytes = codec.encode(value).ok()?;
    let back =
        codec.decode(&bytes).unwrap_or_else(|cause| panic!("{value:?} was accepted, and is unreadable: {cause}"));
    assert!(is_same(value, &back), "{value:?} came back as {back:?}");
    Some(bytes)
}

#[track_caller]
pub(super) fn comes_back<T: Serialize + DeserializeOwned + std::fmt::Debug>(value: &T) -> Vec<u8> {
    comes_back_or_is_refused(Json, value);
    comes_back_or_is_refused(MessagePack, value).unwrap_or_else(|| panic!("MessagePack refuses {value:?}"))
}

#[track_caller]
pub(super) fn refused<T: Serialize + DeserializeOwned + std::fmt::Debug>(value: &T) {
    for bytes in [comes_back_or_is_refused(Json, value), comes_back_or_is_refused(MessagePack, value)] {
        assert_eq!(bytes, None, "{value:?} was accepted");
    }
}

proptest! {
    /// Options and units in each other come back as they are.
    #[test]
    fn options_come_back(value: (Option<Option<Option<u8>>>, Option<()>, Option<Option<()>>), unit: bool, inner: Option<Option<u8>>) {
        let value: Options = (value.0, value.1, value.2, unit.then_some(Unit), inner.map(Newtype));
        comes_back(&value);
        comes_back(&value.0);
        comes_back(&value.1);
        comes_back(&value.2);
        comes_back(&value.3);
        comes_back(&value.4);
    }

    /// So do integers of all widths, and floating-point numbers to the last bit.
    #[test]
    fn numbers_come_back(integers: Integers, floats in floats()) {
        comes_back(&integers);
        comes_back(&vec![integers.0.4, (integers.0.0).into()]);
        comes_back(&vec![integers.1.4, (integers.1.3).into()]);
        comes_back(&floats);
    }

    /// As JSON a floating-point number that is finite comes back to the last bit.
    #[test]
    fn finite_numbers_come_back_from_json(single: f32, double: f64) {
        let bytes = comes_back_or_is_refused(Json, &(single, double));
        prop_assert_eq!(bytes.is_some(), single.is_finite() && double.is_finite());
    }

    /// So do bytes and other lists.
    #[test]
    fn lists_come_back(a: Vec<u8>, b: Vec<Vec<u8>>, c: [u8; 7], d: Vec<Option<u8>>, e: BTreeSet<u8>, f: Vec<(u8, u8)>) {
        let lists: Lists = (a.clone(), b, c, a.iter().copied().map(Newtype).collect(), d, e, f);
        comes_back(&lists);
        comes_back(&a);
        comes_back(&a.clone().into_boxed_slice());
        comes_back(&Some(a.clone()));
        comes_back(&Newtype(a.clone()));
        comes_back(&a.iter().copied().collect::<std::collections::VecDeque<u8>>());
        comes_back(&ByteBuf::from(a.clone()));
        if let [first, second, ..] = *a {
            comes_back(&Pair(first, second));
        }
    }

    /// So do maps with keys of any type.
    #[test]
    fn maps_come_back(
        a: BTreeMap<String, Option<()>>,
        b: BTreeMap<i64, u8>,
        c: BTreeMap<(u8, bool), Vec<u8>>,
        d: BTreeMap<Option<char>, ()>,
        e: HashMap<Vec<u8>, String>,
    ) {
        comes_back(&a);
        comes_back(&b);
        comes_back(&c);
        comes_back(&d);
        comes_back(&e);
    }

    /// So do enums in all ways of tagging, and flattened fields.
    #[test]
    fn enums_come_back(a in external(), b in internal(), c in adjacent(), d in untagged(), e in flat()) {
        comes_back(&a);
        comes_back(&b);
        comes_back(&c);
        comes_back(&d);
        comes_back(&e);
        comes_back(&(Some(a), Some(b), Some(c), vec![Some(d)], Some(e)));
    }

    /// Values stored by `rmp-serde`, as earlier versions did, are read, unless their type was lost.
    #[test]
    fn reads_what_earlier_versions_wrote(a in external(), integers: Integers, lists: (Vec<u8>, [u8; 7], BTreeMap<i64, u8>), e in flat(), floats in floats()) {
        fn reads<T: Serialize + DeserializeOwned + std::fmt::Debug>(value: &T) {
            let bytes = rmp_serde::to_vec_named(value).expect("an encoding");
            let old: T = rmp_serde::from_slice(&bytes).expect("it reads its own");
            let new = MessagePack.decode(&bytes).unwrap_or_else(|cause| panic!("{old:?}: {cause}"));
            assert!(is_same(&old, &new), "{old:?} was read as {new:?}");
        }
        reads(&a);
        reads(&integers);
        reads(&lists);
        reads(&e);
        reads(&floats);
    }

    /// Arbitrary bytes give a value or an error, and never a panic.
    #[test]
    fn arbitrary_bytes_are_survived(bytes: Vec<u8>) {
        let _ = Codec::<Flat>::decode(&MessagePack, &bytes);
        let _ = Codec::<Untagged>::decode(&MessagePack, &bytes);
        let _ = Codec::<Options>::decode(&MessagePack, &bytes);
        let _ = Codec::<Integers>::decode(&MessagePack, &bytes);
        let _ = Codec::<Lists>::decode(&MessagePack, &bytes);
    }
}

/// A byte string is never longer than a text of the same length, except for a byte or two, wherever it is.
#[test]
fn bytes_take_a_byte_each() {
    for length in [0, 1, 15, 16, 31, 32, 255, 256, 65_535, 65_536, 1 << 20] {
        let bytes = vec![200_u8; length];
        let text = MessagePack.encode(&"x".repeat(length)).expect("a text").len();
        let sizes = [
            MessagePack.encode(&bytes),
            MessagePack.encode(&Some(bytes.clone())),
            MessagePack.encode(&bytes.clone().into_boxed_slice()),
            MessagePack.encode(&Newtype(bytes.clone())),
            MessagePack.encode(&bytes.iter().copied().collect::<std::collections::VecDeque<u8>>()),
        ];
        for size in sizes {
            let size = size.expect("bytes").len();
            assert!(size <= text + if length < 32 { 2 } else { 1 }, "{length} bytes take {size}, and a text {text}");
        }
    }
}

/// A value that could be written but not read back as it is is refused.
#[test]
fn what_would_not_come_back_is_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Tagged {
        D { wei: u128 },
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Small(u64),
        Large(i128),
        Text(String),
        Bytes(ByteBuf),
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Extra {
        a: u8,
        #[serde(flatten)]
        more: BTreeMap<String, i128>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct NoDefault {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        list: Vec<u8>,
    }
    for wei in [0, 7, u128::from(u64::MAX), u128::MAX] {
        refused(&Tagged::D { wei });
    }
    for large in [0, -7, i128::MIN] {
        refused(&Either::Large(large));
        refused(&Extra { a: 1, more: BTreeMap::from([("b".to_owned(), large)]) });
    }
    comes_back(&Either::Small(7));
    comes_back(&Either::Text("x".to_owned()));
    refused(&Extra { a: 1, more: BTreeMap::from([("a".to_owned(), 1)]) });
    refused(&NoDefault { list: vec![] });
    comes_back(&NoDefault { list: vec![1] });
    let text = Either::Bytes(ByteBuf::from(b"text".to_vec()));
    assert_eq!(comes_back_or_is_refused(MessagePack, &text), None, "it would be a text");
    comes_back(&Either::Bytes(ByteBuf::from(vec![0xff])));
}

/// JSON refuses values that it cannot hold.
#[test]
fn json_refuses_what_it_cannot_hold() {
    fn refused<T: Serialize + DeserializeOwned + std::fmt::Debug>(value: &T) {
        assert_eq!(comes_back_or_is_refused(Json, value), None, "{value:?} was accepted");
    }
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        refused(&number);
        refused(&Some(number));
        refused(&vec![number as f32]);
        refused(&Newtype(BTreeMap::from([("x".to_owned(), Some(number))])));
    }
    refused(&Some(None::<u8>));
    refused(&Some(()));
    refused(&Some(Unit));
    refused(&BTreeMap::from([((1_u8, 2_u8), 3_u8)]));
    assert!(comes_back_or_is_refused(Json, &BTreeMap::from([(1_i64, Some(2_u8))])).is_some());
    assert!(comes_back_or_is_refused(Json, &117.633_313_940_001_7_f64).is_some());
    assert!(comes_back_or_is_refused(Json, &(u128::MAX, i128::MIN)).is_some());
}

/// A field that became wider, a list that became bytes, and a field that became optional are read.
#[test]
fn values_of_narrower_types_are_read() {
    fn read<Old: Serialize + DeserializeOwned, New: Serialize + DeserializeOwned>(old: &Old) -> Option<New> {
        MessagePack.decode(&MessagePack.encode(old).expect("an encoding")).ok()
    }
    assert_eq!(read::<i32, i64>(&-7), Some(-7));
    assert_eq!(read::<i64, i32>(&7), Some(7));
    assert_eq!(read::<i64, i32>(&(1 << 40)), None);
    assert_eq!(read::<u64, u128>(&u64::MAX), Some(u64::MAX.into()));
    assert_eq!(read::<u128, u64>(&7), Some(7));
    assert_eq!(read::<Vec<u8>, Vec<i64>>(&vec![1; 50]), Some(vec![1; 50]));
    assert_eq!(read::<Vec<u8>, ByteBuf>(&vec![1; 50]), Some(ByteBuf::from(vec![1; 50])));
    assert_eq!(read::<ByteBuf, Vec<u8>>(&ByteBuf::from(vec![1; 50])), Some(vec![1; 50]));
    assert_eq!(read::<f64, f32>(&1.5), Some(1.5));
    assert_eq!(read::<f64, f32>(&0.1), None, "it would be rounded");
    assert_eq!(read::<f64, f32>(&f64::NAN).map(f32::is_nan), Some(true));
    assert_eq!(read::<f32, f64>(&0.1), Some(f64::from(0.1_f32)));
    assert_eq!(read::<u8, Option<Option<u8>>>(&7), Some(Some(Some(7))));
    assert_eq!(read::<Vec<u8>, Vec<Option<u8>>>(&vec![200; 20]), Some(vec![Some(200); 20]));
}
