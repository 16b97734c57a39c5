//! Types that serde writes in one way and reads in another.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use super::round_trips::{comes_back, comes_back_or_is_refused, refused};
use super::*;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct U;

fn address() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// A type with one form in text and another in bytes comes back from enums and fields that serde buffers, too.
#[test]
fn compact_forms_come_back() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Event {
        Login { ip: IpAddr },
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Peer {
        At(SocketAddr),
        Unknown,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Host {
        ip: Option<IpAddr>,
        #[serde(flatten)]
        more: BTreeMap<String, IpAddr>,
    }
    comes_back(&Event::Login { ip: address() });
    comes_back(&vec![Some(Event::Login { ip: address() })]);
    comes_back(&(address(), Event::Login { ip: address() }));
    comes_back(&Peer::At((address(), 80).into()));
    comes_back(&Peer::Unknown);
    comes_back(&Host { ip: Some(address()), more: BTreeMap::from([("a".to_owned(), address())]) });
    assert_eq!(comes_back(&address()).len(), 9, "elsewhere it keeps its compact form");
}

/// So does a struct without fields.
#[test]
fn unit_structs_come_back() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Bare(U),
        Named { u: U },
        Maybe { maybe: Option<U> },
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        more: BTreeMap<String, U>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct FlatMaybe {
        #[serde(flatten)]
        more: BTreeMap<String, Option<U>>,
    }
    comes_back(&U);
    comes_back(&Either::Bare(U));
    comes_back(&Either::Named { u: U });
    comes_back(&Flat { a: 1, more: BTreeMap::from([("b".to_owned(), U)]) });
    for maybe in [None, Some(U)] {
        let more = BTreeMap::from([("b".to_owned(), maybe.clone())]);
        assert!(comes_back_or_is_refused(MessagePack, &FlatMaybe { more }).is_some());
        assert!(comes_back_or_is_refused(MessagePack, &Either::Maybe { maybe }).is_some());
    }
    assert_eq!(MessagePack.decode(&[0x90]).ok(), Some(U), "as earlier versions wrote it");
}

/// A value that serde mixes up when it takes flattened fields apart is refused.
#[test]
fn flattened_fields_come_back_or_are_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Extra {
        note: Option<String>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Order {
        id: u8,
        #[serde(flatten)]
        extra: Option<Extra>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct TwoMaps {
        #[serde(flatten)]
        a: BTreeMap<String, u8>,
        #[serde(flatten)]
        b: BTreeMap<String, u8>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Kind {
        A { x: u8 },
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct KindAndMap {
        #[serde(flatten)]
        kind: Kind,
        #[serde(flatten)]
        more: BTreeMap<String, serde_json::Value>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct NoDefault {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        list: Vec<u8>,
        #[serde(flatten)]
        more: BTreeMap<String, u8>,
    }
    refused(&Order { id: 1, extra: None });
    comes_back(&Order { id: 1, extra: Some(Extra { note: None }) });
    let (a, b) = (BTreeMap::from([("a".to_owned(), 1)]), BTreeMap::from([("b".to_owned(), 2)]));
    refused(&TwoMaps { a: a.clone(), b });
    refused(&TwoMaps { a: a.clone(), b: BTreeMap::new() });
    refused(&KindAndMap { kind: Kind::A { x: 1 }, more: BTreeMap::new() });
    refused(&NoDefault { list: vec![], more: a.clone() });
    comes_back(&NoDefault { list: vec![1], more: a });
}

/// Fields that are written and not read, or read under another name, are refused.
#[test]
fn asymmetric_fields_are_refused() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct NotWritten {
        #[serde(skip_serializing)]
        a: u8,
        b: u8,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct NotRead {
        #[serde(skip_deserializing)]
        a: u8,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Renamed {
        #[serde(rename(serialize = "a", deserialize = "b"), default)]
        a: u8,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Shifted(u8, #[serde(default, skip_serializing_if = "Option::is_none")] Option<u8>, #[serde(default)] u8);
    refused(&NotWritten { a: 1, b: 1 });
    refused(&NotRead { a: 1 });
    comes_back(&NotRead { a: 0 });
    refused(&Renamed { a: 1 });
    refused(&Shifted(1, None, 2));
    comes_back(&Shifted(1, Some(2), 3));
    let large = "x".repeat(1 << 20);
    refused(&(large, NotRead { a: 1 }));
}

/// A variant that would come back as another is refused, wherever it lies.
#[test]
fn variants_come_back_or_are_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Fields {
        A { a: u8 },
        B { a: u8, b: u8 },
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        F(f64),
        I(i64),
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Width {
        Narrow(u8),
        Wide(u16),
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Text {
        Bytes(ByteBuf),
        Text(String),
    }
    comes_back(&Fields::A { a: 1 });
    refused(&Fields::B { a: 1, b: 2 });
    comes_back(&Number::F(1.5));
    refused(&Number::I((1 << 53) + 1));
    comes_back(&Width::Narrow(1));
    comes_back(&Width::Wide(1000));
    refused(&Width::Wide(1));
    refused(&vec![("x".repeat(1 << 20), Width::Wide(1))]);
    refused(&Text::Text("x".to_owned()));
}

/// A value is not refused for the order of its elements, which is different each time.
#[test]
fn unordered_values_come_back() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Unordered {
        map: HashMap<String, HashMap<u32, f64>>,
        set: HashSet<u8>,
        pairs: HashSet<(u8, Option<String>)>,
        #[serde(flatten)]
        more: HashMap<String, HashSet<u64>>,
    }
    for _ in 0..20 {
        let inner: HashMap<u32, f64> = (0..50).map(|n| (n, f64::from(n))).collect();
        comes_back(&Unordered {
            map: (0..50).map(|n| (n.to_string(), inner.clone())).collect(),
            set: (0..200).collect(),
            pairs: (0..50).map(|n| (n, Some(n.to_string()))).collect(),
            more: (0..50).map(|n| (n.to_string(), (0..50).collect())).collect(),
        });
    }
}

/// Fields that serde leaves out come back as their default.
#[test]
fn skipped_fields_are_no_part_of_the_value() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Cached {
        a: u8,
        #[serde(skip)]
        cached: u8,
    }
    let bytes = comes_back(&Cached { a: 1, cached: 2 });
    assert_eq!(MessagePack.decode(&bytes).ok(), Some(Cached { a: 1, cached: 0 }));
}
