//! When a commit takes effect, and what it changes.

use avout_core::protocol::{Commit, CommitOutcome};

use crate::law::{Ctx, Outcome, laws, needs, together};
use crate::sample::{check, committed, conflict, delete, entry, key, keys, number, present, put, puts, write};

laws! { "coordinator":
    puts_what_is_absent_and_replaces_what_is_as_expected,
    a_put_of_a_present_key_as_absent_conflicts,
    a_put_on_an_old_revision_conflicts,
    a_put_on_an_absent_key_with_a_revision_conflicts,
    a_put_with_another_keys_revision_conflicts,
    checks_alone_commit_and_change_nothing,
    a_failing_check_alone_conflicts,
    a_failing_check_stops_the_puts,
    a_check_for_absence_is_kept,
    deletes_what_is_as_expected,
    a_delete_of_what_is_not_as_expected_conflicts,
    revisions_are_parallel_to_the_puts,
    each_put_changes_the_revision,
    a_deleted_keys_revisions_never_return,
    fifty_keys_commit_whole_or_not_at_all,
}

/// A key that is absent gets a record, and a record with the expected revision a successor.
async fn puts_what_is_absent_and_replaces_what_is_as_expected(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let first = committed(one.commit(&puts([put(&key, None, 1)])).await?);
    assert_eq!(number(&present(&*two, &key).await?), 1);
    committed(two.commit(&puts([put(&key, Some(&first.revisions[0]), 2)])).await?);
    assert_eq!(number(&present(&*one, &key).await?), 2);
    Ok(())
}

/// `None` expects the key to be absent.
async fn a_put_of_a_present_key_as_absent_conflicts(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    write(&*one, &key, 1).await?;
    let conflict = conflict(two.commit(&puts([put(&key, None, 2)])).await?);
    assert_eq!(conflict.stale, std::slice::from_ref(&key));
    assert_eq!(number(&present(&*two, &key).await?), 1, "the conflict changed the record");
    Ok(())
}

/// A revision that was replaced is not expected any more.
async fn a_put_on_an_old_revision_conflicts(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    let old = write(&*one, &key, 1).await?;
    write(&*two, &key, 2).await?;
    conflict(one.commit(&puts([put(&key, Some(&old.revisions[0]), 3)])).await?);
    assert_eq!(number(&present(&*one, &key).await?), 2, "the conflict changed the record");
    Ok(())
}

/// A key that was deleted has no revision at all.
async fn a_put_on_an_absent_key_with_a_revision_conflicts(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let key = key("/a");
    let old = write(&*coordinator, &key, 1).await?;
    let gone = Commit { deletes: vec![delete(&key, &old.revisions[0])], ..Commit::default() };
    committed(coordinator.commit(&gone).await?);
    conflict(coordinator.commit(&puts([put(&key, Some(&old.revisions[0]), 2)])).await?);
    assert!(entry(&*coordinator, &key).await?.is_none(), "the conflict made a record");
    Ok(())
}

/// A record is compared by its own revision: one that its key does not have, because it was put more often, is not expected.
async fn a_put_with_another_keys_revision_conflicts(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let [a, b] = [key("/a"), key("/b")];
    write(&*coordinator, &a, 1).await?;
    write(&*coordinator, &b, 1).await?;
    let other = write(&*coordinator, &b, 2).await?;
    conflict(coordinator.commit(&puts([put(&a, Some(&other.revisions[0]), 3)])).await?);
    assert_eq!(number(&present(&*coordinator, &a).await?), 1);
    Ok(())
}

/// A commit of checks that hold succeeds, leaves records and revisions as they are, and is ordered after what it checked.
async fn checks_alone_commit_and_change_nothing(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let [a, none] = [key("/a"), key("/none")];
    let written = write(&*coordinator, &a, 1).await?;
    let revision = &written.revisions[0];
    for _ in 0..2 {
        let checks = vec![check(&a, Some(revision)), check(&none, None)];
        let done = committed(coordinator.commit(&Commit { checks, ..Commit::default() }).await?);
        assert!(done.point >= written.point, "checked at {:?}, put at {:?}", done.point, written.point);
        assert!(done.revisions.is_empty(), "revisions of no puts");
    }
    let after = present(&*coordinator, &a).await?;
    let point = coordinator.entry_point(revision, written.point);
    assert_eq!((&after.revision, after.point, number(&after)), (revision, point, 1), "a check changed it");
    assert!(entry(&*coordinator, &none).await?.is_none(), "a check made a record");
    Ok(())
}

/// A commit of checks conflicts if one of them does not hold.
async fn a_failing_check_alone_conflicts(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let [a, b] = [key("/a"), key("/b")];
    let old = write(&*one, &a, 1).await?;
    let good = write(&*one, &b, 1).await?;
    write(&*two, &a, 2).await?;
    let checks = vec![check(&b, Some(&good.revisions[0])), check(&a, Some(&old.revisions[0]))];
    assert_eq!(conflict(one.commit(&Commit { checks, ..Commit::default() }).await?).stale, [a]);
    Ok(())
}

/// Checks protect the puts and deletes beside them.
async fn a_failing_check_stops_the_puts(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let [read, written, gone] = [key("/read"), key("/written"), key("/gone")];
    let old = write(&*one, &read, 1).await?;
    let kept = write(&*one, &gone, 1).await?;
    write(&*two, &read, 2).await?;
    let commit = Commit {
        checks: vec![check(&read, Some(&old.revisions[0]))],
        puts: vec![put(&written, None, 1)],
        deletes: vec![delete(&gone, &kept.revisions[0])],
    };
    assert_eq!(conflict(one.commit(&commit).await?).stale, [read]);
    assert!(entry(&*two, &written).await?.is_none(), "put though a check failed");
    assert!(entry(&*two, &gone).await?.is_some(), "deleted though a check failed");
    Ok(())
}

/// A check of `None` holds while the key is absent, and only then.
async fn a_check_for_absence_is_kept(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let [absent, a, b] = [key("/absent"), key("/a"), key("/b")];
    let commit =
        |key| Commit { checks: vec![check(&absent, None)], puts: vec![put(key, None, 1)], ..Commit::default() };
    committed(one.commit(&commit(&a)).await?);
    write(&*two, &absent, 1).await?;
    assert_eq!(conflict(one.commit(&commit(&b)).await?).stale, std::slice::from_ref(&absent));
    assert!(entry(&*one, &b).await?.is_none(), "put though a check failed");
    Ok(())
}

/// A delete leaves no record; the key can be put again as an absent one, beside other changes.
async fn deletes_what_is_as_expected(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let [a, b] = [key("/a"), key("/b")];
    let written = write(&*one, &a, 1).await?;
    let commit =
        Commit { puts: vec![put(&b, None, 2)], deletes: vec![delete(&a, &written.revisions[0])], ..Commit::default() };
    let done = committed(two.commit(&commit).await?);
    assert_eq!(done.revisions.len(), 1, "one revision for the one put");
    assert!(entry(&*one, &a).await?.is_none(), "a deleted record is read");
    assert_eq!(number(&present(&*one, &b).await?), 2);
    committed(one.commit(&puts([put(&a, None, 3)])).await?);
    assert_eq!(number(&present(&*two, &a).await?), 3);
    Ok(())
}

/// A delete expects a revision as a put does.
async fn a_delete_of_what_is_not_as_expected_conflicts(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let [a, b] = [key("/a"), key("/b")];
    let old = write(&*coordinator, &a, 1).await?;
    write(&*coordinator, &a, 2).await?;
    for stale in [&a, &b] {
        let deletes = vec![delete(stale, &old.revisions[0])];
        let conflict = conflict(coordinator.commit(&Commit { deletes, ..Commit::default() }).await?);
        assert_eq!(conflict.stale, std::slice::from_ref(stale));
    }
    assert_eq!(number(&present(&*coordinator, &a).await?), 2, "the conflict deleted it");
    Ok(())
}

/// A commit is told one revision for each put, in their order, which read and the next commit take at once.
async fn revisions_are_parallel_to_the_puts(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let keys = keys("a", 5);
    // The keys are put a different number of times, so that their revisions differ where they are counted by key.
    for (n, key) in keys.iter().enumerate() {
        for value in 0..n {
            write(&*one, key, value as u64).await?;
        }
    }
    let now = one.read(&keys, None).await?.entries;
    let revision = |n: usize| now[n].as_ref().map(|entry| &entry.revision);
    let checked = check(&keys[2], revision(2));
    let commit = Commit {
        checks: vec![checked],
        puts: [4, 0, 3].map(|n| put(&keys[n], revision(n), 100 + n as u64)).into(),
        deletes: vec![delete(&keys[1], revision(1).expect("it was put once"))],
    };
    let done = committed(one.commit(&commit).await?);
    assert_eq!(done.revisions.len(), 3);
    for (n, told) in [4, 0, 3].into_iter().zip(&done.revisions) {
        let found = present(&*two, &keys[n]).await?;
        assert_eq!((&found.revision, number(&found)), (told, 100 + n as u64), "{}", keys[n]);
    }
    let next = [4, 0, 3].into_iter().zip(&done.revisions).map(|(n, told)| put(&keys[n], Some(told), 200));
    committed(two.commit(&puts(next)).await?);
    Ok(())
}

/// Each put gives a revision that differs from the one before, also where the record is the same.
async fn each_put_changes_the_revision(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    let key = key("/a");
    let mut last = None;
    for _ in 0..10 {
        let done = committed(coordinator.commit(&puts([put(&key, last.as_ref(), 1)])).await?);
        let [next] = <[_; 1]>::try_from(done.revisions).expect("one revision for one put");
        assert_ne!(Some(&next), last.as_ref(), "two puts in a row have one revision");
        if let Some(old) = &last {
            conflict(coordinator.commit(&puts([put(&key, Some(old), 2)])).await?);
        }
        last = Some(next);
    }
    Ok(())
}

/// With unique revisions a key that is deleted and put again never has a revision it had before.
async fn a_deleted_keys_revisions_never_return(ctx: Ctx) -> Outcome {
    let coordinator = ctx.coordinator().await?;
    needs(coordinator.capabilities().unique_revisions, "its revisions may return after a delete")?;
    let key = key("/a");
    let mut seen: Vec<avout_core::Revision> = Vec::new();
    for _ in 0..5 {
        for value in 0..3 {
            let revision = write(&*coordinator, &key, value).await?.revisions.remove(0);
            assert!(!seen.contains(&revision), "{revision:?} is back, after {seen:?}");
            seen.push(revision);
        }
        let deletes = vec![delete(&key, seen.last().expect("three were pushed"))];
        committed(coordinator.commit(&Commit { deletes, ..Commit::default() }).await?);
    }
    Ok(())
}

/// A commit of fifty keys takes effect as a whole, or, one of them not being as expected, not at all.
async fn fifty_keys_commit_whole_or_not_at_all(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    needs(one.capabilities().max_keys >= 50, "a commit takes less than 50 keys")?;
    let all = keys("k", 50);
    // Two commits of the same keys at a time: one of them wins all.
    for round in 1..=6_u64 {
        let now = one.read(&all, None).await?.entries;
        let commits = [&one, &two].into_iter().zip([2 * round, 2 * round + 1]).map(|(client, value)| {
            let of = |(key, entry): (_, &Option<avout_core::protocol::Entry>)| {
                put(key, entry.as_ref().map(|entry| &entry.revision), value)
            };
            let (client, commit) = (client.clone(), puts(all.iter().zip(&now).map(of)));
            async move { Ok((value, client.commit(&commit).await?)) }
        });
        let won: Vec<u64> = together(commits)
            .await?
            .into_iter()
            .filter_map(|(value, outcome)| matches!(outcome, CommitOutcome::Committed(_)).then_some(value))
            .collect();
        assert_eq!(won.len(), 1, "of two commits of the same keys {} succeeded", won.len());
        for (key, entry) in all.iter().zip(&one.read(&all, None).await?.entries) {
            assert_eq!(entry.as_ref().map(number), Some(won[0]), "{key}, of a commit that succeeded");
        }
    }
    let now = one.read(&all, None).await?.entries;
    write(&*two, &all[33], 999).await?;
    let puts = puts(all.iter().zip(&now).map(|(key, entry)| put(key, entry.as_ref().map(|e| &e.revision), 1000)));
    assert_eq!(conflict(one.commit(&puts).await?).stale, [all[33].clone()]);
    for (key, entry) in all.iter().zip(&one.read(&all, None).await?.entries) {
        assert_ne!(entry.as_ref().map(number), Some(1000), "{key} was put by a commit that conflicted");
    }
    Ok(())
}
