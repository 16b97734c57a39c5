//! The traits do what they say, on a file and in memory. The laws in full are in `avout-conformance`.

use std::time::Duration;

use crate::support::*;
use avout_core::backend::{CasOutcome, Coordinator as _, Kind, Store as _, Wake};
use avout_core::protocol::{ClientId, Commit, Delete, Key, Point, Revision, State, Version};
use avout_core::{Error, ErrorKind};
use avout_sql::{Backend, Options};

async fn both(test: impl AsyncFn(Backend)) {
    let place = Place::new();
    test(place.open().await).await;
    test(Options::memory().open().await.expect("memory")).await;
}

fn version(sequence: u64) -> Version {
    Version { epoch: 1, client: ClientId::new(1), slot: 0, sequence }
}

fn state(text: &'static str) -> State {
    State::Bytes(text.as_bytes().into())
}

fn text(state: &State) -> &str {
    let State::Bytes(bytes) = state else { panic!("no bytes") };
    std::str::from_utf8(bytes).expect("text")
}

/// A commit takes effect as a whole at a point of its own, and reads are snapshots.
#[tokio::test]
async fn commits_and_reads() {
    both(async |backend| {
        let c = &backend.coordinator;
        let (a, b) = (key("/a"), key("/b"));
        let before = c.read(&[], None).await.expect("a point").point;
        let first = committed(c.commit(&puts(&[(&a, None, 1), (&b, None, 2)])).await);
        assert!(first.point > before);
        let snapshot = c.read(&[a.clone(), b.clone(), key("/none"), a.clone()], None).await.expect("a snapshot");
        assert_eq!(snapshot.point, first.point);
        let numbers: Vec<_> = snapshot.entries.iter().map(|e| e.as_ref().map(number)).collect();
        assert_eq!(numbers, [Some(1), Some(2), None, Some(1)]);
        assert_eq!(snapshot.entries[1].as_ref().map(|e| &e.revision), Some(&first.revisions[1]));

        // More keys than one statement reads.
        let many: Vec<Key> = (0..200).map(|i| key(&format!("/many/{i}"))).collect();
        let lines: Vec<_> = many.iter().zip(0..).map(|(key, i)| (key, None, i)).collect();
        let second = committed(c.commit(&puts(&lines)).await);
        let snapshot = c.read(&many, None).await.expect("a snapshot");
        assert_eq!(snapshot.point, second.point);
        assert!(snapshot.entries.iter().zip(0..).all(|(e, i)| e.as_ref().is_some_and(|e| number(e) == i)));
    })
    .await;
}

/// A conflict names every stale key, with entries at a point where the others were as expected, and
/// leaves nothing behind.
#[tokio::test]
async fn conflicts_are_fresh() {
    both(async |backend| {
        let c = &backend.coordinator;
        let (a, b, d) = (key("/a"), key("/b"), key("/d"));
        let old_a = create(c, &a, 1).await;
        let now_b = create(c, &b, 1).await;
        let now_a = committed(c.commit(&puts(&[(&a, Some(&old_a), 2)])).await);
        let mut commit = puts(&[(&b, Some(&now_b), 9), (&a, Some(&old_a), 9)]);
        commit.checks = checks(&[(&d, Some(&Revision::text("foreign")))]);
        let found = conflict(c.commit(&commit).await);
        assert_eq!(found.stale, [d.clone(), a.clone()]);
        let fresh = found.fresh.expect("fresh entries");
        assert_eq!(fresh.point, now_a.point);
        assert!(fresh.entries[0].is_none());
        assert_eq!(fresh.entries[1].as_ref().map(number), Some(2));
        assert_eq!(read(c, &b).await.as_ref().map(number), Some(1));
        assert_eq!(c.read(&[], None).await.expect("a point").point, now_a.point);
        // A key that must be absent and is not.
        assert_eq!(conflict(c.commit(&puts(&[(&a, None, 0)])).await).stale, [a]);
    })
    .await;
}

/// A commit of checks alone is answered from a snapshot, and takes no point.
#[tokio::test]
async fn checks_alone() {
    both(async |backend| {
        let c = &backend.coordinator;
        let a = key("/a");
        let revision = create(c, &a, 1).await;
        let good = Commit { checks: checks(&[(&a, Some(&revision)), (&key("/no"), None)]), ..Commit::default() };
        assert_eq!(committed(c.commit(&good).await).point, Point::new(1));
        let bad = Commit { checks: checks(&[(&a, None)]), ..Commit::default() };
        let found = conflict(c.commit(&bad).await);
        assert_eq!((found.stale, found.fresh.expect("fresh").entries.len()), (vec![a], 1));
        assert_eq!(committed(c.commit(&Commit::default()).await).point, Point::new(1));
    })
    .await;
}

/// A revision never comes again, not even when its key is deleted and made again.
#[tokio::test]
async fn revisions_are_unique() {
    both(async |backend| {
        let c = &backend.coordinator;
        let a = key("/a");
        let first = create(c, &a, 1).await;
        let delete = Commit { deletes: vec![Delete { key: a.clone(), revision: first.clone() }], ..Commit::default() };
        committed(c.commit(&delete).await);
        assert!(read(c, &a).await.is_none());
        assert_eq!(conflict(c.commit(&delete).await).stale, std::slice::from_ref(&a));
        assert_ne!(create(c, &a, 1).await, first);

        let atom = backend.store.state(&a);
        let one = atom.set_state(state("x")).await.expect("set");
        atom.destroy().await.expect("destroyed");
        atom.destroy().await.expect("destroyed again");
        assert!(atom.state().await.expect("read").is_none());
        assert_ne!(atom.set_state(state("x")).await.expect("set"), one);
    })
    .await;
}

/// Atoms compare and set, and tell what they found.
#[tokio::test]
async fn atoms() {
    both(async |backend| {
        let atom = backend.store.state(&key("/a"));
        atom.init().await.expect("nothing to do");
        let CasOutcome::Set(first) = atom.compare_and_set_state(None, state("1")).await.expect("cas") else {
            panic!("stale")
        };
        let CasOutcome::Stale(Some((found, revision))) =
            atom.compare_and_set_state(None, state("2")).await.expect("cas")
        else {
            panic!("set")
        };
        assert_eq!((text(&found), &revision), ("1", &first));
        let CasOutcome::Set(second) = atom.compare_and_set_state(Some(first), state("2")).await.expect("cas") else {
            panic!("stale")
        };
        let (now, revision) = atom.state().await.expect("read").expect("a state");
        assert_eq!((text(&now), revision), ("2", second));
        let shared = State::Shared(std::sync::Arc::new(1));
        assert_eq!(atom.set_state(shared).await.expect_err("not here").kind(), ErrorKind::Unsupported);
        assert_eq!(backend.store.all_keys(Kind::Atom, &Key::root()).await.expect("keys"), [key("/a")]);
        assert!(backend.store.all_keys(Kind::Ref, &Key::root()).await.expect("keys").is_empty());
    })
    .await;
}

/// Values are written once, found until deleted, and large ones too.
#[tokio::test]
async fn values() {
    both(async |backend| {
        let values = backend.store.versioned_state(&key("/a"));
        let large = State::Bytes(vec![7; 3 << 20].into());
        values.set_state_at(&version(2), large.clone()).await.expect("written");
        values.set_state_at(&version(1), state("one")).await.expect("written");
        values.set_state_at(&version(1), state("one")).await.expect("the same again");
        let other = values.set_state_at(&version(1), state("two")).await.expect_err("another value");
        assert_eq!(other.kind(), ErrorKind::AlreadyExists);
        assert_eq!(text(&values.state_at(&version(1)).await.expect("read").expect("a value")), "one");
        assert_eq!(values.state_at(&version(2)).await.expect("read").expect("a value").size(), large.size());
        assert_eq!(values.versions().await.expect("versions"), [version(1), version(2)]);
        values.delete_state_at(&version(1)).await.expect("deleted");
        values.delete_state_at(&version(1)).await.expect("deleted again");
        assert!(values.state_at(&version(1)).await.expect("read").is_none());
        assert_eq!(backend.store.all_keys(Kind::Ref, &key("/a")).await.expect("keys"), [key("/a")]);
        values.destroy().await.expect("destroyed");
        assert!(backend.store.all_keys(Kind::Ref, &Key::root()).await.expect("keys").is_empty());
    })
    .await;
}

/// Listing goes by whole parts of keys; no character means anything but itself.
#[tokio::test]
async fn lists() {
    both(async |backend| {
        let c = &backend.coordinator;
        let names = ["/a", "/a-b", "/a/b", "/a/b/c", "/a0", "/aa", "/%", "/%/x", "/_/x", "/ü/'; --"];
        let mut sorted: Vec<Key> = names.iter().map(|name| key(name)).collect();
        for name in &sorted {
            create(c, name, 1).await;
        }
        sorted.sort();
        assert_eq!(c.list_all(&Key::root()).await.expect("keys"), sorted);
        for prefix in ["/a", "/%", "/_", "/ü", "/none", "/a/b"] {
            let prefix = key(prefix);
            let under: Vec<Key> = sorted.iter().filter(|key| key.is_under(&prefix)).cloned().collect();
            assert_eq!(c.list_all(&prefix).await.expect("keys"), under, "{prefix}");
        }
    })
    .await;
}

/// A watcher wakes for a change of its key since it was made, once for many, and for no other key.
#[tokio::test]
async fn watches() {
    both(async |backend| {
        let c = &backend.coordinator;
        let (a, b) = (key("/a"), key("/b"));
        let first = create(c, &a, 1).await;
        let mut watcher = c.watch(std::slice::from_ref(&a)).await.expect("a watcher");
        create(c, &b, 1).await;
        let quiet = tokio::time::timeout(Duration::from_millis(60), watcher.changed()).await;
        assert!(quiet.is_err(), "woken for another key");
        let second = committed(c.commit(&puts(&[(&a, Some(&first), 2)])).await).revisions.remove(0);
        committed(c.commit(&puts(&[(&a, Some(&second), 3)])).await);
        let wake = tokio::time::timeout(PATIENCE, watcher.changed()).await.expect("a wake").expect("no error");
        assert_eq!(wake, Wake::Changed);

        let atom = backend.store.state(&a);
        atom.set_state(state("1")).await.expect("set");
        let mut of_atom = atom.watch().await.expect("a watcher");
        let quiet = tokio::time::timeout(Duration::from_millis(20), of_atom.changed()).await;
        assert!(quiet.is_err(), "woken without a change");
        atom.set_state(state("2")).await.expect("set");
        tokio::time::timeout(PATIENCE, of_atom.changed()).await.expect("a wake").expect("no error");
        let error: Error = {
            backend.close().await;
            watcher.changed().await.expect_err("closed")
        };
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(c.read(&[a], None).await.expect_err("closed").kind(), ErrorKind::Closed);
    })
    .await;
}

/// A long list, which is read in pages, comes whole and in order, and nothing else with it.
#[tokio::test]
async fn long_lists() {
    let place = Place::new();
    let backend = place.open().await;
    raw(&place.file())
        .execute_batch(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 9999)
             INSERT INTO refs (key, point, record) SELECT '/l/' || i, 1, x'00' FROM n;
             INSERT INTO ref_values (key, version, state) SELECT key, x'00', x'00' FROM refs WHERE id > 0;
             INSERT INTO ref_values (key, version, state) SELECT key, x'01', x'00' FROM refs WHERE id > 0;
             INSERT INTO refs (key, point, record) VALUES ('/l', 1, x'00'), ('/l0', 1, x'00'), ('/k', 1, x'00')",
        )
        .expect("rows");
    let mut expected: Vec<Key> = (0..10_000).map(|n| key(&format!("/l/{n}"))).collect();
    expected.sort_unstable();
    let found = backend.store.all_keys(Kind::Ref, &key("/l")).await.expect("keys");
    assert!(found == expected, "{} keys", found.len());
    expected.insert(0, key("/l"));
    let found = backend.coordinator.list_all(&key("/l")).await.expect("keys");
    assert!(found == expected, "{} keys", found.len());
    assert_eq!(backend.coordinator.list_all(&Key::root()).await.expect("keys").len(), 10_003);
}
