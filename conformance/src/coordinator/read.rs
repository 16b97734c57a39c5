//! What a snapshot shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use avout_core::backend::Coordinator;
use avout_core::protocol::{CommitOutcome, Snapshot};
use avout_core::{ErrorKind, Key, Point, Revision};
use rand::RngExt as _;

use crate::law::{Ctx, Failure, Outcome, laws, needs, together};
use crate::sample::{committed, conflict, delete, entry, increment, key, keys, number, put, puts, write};

laws! { "coordinator":
    absent_reads_as_none,
    no_keys_ask_for_the_point_alone,
    a_key_asked_twice_is_answered_twice,
    an_acknowledged_commit_is_read_by_all,
    an_entry_has_the_point_of_its_commit,
    points_grow,
    a_snapshot_never_shows_half_a_commit,
    a_snapshot_shows_what_was_current_at_its_point,
    reads_as_of_an_earlier_point,
    ignores_at_without_native_snapshots,
    an_answer_at_once_is_like_any_other,
}

/// What is answered at once is what would have been answered to who waits: commits of either kind are in the snapshots of both,
/// and conflict alike.
async fn an_answer_at_once_is_like_any_other(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let watched = [key("/a"), key("/b"), key("/a")];
    let first = write(&*one, &watched[0], 1).await?;
    let Some(snapshot) = two.read_now(&watched) else {
        let change = puts([put(&watched[0], Some(&first.revisions[0]), 2)]);
        if two.capabilities().in_process && two.commit_now(&change).is_some() {
            panic!("commits are answered at once, and reads are not");
        }
        let unheard = entry(&*one, &watched[0]).await?.as_ref().map(number);
        assert_eq!(unheard, Some(1), "a commit that was not answered at once took effect");
        return needs(false, "it answers nothing at once");
    };
    assert!(snapshot.point >= first.point, "{:?} is before the acknowledged {:?}", snapshot.point, first.point);
    assert_eq!(format!("{:?}", snapshot.entries), format!("{:?}", one.read(&watched, None).await?.entries));

    let change = |seen: &Revision, to| puts([put(&watched[0], Some(seen), to), put(&watched[1], None, to)]);
    let Some(outcome) = two.commit_now(&change(&first.revisions[0], 2)) else {
        panic!("reads are answered at once, and commits are not");
    };
    let second = committed(outcome);
    assert!(second.point > snapshot.point, "a commit at {:?} after a read at {:?}", second.point, snapshot.point);
    let now = one.read(&watched, None).await?;
    assert!(now.point >= second.point);
    let told: Vec<_> = now.entries.iter().flatten().map(|entry| (number(entry), entry.point)).collect();
    assert_eq!(told, [(2, second.point); 3]);

    let again = change(&first.revisions[0], 3);
    let at_once = two.commit_now(&again).expect("a commit was answered at once before");
    assert_eq!(conflict(at_once).stale, conflict(one.commit(&again).await?).stale);
    assert_eq!(format!("{:?}", two.read_now(&watched).map(|s| s.entries)), format!("{:?}", Some(now.entries)));
    Ok(())
}

/// A key with no record is `None`, at its place among others.
async fn absent_reads_as_none(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let [a, b, c] = [key("/a"), key("/b"), key("/c")];
    assert!(coordinator.read(std::slice::from_ref(&a), None).await?.entries[0].is_none());
    write(&*coordinator, &b, 1).await?;
    let found = coordinator.read(&[a, b, c], None).await?.entries;
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, false]);
    Ok(())
}

/// No keys are a question for the point, which is not before any acknowledged commit.
async fn no_keys_ask_for_the_point_alone(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let empty = one.read(&[], None).await?;
    assert!(empty.entries.is_empty());
    let committed = write(&*one, &key("/a"), 1).await?;
    assert!(committed.point > empty.point, "a commit at {:?} after a read at {:?}", committed.point, empty.point);
    let point = two.read(&[], None).await?.point;
    assert!(point >= committed.point, "{point:?} is before the acknowledged {:?}", committed.point);
    Ok(())
}

/// Entries come in the order of the keys, one for each, also if a key occurs twice.
async fn a_key_asked_twice_is_answered_twice(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let [a, b, none] = [key("/a"), key("/b"), key("/none")];
    write(&*coordinator, &a, 1).await?;
    write(&*coordinator, &b, 2).await?;
    let found = coordinator.read(&[b.clone(), a.clone(), none.clone(), b.clone(), none, a, b], None).await?.entries;
    let numbers: Vec<u64> = found.iter().map(|entry| entry.as_ref().map_or(0, number)).collect();
    assert_eq!(numbers, [2, 1, 0, 2, 0, 1, 2]);
    Ok(())
}

/// What was acknowledged to one client is read by every other one from then on, at a point not before it.
async fn an_acknowledged_commit_is_read_by_all(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let key = key("/a");
    for round in 1..=40 {
        let (writer, reader) = (&clients[round % 2], &clients[(round + 1) % 2]);
        let committed = write(&**writer, &key, round as u64).await?;
        let snapshot = reader.read(std::slice::from_ref(&key), None).await?;
        let read = snapshot.entries[0].as_ref().map(number);
        assert_eq!(read, Some(round as u64), "another client reads something older");
        assert!(snapshot.point >= committed.point, "read at {:?}, before {:?}", snapshot.point, committed.point);
    }
    Ok(())
}

/// An entry's point is that of the commit that put it, and its revision the one that this commit was told.
async fn an_entry_has_the_point_of_its_commit(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let both = keys("a", 2);
    let commit = committed(one.commit(&puts([put(&both[0], None, 1), put(&both[1], None, 2)])).await?);
    write(&*one, &key("/other"), 3).await?;
    let snapshot = two.read(&both, None).await?;
    for (entry, revision) in snapshot.entries.iter().zip(&commit.revisions) {
        let entry = entry.as_ref().expect("it was committed");
        assert_eq!((entry.point, &entry.revision), (commit.point, revision));
        assert!(entry.point <= snapshot.point, "an entry of {:?} read at {:?}", entry.point, snapshot.point);
    }
    Ok(())
}

/// Points grow along the order of commits, whichever client and key they are of, and what commits after a
/// read has a later point than it.
async fn points_grow(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let keys = keys("a", 3);
    let mut last = Point::ZERO;
    for round in 0..30 {
        let client = &clients[round % 2];
        let read = client.read(&keys[..round % 3], None).await?.point;
        assert!(read >= last, "a read at {read:?} after a commit at {last:?}");
        let commit = write(&*clients[(round + 1) % 2], &keys[round % 3], round as u64).await?;
        assert!(commit.point > last, "a commit at {:?} after one at {last:?}", commit.point);
        assert!(commit.point > read, "a commit at {:?} after a read at {read:?}", commit.point);
        last = commit.point;
    }
    let entry = crate::sample::present(&*clients[0], &keys[0]).await?;
    let deleted = committed(
        clients[0]
            .commit(&avout_core::protocol::Commit {
                deletes: vec![delete(&keys[0], &entry.revision)],
                ..Default::default()
            })
            .await?,
    );
    assert!(deleted.point > last, "a delete at {:?} after a commit at {last:?}", deleted.point);
    Ok(())
}

/// Reads the keys again and again until the writers are done, and some times in any case.
async fn read_while(
    client: Arc<dyn Coordinator>,
    keys: Vec<Key>,
    done: Arc<AtomicBool>,
) -> Result<Vec<Snapshot>, Failure> {
    let mut snapshots = Vec::new();
    while snapshots.len() < 20 || !done.load(Ordering::SeqCst) {
        snapshots.push(client.read(&keys, None).await?);
        tokio::task::yield_now().await;
    }
    Ok(snapshots)
}

/// Two keys that are always put together are never read with different values, nor with different points.
async fn a_snapshot_never_shows_half_a_commit(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let pair = keys("pair", 2);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        clients.iter().map(|client| tokio::spawn(read_while(client.clone(), pair.clone(), done.clone()))).collect();
    let writers = (0..4).map(|task| {
        let (client, pair) = (clients[task % 2].clone(), pair.clone());
        async move {
            let mut written = 0;
            while written < 15 {
                let seen = client.read(&pair, None).await?.entries;
                let next = seen[0].as_ref().map_or(0, number) + 1;
                let revision = |place: usize| seen[place].as_ref().map(|entry| &entry.revision);
                let commit = puts([put(&pair[0], revision(0), next), put(&pair[1], revision(1), next)]);
                written += u32::from(matches!(client.commit(&commit).await?, CommitOutcome::Committed(_)));
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    let written = together(writers).await;
    done.store(true, Ordering::SeqCst);
    written?;
    for reader in readers {
        for snapshot in reader.await.expect("the reader does not panic")? {
            let seen: Vec<_> = snapshot.entries.iter().map(|e| e.as_ref().map(|e| (number(e), e.point))).collect();
            assert_eq!(seen[0], seen[1], "half of a commit, read at {:?}", snapshot.point);
        }
    }
    Ok(())
}

/// Each entry of a snapshot, absent ones too, is what the last commit at or before its point left.
async fn a_snapshot_shows_what_was_current_at_its_point(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let all = keys("k", 5);
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> =
        clients.iter().map(|client| tokio::spawn(read_while(client.clone(), all.clone(), done.clone()))).collect();
    let writers = (0..4).map(|task| {
        let (client, all, mut rng) = (clients[task % 2].clone(), all.clone(), ctx.rng(task as u64));
        async move {
            let mut history = Vec::new();
            for _ in 0..15 {
                let place = rng.random_range(0..all.len());
                let (value, commit) = increment(&*client, &all[place]).await?;
                history.push((place, commit.point, value));
            }
            Ok(history)
        }
    });
    let histories = together(writers).await;
    done.store(true, Ordering::SeqCst);
    let mut current = vec![BTreeMap::from([(Point::ZERO, 0)]); all.len()];
    for (place, point, value) in histories?.into_iter().flatten() {
        assert!(current[place].insert(point, value).is_none(), "two commits at {point:?}");
    }
    for reader in readers {
        for snapshot in reader.await.expect("the reader does not panic")? {
            for (place, entry) in snapshot.entries.iter().enumerate() {
                let (_, expected) = current[place].range(..=snapshot.point).next_back().expect("the first is at zero");
                let read = entry.as_ref().map_or(0, number);
                assert_eq!(read, *expected, "{} at {:?}", all[place], snapshot.point);
            }
        }
    }
    Ok(())
}

/// With native snapshots a read as of an earlier point shows exactly that point, or says that it is too old.
async fn reads_as_of_an_earlier_point(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    needs(one.capabilities().native_snapshots, "it has no native snapshots")?;
    let both = keys("a", 2);
    write(&*one, &both[0], 1).await?;
    let early = one.read(&[], None).await?.point;
    write(&*one, &both[0], 2).await?;
    write(&*one, &both[1], 3).await?;
    match two.read(&both, Some(early)).await {
        Ok(snapshot) => {
            assert_eq!(snapshot.point, early);
            assert_eq!(snapshot.entries[0].as_ref().map(number), Some(1));
            assert!(snapshot.entries[1].is_none(), "a record that was put later");
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::TooOld, "{error:?}"),
    }
    let now = two.read(&both, None).await?;
    assert_eq!(now.entries[0].as_ref().map(number), Some(2), "a read without `at` after one with it");
    Ok(())
}

/// Without native snapshots `at` changes nothing: the entries are the current ones.
async fn ignores_at_without_native_snapshots(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    needs(!coordinator.capabilities().native_snapshots, "it has native snapshots")?;
    let key = key("/a");
    write(&*coordinator, &key, 1).await?;
    let early = coordinator.read(&[], None).await?.point;
    let committed = write(&*coordinator, &key, 2).await?;
    let snapshot = coordinator.read(std::slice::from_ref(&key), Some(early)).await?;
    assert_eq!(snapshot.entries[0].as_ref().map(number), Some(2));
    assert!(snapshot.point >= committed.point, "entries of {:?} at {:?}", committed.point, snapshot.point);
    Ok(())
}
