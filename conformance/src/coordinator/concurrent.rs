//! Commits of many tasks on two clients at a time.

use std::time::Instant;

use avout_core::protocol::{Commit, CommitOutcome};
use avout_core::{Key, Revision};
use rand::RngExt as _;

use crate::law::{Ctx, Outcome, laws, together};
use crate::sample::{check, committed, conflict, delete, increment, key, keys, number, present, put, puts, write};

laws! { "coordinator":
    no_increment_is_lost,
    disjoint_commits_all_succeed,
    of_racing_creators_one_wins,
    write_skew_is_impossible_with_checks,
    transfers_keep_the_total,
    points_follow_real_time,
    a_commit_that_only_checks_passes_on_nothing_old,
}

/// Increments by compare and commit, by many tasks on two clients, add up, and each sum is committed once.
async fn no_increment_is_lost(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let key = key("/count");
    let tasks = (0..10).map(|task| {
        let (client, key) = (clients[task % 2].clone(), key.clone());
        async move {
            let mut sums = Vec::new();
            for _ in 0..10 {
                let (sum, commit) = increment(&*client, &key).await?;
                sums.push((commit.point, sum));
            }
            Ok(sums)
        }
    });
    let mut sums: Vec<_> = together(tasks).await?.into_iter().flatten().collect();
    sums.sort_unstable();
    assert_eq!(sums.iter().map(|(_, sum)| *sum).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
    assert_eq!(number(&present(&*clients[0], &key).await?), 100);
    Ok(())
}

/// Commits that have no key in common never conflict.
async fn disjoint_commits_all_succeed(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let common = key("/common");
    let seen = write(&*clients[0], &common, 0).await?.revisions.remove(0);
    let tasks = (0..10).map(|task| {
        let (client, common, seen) = (clients[task % 2].clone(), common.clone(), seen.clone());
        async move {
            let own = keys(&format!("task{task}"), 2);
            let mut last = [None, None];
            for n in 0..8 {
                let commit = Commit {
                    // A key that all check and nobody puts is no reason to conflict either.
                    checks: vec![check(&common, Some(&seen))],
                    puts: own.iter().zip(&last).map(|(key, last)| put(key, last.as_ref(), n)).collect(),
                    ..Commit::default()
                };
                let done = committed(client.commit(&commit).await?);
                last = <[_; 2]>::try_from(done.revisions).expect("a revision for each put").map(Some);
            }
            Ok(())
        }
    });
    together(tasks).await.map(drop)
}

/// Of many commits that put a key as an absent one, at a time, exactly one succeeds, and its record is there.
async fn of_racing_creators_one_wins(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    for round in 0..5 {
        let key = key(&format!("/a/{round}"));
        let tasks = (0..8_u64).map(|task| {
            let (client, commit) = (clients[task as usize % 2].clone(), puts([put(&key, None, task)]));
            async move { Ok((task, client.commit(&commit).await?)) }
        });
        let outcomes = together(tasks).await?;
        let won: Vec<u64> = outcomes
            .into_iter()
            .filter_map(|(task, outcome)| matches!(outcome, CommitOutcome::Committed(_)).then_some(task))
            .collect();
        assert_eq!(won.len(), 1, "{} creators won", won.len());
        assert_eq!(number(&present(&*clients[0], &key).await?), won[0]);
    }
    Ok(())
}

/// Of two commits that each check the key that the other one puts, at most one succeeds.
async fn write_skew_is_impossible_with_checks(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    for round in 0..30 {
        let pair = keys(&format!("pair{round}"), 2);
        // Present keys in one half of the rounds and absent ones in the other: stores check them in different ways.
        if round % 2 == 0 {
            committed(clients[0].commit(&puts([put(&pair[0], None, 1), put(&pair[1], None, 1)])).await?);
        }
        let seen = clients[0].read(&pair, None).await?.entries;
        let revision = |n: usize| seen[n].as_ref().map(|entry| &entry.revision);
        let tasks = [0, 1].map(|mine| {
            let commit = Commit {
                checks: vec![check(&pair[1 - mine], revision(1 - mine))],
                puts: vec![put(&pair[mine], revision(mine), 0)],
                ..Commit::default()
            };
            let client = clients[mine].clone();
            async move { Ok(client.commit(&commit).await?) }
        });
        let outcomes = together(tasks).await?;
        let won = outcomes.iter().filter(|outcome| matches!(outcome, CommitOutcome::Committed(_))).count();
        assert!(won < 2, "both commits succeeded, in round {round}");
    }
    Ok(())
}

/// Transfers between accounts, by many tasks on two clients, keep the total, in every snapshot.
async fn transfers_keep_the_total(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let accounts = keys("account", 4);
    committed(clients[0].commit(&puts(accounts.iter().map(|key| put(key, None, 100)))).await?);
    let tasks = (0..6).map(|task| {
        let (client, accounts, mut rng) = (clients[task % 2].clone(), accounts.clone(), ctx.rng(task as u64));
        async move {
            let mut done = 0;
            while done < 8 {
                let seen = client.read(&accounts, None).await?.entries;
                let seen: Vec<_> = seen.into_iter().map(|entry| entry.expect("no account is removed")).collect();
                let total: u64 = seen.iter().map(number).sum();
                assert_eq!(total, 400, "the total in a snapshot");
                let from = rng.random_range(0..accounts.len());
                let to = (from + rng.random_range(1..accounts.len())) % accounts.len();
                let amount = rng.random_range(0..=number(&seen[from]));
                let commit = puts([
                    put(&accounts[from], Some(&seen[from].revision), number(&seen[from]) - amount),
                    put(&accounts[to], Some(&seen[to].revision), number(&seen[to]) + amount),
                ]);
                done += u32::from(matches!(client.commit(&commit).await?, CommitOutcome::Committed(_)));
                tokio::task::yield_now().await;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    let end = clients[1].read(&accounts, None).await?.entries;
    assert_eq!(end.iter().flatten().map(number).sum::<u64>(), 400, "the total at the end");
    Ok(())
}

/// A commit that was acknowledged before another one was sent has the lower point, also on other keys and
/// other clients, and no two have the same.
async fn points_follow_real_time(ctx: Ctx) -> Outcome {
    let clients = ctx.coordinators().await?;
    let tasks = (0..6).map(|task| {
        let client = clients[task % 2].clone();
        async move {
            let key = key(&format!("/task/{task}"));
            let mut last = None;
            let mut done = Vec::new();
            for n in 0..12 {
                let sent = Instant::now();
                let commit = committed(client.commit(&puts([put(&key, last.as_ref(), n)])).await?);
                done.push((sent, Instant::now(), commit.point));
                last = commit.revisions.into_iter().next();
            }
            Ok(done)
        }
    });
    let done: Vec<_> = together(tasks).await?.into_iter().flatten().collect();
    for (n, (sent, _, point)) in done.iter().enumerate() {
        for (m, (_, acknowledged, other)) in done.iter().enumerate() {
            assert!(n == m || point != other, "two commits at {point:?}");
            assert!(acknowledged >= sent || other < point, "{point:?} was sent after {other:?} was acknowledged");
        }
    }
    Ok(())
}

/// A commit that only checks, sent as soon as another client's commit was acknowledged, passes on what that left and on nothing
/// older, whichever member of the store each of the two talks to.
async fn a_commit_that_only_checks_passes_on_nothing_old(ctx: Ctx) -> Outcome {
    let [one, two] = ctx.coordinators().await?;
    fn checks(key: &Key, revision: Option<&Revision>) -> Commit {
        Commit { checks: vec![check(key, revision)], ..Commit::default() }
    }
    for round in 0..25 {
        let key = key(&format!("/k/{round}"));
        // What a member of the store lags behind with is what it has shown before.
        assert!(two.read(std::slice::from_ref(&key), None).await?.entries[0].is_none());
        let first = committed(one.commit(&puts([put(&key, None, 1)])).await?).revisions.remove(0);
        conflict(two.commit(&checks(&key, None)).await?);
        committed(two.commit(&checks(&key, Some(&first))).await?);
        let second = committed(one.commit(&puts([put(&key, Some(&first), 2)])).await?);
        conflict(two.commit(&checks(&key, Some(&first))).await?);
        let passed = committed(two.commit(&checks(&key, Some(&second.revisions[0]))).await?);
        assert!(passed.point >= second.point, "{:?}, after a commit at {:?}", passed.point, second.point);
        let deletes = vec![delete(&key, &second.revisions[0])];
        committed(one.commit(&Commit { deletes, ..Commit::default() }).await?);
        conflict(two.commit(&checks(&key, Some(&second.revisions[0]))).await?);
    }
    Ok(())
}
