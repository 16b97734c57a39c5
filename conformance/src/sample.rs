//! The keys, records, values and commits that laws use.

use std::sync::Arc;

use avout_core::backend::Coordinator;
use avout_core::protocol::{
    Check, ClientId, CodecId, Commit, CommitOutcome, Committed, Conflict, Delete, Entry, Meta, Put, Realm, Record,
    State, Version,
};
use avout_core::{Key, Payload, Revision};
use bytes::Bytes;

use crate::law::Failure;

pub(crate) fn key(name: &str) -> Key {
    Key::new(name).expect("the name of a law's key is a key")
}

/// `count` keys under `/prefix`.
pub(crate) fn keys(prefix: &str, count: usize) -> Vec<Key> {
    (0..count).map(|n| key(&format!("/{prefix}/{n}"))).collect()
}

/// Names that are something else to a shell, a query language, a path or a template; and pairs
/// that a careless encoding makes one.
pub(crate) fn hostile_keys() -> Vec<Key> {
    let mut keys: Vec<Key> = [
        "/$where",
        "/$set",
        "/'; --",
        "/\"",
        "/`",
        "/\\",
        "/{}",
        "/{a}",
        "/a/b",
        "/a%2Fb",
        "/a%2fb",
        "/a_b",
        "/a__b",
        "/a.b",
        "/a:b",
        "/a b",
        "/a+b",
        "/a*",
        "/a?",
        "/a[b]",
        "/%",
        "/%%",
        "/%00",
        "/_",
        "/__",
        "/-",
        "/~",
        "/...",
        "/a",
        "/A",
        "/ä",
        "/a\u{308}",
        "/日本",
        "/\u{1F980}",
        "/\u{200B}",
        "/a/",
        "/zookeeper",
        "/.avout2",
        "/null",
        "/0",
        "/00",
    ]
    .iter()
    .filter_map(|name| Key::new(name).ok())
    .collect();
    for last in ["a", "b"] {
        keys.push(key(&format!("/{}{last}", "x".repeat(510))));
        keys.push(key(&format!("/{}{last}", "é".repeat(255))));
        keys.push(key(&format!("{}/{last}", "/y".repeat(255))));
    }
    keys
}

pub(crate) fn meta() -> Arc<Meta> {
    Arc::new(Meta { realm: Realm::new(0xA40), codec: CodecId::MESSAGE_PACK, type_tag: "u64".into(), history: 4 })
}

/// A record whose value is `number`.
pub(crate) fn record(number: u64) -> Arc<Record> {
    inline(Bytes::copy_from_slice(&number.to_be_bytes()))
}

/// A record with these bytes as its value.
pub(crate) fn inline(bytes: Bytes) -> Arc<Record> {
    Arc::new(Record::first(meta(), Payload::Inline(bytes)))
}

/// The number in the record of an entry that [`record`] made.
pub(crate) fn number(entry: &Entry) -> u64 {
    let Payload::Inline(bytes) = &entry.record.payload else {
        panic!("{:?} came back for a record with an inline number", entry.record.payload);
    };
    let Ok(bytes) = <[u8; 8]>::try_from(&bytes[..]) else {
        panic!("{} bytes came back for a record with a number", bytes.len());
    };
    u64::from_be_bytes(bytes)
}

pub(crate) fn put(key: &Key, revision: Option<&Revision>, number: u64) -> Put {
    Put { key: key.clone(), revision: revision.cloned(), record: record(number) }
}

pub(crate) fn check(key: &Key, revision: Option<&Revision>) -> Check {
    Check { key: key.clone(), revision: revision.cloned() }
}

pub(crate) fn delete(key: &Key, revision: &Revision) -> Delete {
    Delete { key: key.clone(), revision: revision.clone() }
}

pub(crate) fn puts(puts: impl IntoIterator<Item = Put>) -> Commit {
    Commit { puts: puts.into_iter().collect(), ..Commit::default() }
}

/// Panics on a conflict.
#[track_caller]
pub(crate) fn committed(outcome: CommitOutcome) -> Committed {
    match outcome {
        CommitOutcome::Committed(committed) => committed,
        CommitOutcome::Conflict(conflict) => panic!("a conflict where every key is as expected: {conflict:?}"),
    }
}

/// Panics on success.
#[track_caller]
pub(crate) fn conflict(outcome: CommitOutcome) -> Conflict {
    match outcome {
        CommitOutcome::Conflict(conflict) => conflict,
        CommitOutcome::Committed(committed) => panic!("committed, though a key is not as expected: {committed:?}"),
    }
}

/// The current entry of one key.
pub(crate) async fn entry(coordinator: &dyn Coordinator, key: &Key) -> Result<Option<Entry>, Failure> {
    let snapshot = coordinator.read(std::slice::from_ref(key), None).await?;
    let [entry] = <[_; 1]>::try_from(snapshot.entries).expect("one key was asked for");
    Ok(entry)
}

/// The current entry of a key that has one.
pub(crate) async fn present(coordinator: &dyn Coordinator, key: &Key) -> Result<Entry, Failure> {
    Ok(entry(coordinator, key).await?.unwrap_or_else(|| panic!("{key} has no record, though one was committed")))
}

/// Puts `number` under a key, whatever is there; gives its commit.
pub(crate) async fn write(coordinator: &dyn Coordinator, key: &Key, number: u64) -> Result<Committed, Failure> {
    loop {
        let current = entry(coordinator, key).await?.map(|entry| entry.revision);
        let outcome = coordinator.commit(&puts([put(key, current.as_ref(), number)])).await?;
        if let CommitOutcome::Committed(committed) = outcome {
            return Ok(committed);
        }
        tokio::task::yield_now().await;
    }
}

/// Adds one to the number under a key, by compare and commit; gives the sum and its commit.
pub(crate) async fn increment(coordinator: &dyn Coordinator, key: &Key) -> Result<(u64, Committed), Failure> {
    loop {
        let current = entry(coordinator, key).await?;
        let next = current.as_ref().map_or(0, number) + 1;
        let revision = current.as_ref().map(|entry| &entry.revision);
        if let CommitOutcome::Committed(committed) = coordinator.commit(&puts([put(key, revision, next)])).await? {
            return Ok((next, committed));
        }
        tokio::task::yield_now().await;
    }
}

pub(crate) fn version(sequence: u64) -> Version {
    Version { epoch: 1, client: ClientId::new(7), slot: 0, sequence }
}

pub(crate) fn state(bytes: impl AsRef<[u8]>) -> State {
    State::Bytes(Bytes::copy_from_slice(bytes.as_ref()))
}

/// `size` bytes, all different from the same stretch of another `seed`'s.
pub(crate) fn big(size: usize, seed: u8) -> Bytes {
    (0..size).map(|n| (n as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// The bytes of a value that was written as bytes.
#[track_caller]
pub(crate) fn bytes(state: &State) -> &Bytes {
    match state {
        State::Bytes(bytes) => bytes,
        State::Shared(_) => panic!("a shared value came back for bytes"),
    }
}
