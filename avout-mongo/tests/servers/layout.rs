//! What lies in the collections.

use avout_core::ErrorKind;
use avout_core::backend::{CasOutcome, Coordinator as _, Store as _};
use avout_core::protocol::{ClientId, Key, State, Version};
use bytes::Bytes;
use mongodb::bson::{Document, doc};

use crate::support::{Outcome, client, driver, open, shared_url};

fn big(size: usize, seed: u8) -> Bytes {
    (0..size)
        .map(|index| (index as u8).wrapping_mul(31).wrapping_add((index >> 13) as u8 ^ seed))
        .collect::<Vec<_>>()
        .into()
}

fn bytes(state: Option<State>) -> Option<Bytes> {
    match state? {
        State::Bytes(bytes) => Some(bytes),
        State::Shared(_) => None,
    }
}

/// States past MongoDB's 16 MiB lie in chunks, come back whole, and leave nothing behind.
pub(crate) async fn large_states_lie_in_chunks() -> Outcome {
    let url = shared_url("chunks").await?;
    let store = open(&url).await?.store;
    let key = Key::new("/big")?;
    let chunks = driver(&url).await?.collection::<Document>("chunks.values");

    let values = store.versioned_state(&key);
    let version = |sequence| Version { epoch: 0, client: ClientId::new(7), slot: 0, sequence };
    let (first, second) = (big(40 << 20, 1), big((8 << 20) + 1, 2));
    values.set_state_at(&version(1), State::Bytes(first.clone())).await?;
    values.set_state_at(&version(2), State::Bytes(second.clone())).await?;
    assert_eq!(chunks.count_documents(doc! { "_id": { "$ne": 0 } }).await?, 1 + 5 + 1 + 2);
    values.set_state_at(&version(1), State::Bytes(first.clone())).await?;
    let error = values.set_state_at(&version(1), State::Bytes(second.clone())).await.expect_err("another value");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert_eq!(chunks.count_documents(doc! { "_id": { "$ne": 0 } }).await?, 1 + 5 + 1 + 2, "what was refused is gone");
    assert!(bytes(values.state_at(&version(1)).await?) == Some(first.clone()));
    assert!(bytes(values.state_at(&version(2)).await?) == Some(second.clone()));
    assert_eq!(values.versions().await?, [version(1), version(2)]);
    values.delete_state_at(&version(1)).await?;
    assert!(values.state_at(&version(1)).await?.is_none());
    assert_eq!(chunks.count_documents(doc! { "_id": { "$ne": 0 } }).await?, 1 + 2);

    let atom = store.state(&key);
    let revision = atom.set_state(State::Bytes(first.clone())).await?;
    let CasOutcome::Set(revision) = atom.compare_and_set_state(Some(revision), State::Bytes(second.clone())).await?
    else {
        panic!("the revision is the current one");
    };
    assert!(matches!(atom.compare_and_set_state(None, State::Bytes(first)).await?, CasOutcome::Stale(Some(_))));
    let (state, now) = atom.state().await?.expect("a state");
    assert!(bytes(Some(state)) == Some(second) && now == revision);
    assert_eq!(chunks.count_documents(doc! { "_id.a": "/big" }).await?, 2);
    atom.destroy().await?;
    values.destroy().await?;
    assert_eq!(chunks.count_documents(doc! { "_id": { "$ne": 0 } }).await?, 0);
    Ok(())
}

/// A namespace that a newer library made is refused, and so are collections of another application; both stay as they are.
pub(crate) async fn other_layouts_are_refused() -> Outcome {
    let url = shared_url("newer").await?;
    open(&url).await?;
    let meta = driver(&url).await?.collection::<Document>("newer.meta");
    for (change, kind, help) in [
        (doc! { "$set": { "schema": 2 } }, ErrorKind::Unsupported, "upgrade"),
        (doc! { "$set": { "schema": 0 } }, ErrorKind::Corrupt, "restore a backup"),
        (doc! { "$unset": { "application": 1 } }, ErrorKind::Mismatch, "another application"),
    ] {
        meta.update_one(doc! {}, change).await?;
        let before = meta.find_one(doc! {}).await?;
        let error = open(&url).await.expect_err(help);
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(help), "{error}");
        assert_eq!(meta.find_one(doc! {}).await?, before);
    }
    Ok(())
}

/// A read at an earlier point shows what was there, deleted and absent keys too, and one at a point out of the window is
/// `TooOld`.
pub(crate) async fn reads_are_of_any_moment_in_the_window() -> Outcome {
    let url = shared_url("window").await?;
    let stm = client(&url, 10).await?;
    let r = stm.create_ref("/r", 0_i64).history(0).await?;
    let mut points = Vec::new();
    for n in 1..=20 {
        r.set(n).await?;
        points.push((n, stm.snapshot().await?));
    }
    for (n, snapshot) in &points {
        assert_eq!(snapshot.get(&r).await?, *n);
    }
    let backend = open(&url).await?;
    let early = backend.coordinator.read(&[Key::new("/r")?], Some(avout_core::Point::new(1 << 32))).await;
    assert_eq!(early.expect_err("long ago").kind(), ErrorKind::TooOld);
    Ok(())
}

#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    customer: String,
    items: Vec<(String, u32)>,
    note: Option<String>,
}

/// With `documents=true` values in records, in the store and of atoms can be queried as BSON, in step with the value, also
/// by clients that want no copies.
pub(crate) async fn values_can_be_queried_as_documents() -> Outcome {
    let url = shared_url("native").await?;
    let stm = client(&crate::support::with(&url, "documents=true"), 10).await?;
    let plain = client(&url, 10).await?;
    let order = |customer: &str, count: usize| Order {
        customer: customer.into(),
        items: (0..count).map(|n| (format!("item {n}"), 1)).collect(),
        note: None,
    };
    let database = driver(&url).await?;
    let count = async |name: &str, customer: &str| {
        let found = database.collection::<Document>(name).find(doc! { "v.customer": customer }).await?;
        let found: Vec<Document> = futures_util::TryStreamExt::try_collect(found).await?;
        mongodb::error::Result::Ok(found.len())
    };
    let small = stm.create_ref("/small", order("ann", 2)).await?;
    let large = stm.create_ref("/large", order("ann", 2000)).await?;
    let atom = stm.create_atom("/atom", order("ann", 1)).await?;
    assert_eq!(count("native.refs", "ann").await?, 1);
    assert_eq!(count("native.values", "ann").await?, 1);
    assert_eq!(count("native.atoms", "ann").await?, 1);
    let first = database.collection::<Document>("native.refs").find_one(doc! { "_id": "/small" }).await?;
    let first = first.and_then(|found| found.get("v").cloned()).expect("a copy");
    assert_eq!(mongodb::bson::deserialize_from_bson::<Order>(first)?, order("ann", 2));

    small.set(order("bob", 1)).await?;
    atom.reset(order("bob", 1)).await?;
    assert_eq!((count("native.refs", "ann").await?, count("native.refs", "bob").await?), (0, 1));
    assert_eq!((count("native.atoms", "ann").await?, count("native.atoms", "bob").await?), (0, 1));
    assert_eq!((small.get().await?, large.get().await?.items.len()), (order("bob", 1), 2000));
    plain.open_ref::<Order>("/small").await?.set(order("eve", 1)).await?;
    assert_eq!((count("native.refs", "bob").await?, count("native.refs", "eve").await?), (0, 0), "a copy out of date");

    let odd: std::collections::BTreeMap<String, i32> =
        [("$where".into(), 1), ("a.b".into(), 2), (String::new(), 3), ("$set".into(), 4)].into();
    let r = stm.create_ref("/odd", odd.clone()).await?;
    assert_eq!(r.get().await?, odd);
    let beyond = stm.create_ref("/beyond", u64::MAX).await.expect_err("BSON has no such number");
    assert_eq!(beyond.kind(), ErrorKind::Codec, "{beyond:?}");
    assert_eq!(beyond.key().map(Key::as_str), Some("/beyond"));
    Ok(())
}

/// A client whose namespace was dropped under it does not begin another one in its place.
pub(crate) async fn a_dropped_namespace_is_lost() -> Outcome {
    let url = shared_url("dropped").await?;
    let stm = client(&url, 10).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let database = driver(&url).await?;
    for name in ["meta", "refs", "values", "atoms"] {
        database.collection::<Document>(&format!("dropped.{name}")).drop().await?;
    }
    let gone = r.set(1).await.expect_err("its record is gone");
    assert!([ErrorKind::NotFound, ErrorKind::StoreLost].contains(&gone.kind()), "{gone:?}");
    let other = stm.create_ref("/other", 0_i64).await.expect_err("there is no such namespace any more");
    assert_eq!(other.kind(), ErrorKind::StoreLost, "{other:?}");
    Ok(())
}

/// What the version before made, without marks and with revisions of atoms that name no realm, is marked when it is opened, and is used.
pub(crate) async fn a_namespace_without_marks_is_marked() -> Outcome {
    let url = shared_url("unmarked").await?;
    let stm = client(&url, 10).await?;
    let r = stm.create_ref("/r", vec![0_u8; 40_000]).await?;
    r.update(|bytes| bytes.push(1)).await?;
    stm.sweep().await?;
    for name in ["/set", "/swapped", "/destroyed"] {
        stm.create_atom(name, 1_i64).await?;
    }
    drop((r, stm));
    let database = driver(&url).await?;
    let of = |name: &str| database.collection::<Document>(&format!("unmarked.{name}"));
    of("refs").update_many(doc! { "_id": { "$type": "int" } }, doc! { "$unset": { "of": 1 } }).await?;
    of("values").delete_one(doc! { "_id": 0 }).await?;
    of("atoms").delete_one(doc! { "_id": 0 }).await?;
    for (number, name) in ["/set", "/swapped", "/destroyed"].into_iter().enumerate() {
        let earlier = mongodb::bson::Binary {
            subtype: mongodb::bson::spec::BinarySubtype::Generic,
            bytes: vec![number as u8; 16],
        };
        of("atoms").update_one(doc! { "_id": name }, doc! { "$set": { "r": earlier } }).await?;
    }

    let (one, two) = tokio::try_join!(client(&url, 10), client(&url, 10))?;
    let r = one.open_ref::<Vec<u8>>("/r").await?;
    r.update(|bytes| bytes.push(2)).await?;
    two.create_ref("/new", 1_i64).await?;
    two.sweep().await?;
    assert_eq!(r.get().await?[39_999..], [0, 1, 2]);
    let set = one.open_atom::<i64>("/set").await?;
    set.reset(2).await?;
    assert_eq!(one.open_atom::<i64>("/swapped").await?.swap(|n| n + 1).await?, 2);
    one.open_atom::<i64>("/destroyed").await?.destroy().await?;
    assert!(two.open_atom::<i64>("/destroyed").await.is_err(), "it was destroyed");
    assert_eq!(two.open_atom::<i64>("/set").await?.get().await?, 2);
    assert_eq!(of("refs").count_documents(doc! { "of": { "$exists": true } }).await?, 256);
    Ok(())
}
