//! That records and keys come back as they were, whatever is in them.

use std::sync::Arc;

use avout_core::protocol::{CodecId, History, Meta, Put, Realm, Record};
use avout_core::{Payload, Point};
use bytes::Bytes;

use crate::law::{Ctx, Outcome, laws, needs};
use crate::sample::{
    big, committed, hostile_keys, inline, key, keys, meta, number, present, put, puts, record, version, write,
};

laws! { "coordinator":
    records_come_back_equal,
    shared_values_come_back_as_they_are,
    hostile_keys_are_kept_apart,
    takes_records_up_to_its_limit,
    takes_commits_up_to_its_limits,
}

/// The most that a law asks of a coordinator that has no limit.
const ENOUGH_BYTES: usize = 4 << 20;
const ENOUGH_KEYS: usize = 1000;

fn records() -> Vec<Record> {
    let stored = |sequence| Payload::Stored { realm: Realm::new(u128::MAX), version: version(sequence) };
    let bytes = |text: &'static [u8]| Payload::Inline(Bytes::from_static(text));
    let other = Arc::new(Meta {
        realm: Realm::new(0),
        codec: CodecId(255),
        type_tag: "é".repeat(127).into(),
        history: u16::MAX,
    });
    let history = History::from(vec![
        (Point::new(u64::MAX), bytes(b"new")),
        (Point::new(9), Payload::Deleted),
        (Point::new(8), stored(u64::MAX)),
        (Point::new(1), bytes(b"")),
    ]);
    let mut records: Vec<Record> = [
        bytes(b""),
        bytes(b"\0"),
        bytes(b"\xff\xfe not UTF-8 '\"; \r\n"),
        stored(0),
        stored(u64::MAX),
        Payload::Deleted,
        Payload::Inline(big(1000, 3)),
    ]
    .into_iter()
    .map(|payload| Record::first(meta(), payload))
    .collect();
    records.push(Record { history: history.clone(), ..Record::first(meta(), bytes(b"with history")) });
    records.push(Record { history, ..Record::first(other, Payload::Deleted) });
    records
}

/// Any record comes back as it was put: payload of each kind, history, meta.
async fn records_come_back_equal(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let mut last = None;
    for record in records() {
        let expected = record.encode()?;
        let commit = puts([Put { key: key.clone(), revision: last.take(), record: Arc::new(record.clone()) }]);
        last = committed(one.commit(&commit).await?).revisions.pop();
        let found = present(&*two, &key).await?.record;
        assert_eq!(found.encode()?, expected, "{found:?} came back for {record:?}");
    }
    Ok(())
}

/// A coordinator in this process gives back the very value that was put.
async fn shared_values_come_back_as_they_are(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    needs(one.capabilities().in_process, "it does not live in this process")?;
    let key = key("/a");
    let value: avout_core::protocol::Shared = Arc::new("some value".to_owned());
    let record = Arc::new(Record::first(meta(), Payload::Shared(Arc::clone(&value))));
    committed(one.commit(&puts([Put { key: key.clone(), revision: None, record }])).await?);
    let found = present(&*two, &key).await?;
    let Payload::Shared(found) = &found.record.payload else { panic!("{:?} came back", found.record.payload) };
    assert!(Arc::ptr_eq(found, &value), "another value came back");
    Ok(())
}

/// Keys that look alike to a store, or mean something to it, are different keys, and are listed as they are.
async fn hostile_keys_are_kept_apart(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let mut all = hostile_keys();
    for (n, key) in all.iter().enumerate() {
        let outcome = one.commit(&puts([put(key, None, n as u64)])).await?;
        assert!(
            matches!(outcome, avout_core::protocol::CommitOutcome::Committed(_)),
            "{key} is taken for another key, since it is not absent"
        );
    }
    for (n, key) in all.iter().enumerate() {
        assert_eq!(number(&present(&*two, key).await?), n as u64, "{key}");
    }
    all.sort_unstable();
    assert_eq!(two.list_all(&avout_core::Key::root()).await?, all);
    Ok(())
}

/// A record of just the largest size comes back whole.
async fn takes_records_up_to_its_limit(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let capabilities = one.capabilities();
    let key = key("/a");
    let limit = capabilities.max_record.min(capabilities.max_commit - key.as_str().len()).min(ENOUGH_BYTES);
    let overhead = record(0).encoded_size() - 8;
    let value = big(limit - overhead, 1);
    let record = inline(value.clone());
    assert_eq!(record.encoded_size(), limit);
    committed(one.commit(&puts([Put { key: key.clone(), revision: None, record }])).await?);
    let found = present(&*two, &key).await?;
    let Payload::Inline(found) = &found.record.payload else { panic!("{:?} came back", found.record.payload) };
    assert!(*found == value, "{} bytes came back for {}, or others", found.len(), value.len());
    Ok(())
}

/// A commit and a read of as many keys and as many bytes as the capabilities name succeed, all or nothing.
async fn takes_commits_up_to_its_limits(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let capabilities = one.capabilities();
    let all = keys("k", capabilities.max_keys.min(ENOUGH_KEYS));
    let names: usize = all.iter().map(|key| key.as_str().len()).sum();
    let overhead = record(0).encoded_size() - 8;
    let room = capabilities.max_commit.min(ENOUGH_BYTES) - names;
    let size = (room / all.len()).min(capabilities.max_record) - overhead;
    let commit = |revisions: Vec<Option<avout_core::Revision>>, seed| {
        puts(all.iter().zip(revisions).map(|(key, revision)| Put {
            key: key.clone(),
            revision,
            record: inline(big(size, seed)),
        }))
    };
    let done = committed(one.commit(&commit(vec![None; all.len()], 1)).await?);
    assert_eq!(done.revisions.len(), all.len());
    let snapshot = two.read(&all, None).await?;
    for (key, (entry, told)) in all.iter().zip(snapshot.entries.iter().zip(&done.revisions)) {
        let entry = entry.as_ref().unwrap_or_else(|| panic!("{key} is missing"));
        assert_eq!((&entry.revision, entry.point), (told, one.entry_point(told, done.point)), "{key}");
        assert_eq!(entry.record.payload.inline_bytes(), size, "{key}");
    }
    let put = done.revisions[0].clone();
    // And once more, with the last key changed by another client: nothing may be put.
    let last = all.last().expect("a commit takes a key at least");
    write(&*two, last, 5).await?;
    crate::sample::conflict(one.commit(&commit(done.revisions.into_iter().map(Some).collect(), 2)).await?);
    let first = present(&*two, &all[0]).await?;
    if all.len() > 1 {
        assert_eq!(first.revision, put, "the first key was put by a commit that conflicted");
    }
    Ok(())
}
