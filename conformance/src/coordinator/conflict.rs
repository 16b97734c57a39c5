//! What a conflict tells.

use avout_core::backend::Coordinator;
use avout_core::protocol::{Commit, Conflict, Entry};
use avout_core::{Key, Result};

use crate::law::{Ctx, Outcome, laws, needs};
use crate::sample::{check, conflict, delete, key, keys, number, present, put, puts, write};

laws! { "coordinator":
    a_conflict_names_stale_keys_only,
    a_conflicts_fresh_entries_are_right,
    a_commit_on_fresh_entries_succeeds,
    a_conflict_has_no_effect_later,
}

/// A commit whose keys are in turn as expected, replaced, deleted, made, or deleted and made; gives it and
/// the keys that are not as expected.
async fn mostly_stale(one: &dyn Coordinator, two: &dyn Coordinator) -> Result<(Commit, Vec<Key>), crate::law::Failure> {
    let all = keys("k", 8);
    for (n, key) in all.iter().enumerate().take(6) {
        write(one, key, n as u64).await?;
    }
    let seen = one.read(&all, None).await?.entries;
    let revision = |n: usize| seen[n].as_ref().map(|entry| &entry.revision);
    write(two, &all[1], 11).await?;
    write(two, &all[3], 13).await?;
    write(two, &all[5], 15).await?;
    write(two, &all[7], 17).await?;
    let gone = Commit { deletes: vec![delete(&all[2], revision(2).expect("it was put"))], ..Commit::default() };
    crate::sample::committed(two.commit(&gone).await?);
    let commit = Commit {
        checks: [0, 1, 6, 7].map(|n| check(&all[n], revision(n))).into(),
        puts: [2, 3].map(|n| put(&all[n], revision(n), 100)).into(),
        deletes: [4, 5].map(|n| delete(&all[n], revision(n).expect("it was put"))).into(),
    };
    Ok((commit, [1, 7, 2, 3, 5].map(|n| all[n].clone()).into()))
}

/// A conflict names at least one key, and none that was as expected; with fresh entries it names all.
async fn a_conflict_names_stale_keys_only(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let (commit, mut stale) = mostly_stale(&*one, &*two).await?;
    let Conflict { stale: mut told, fresh } = conflict(one.commit(&commit).await?);
    assert!(!told.is_empty(), "a conflict with no key");
    told.sort_unstable();
    stale.sort_unstable();
    if fresh.is_some() {
        assert_eq!(told, stale, "with fresh entries all stale keys are named, once");
    } else {
        assert!(told.iter().all(|key| stale.contains(key)), "{told:?} are not all among the stale {stale:?}");
    }
    Ok(())
}

fn shown(entry: &Option<Entry>) -> Option<(avout_core::Revision, avout_core::Point, u64)> {
    entry.as_ref().map(|entry| (entry.revision.clone(), entry.point, number(entry)))
}

/// Fresh entries are what a read gives, in the order of the stale keys, at a point not before them.
async fn a_conflicts_fresh_entries_are_right(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let (commit, _) = mostly_stale(&*one, &*two).await?;
    let before = one.read(&[], None).await?.point;
    let Conflict { stale, fresh } = conflict(one.commit(&commit).await?);
    needs(fresh.is_some(), "its conflicts carry no fresh entries")?;
    let fresh = fresh.expect("it was just looked at");
    let read = two.read(&stale, None).await?;
    assert_eq!(fresh.entries.len(), stale.len());
    for (key, (told, read)) in stale.iter().zip(fresh.entries.iter().zip(&read.entries)) {
        assert_eq!(shown(told), shown(read), "the fresh entry of {key} is not the current one");
    }
    assert!(before <= fresh.point && fresh.point <= read.point, "{before:?} {:?} {:?}", fresh.point, read.point);
    Ok(())
}

/// A commit that expects what a conflict told succeeds with no read between.
async fn a_commit_on_fresh_entries_succeeds(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let key = key("/a");
    write(&*two, &key, 1).await?;
    let conflict = conflict(one.commit(&puts([put(&key, None, 2)])).await?);
    needs(conflict.fresh.is_some(), "its conflicts carry no fresh entries")?;
    let fresh = conflict.fresh.expect("it was just looked at");
    let revision = fresh.entries[0].as_ref().map(|entry| &entry.revision);
    crate::sample::committed(one.commit(&puts([put(&key, revision, 3)])).await?);
    assert_eq!(number(&present(&*two, &key).await?), 3);
    Ok(())
}

/// A commit that conflicted does not take effect when its expectations come true afterwards.
async fn a_conflict_has_no_effect_later(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    let [guard, target] = [key("/guard"), key("/target")];
    let seen = write(&*one, &guard, 1).await?;
    let commit = Commit { checks: vec![check(&guard, None)], puts: vec![put(&target, None, 1)], ..Commit::default() };
    conflict(two.commit(&commit).await?);
    let gone = Commit { deletes: vec![delete(&guard, &seen.revisions[0])], ..Commit::default() };
    crate::sample::committed(one.commit(&gone).await?);
    for _ in 0..5 {
        let found = one.read(std::slice::from_ref(&target), None).await?;
        assert!(found.entries[0].is_none(), "it took effect after its conflict");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}
