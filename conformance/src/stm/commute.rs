//! Functions that commute, and destroying.

use std::sync::Arc;

use avout_core::{ErrorKind, Isolation};
use tokio::sync::Barrier;

use super::bench::{Runs, add_aside, client, clients, refused_at, rigged, set_aside};
use crate::law::{Ctx, Outcome, laws, together};

laws! { "stm":
    a_commute_does_not_run_the_body_again,
    a_commute_without_fresh_entries_does_not_run_the_body_again,
    concurrent_commutes_lose_nothing_and_run_once,
    a_commute_that_is_read_is_protected,
    two_commutes_of_one_ref_are_both_applied_again,
    a_commute_beside_a_read_protects_the_read,
    a_commute_applied_again_is_validated,
    a_commute_of_a_ref_destroyed_meanwhile_is_not_found,
    a_destroyed_ref_is_not_found_by_anybody,
    a_destroyed_ref_is_made_again_as_another_type,
    a_ref_made_again_before_the_commit_loses_the_attempt,
    a_ref_destroyed_before_the_commit_loses_the_attempt,
    an_absent_ref_that_is_made_loses_its_opener,
    an_absent_ref_that_is_made_loses_who_ensured_or_commuted_it,
}

/// The original's `commute` was `alter`, and behind a held ref ran its function 33 times: here others' commits in
/// between apply the function again, and never run the body again.
async fn a_commute_does_not_run_the_body_again(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let runs = Runs::default();
    let applied = Arc::new(Runs::default());
    let counting = Arc::clone(&applied);
    let other = r.clone();
    let provisional = stm
        .dosync(async |tx| {
            runs.next();
            let counting = Arc::clone(&counting);
            let seen = tx
                .commute(&r, move |n| {
                    counting.next();
                    n + 1
                })
                .await?;
            add_aside(&r, 100).await;
            let other = other.clone();
            rig.before_commit(async move { set_aside(&other, 1000).await });
            Ok(seen)
        })
        .await?;
    assert_eq!((provisional, r.get().await?), (1, 1001));
    assert_eq!(runs.count(), 1, "runs of the body");
    assert!(applied.count() <= 3, "{} applications for two changes", applied.count());
    Ok(())
}

/// The same where conflicts carry no fresh entries.
async fn a_commute_without_fresh_entries_does_not_run_the_body_again(ctx: Ctx) -> Outcome {
    let (stm, _) = rigged(&ctx, |rig| rig.stale()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let s = stm.create_ref("/s", 0_i64).await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        runs.next();
        tx.commute(&r, |n| n + 1).await?;
        tx.commute(&s, |n| n + 1).await?;
        add_aside(&r, 10).await;
        add_aside(&s, 20).await;
        Ok(())
    })
    .await?;
    assert_eq!((r.get().await?, s.get().await?, runs.count()), (11, 21, 1));
    Ok(())
}

/// Twenty transactions that commute two refs at once each run their body once, and all are counted.
async fn concurrent_commutes_lose_nothing_and_run_once(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    // Enough for the last of them to see the second ref as of its first read.
    one.create_ref("/a", 0_i64).history(30).await?;
    one.create_ref("/b", 0_i64).history(30).await?;
    let barrier = Arc::new(Barrier::new(20));
    let tasks = (0..20).map(|task| {
        let stm = if task % 2 == 0 { one.clone() } else { two.clone() };
        let barrier = Arc::clone(&barrier);
        async move {
            let (a, b) = (stm.open_ref::<i64>("/a").await?, stm.open_ref::<i64>("/b").await?);
            let runs = Runs::default();
            stm.dosync(async |tx| {
                runs.next();
                tx.commute(&a, |n| n + 1).await?;
                barrier.wait().await;
                tx.commute(&b, |n| n + 2).await
            })
            .await?;
            Ok(runs.count())
        }
    });
    let runs = together(tasks).await?;
    assert_eq!(runs, [1; 20], "runs of the bodies");
    let (a, b) = (one.open_ref::<i64>("/a").await?, two.open_ref::<i64>("/b").await?);
    assert_eq!((a.get().await?, b.get().await?), (20, 40));
    Ok(())
}

/// A body that reads a ref which it commutes, before or after, is run again when that changes, like an `alter`.
async fn a_commute_that_is_read_is_protected(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    for (name, before, ensured) in [("/1", true, false), ("/2", false, false), ("/3", false, true), ("/4", true, true)]
    {
        let r = stm.create_ref(name, 0_i64).await?;
        let copy = stm.create_ref(format!("/copy{name}"), 0_i64).await?;
        let runs = Runs::default();
        stm.dosync(async |tx| {
            let read = async || if ensured { tx.ensure(&r).await } else { tx.get(&r).await };
            let mut seen = 0;
            if before {
                seen = read().await? + 1;
            }
            tx.commute(&r, |n| n + 1).await?;
            if !before {
                seen = read().await?;
            }
            if runs.next() == 1 {
                add_aside(&r, 10).await;
            }
            tx.set(&copy, seen).await
        })
        .await?;
        assert_eq!((r.get().await?, copy.get().await?, runs.count()), (11, 11, 2), "{name}");
    }
    Ok(())
}

/// Two commutes of one ref in one body are both applied again, in their order.
async fn two_commutes_of_one_ref_are_both_applied_again(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        runs.next();
        tx.commute(&r, |n| n + 1).await?;
        tx.commute(&r, |n| n * 10).await?;
        set_aside(&r, 5).await;
        Ok(())
    })
    .await?;
    assert_eq!((r.get().await?, runs.count()), (60, 1));
    Ok(())
}

/// A body that commutes one ref and reads another is run again when the other changes.
async fn a_commute_beside_a_read_protects_the_read(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 1_i64).await?);
    let runs = Runs::default();
    stm.dosync(async |tx| {
        let step = tx.get(&s).await?;
        tx.commute(&r, move |n| n + step).await?;
        if runs.next() == 1 {
            set_aside(&s, 5).await;
            add_aside(&r, 100).await;
        }
        Ok(())
    })
    .await?;
    assert_eq!((r.get().await?, runs.count()), (105, 2));
    Ok(())
}

/// A value that a commute makes when it is applied again is checked by the validator: a refusal is `Rejected`, and nothing
/// of the transaction is written.
async fn a_commute_applied_again_is_validated(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).validator(|n: &i64| *n <= 10).await?;
    let s = stm.create_ref("/s", 0_i64).await?;
    let done = stm
        .dosync(async |tx| {
            tx.set(&s, 1).await?;
            tx.commute(&r, |n| n + 1).await?;
            set_aside(&r, 10).await;
            Ok(())
        })
        .await;
    refused_at(done, ErrorKind::Rejected, r.key(), "the value of the second application");
    assert_eq!((r.get().await?, s.get().await?), (10, 0));
    Ok(())
}

/// A commute of a ref that is destroyed before the commit is `NotFound`, and nothing is written.
async fn a_commute_of_a_ref_destroyed_meanwhile_is_not_found(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let done = stm
        .dosync(async |tx| {
            tx.set(&s, 1).await?;
            tx.commute(&r, |n| n + 1).await?;
            let r = r.clone();
            super::bench::aside(async move { r.destroy().await }).await
        })
        .await;
    refused_at(done, ErrorKind::NotFound, r.key(), "the commit");
    assert_eq!(s.get().await?, 0);
    Ok(())
}

/// After `destroy` commits, every read and write of the ref by any client is `NotFound`, and nothing of a transaction that
/// tries is written.
async fn a_destroyed_ref_is_not_found_by_anybody(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let s = one.create_ref("/s", 1_i64).await?;
    let (of_r, of_s) = (two.open_ref::<i64>("/r").await?, two.open_ref::<i64>("/s").await?);
    one.dosync(async |tx| {
        tx.destroy(&r).await?;
        tx.set(&s, 2).await
    })
    .await?;
    assert_eq!(of_s.get().await?, 2);
    for (stm, r, s) in [(&one, &r, &s), (&two, &of_r, &of_s)] {
        refused_at(r.get().await, ErrorKind::NotFound, r.key(), "get");
        refused_at(r.destroy().await, ErrorKind::NotFound, r.key(), "destroy");
        let done = stm.dosync(async |tx| {
            tx.set(s, 3).await?;
            tx.set(r, 3).await
        });
        refused_at(done.await, ErrorKind::NotFound, r.key(), "a blind set");
        let done = stm.dosync(async |tx| {
            tx.set(s, 3).await?;
            tx.ensure(r).await
        });
        refused_at(done.await, ErrorKind::NotFound, r.key(), "ensure");
    }
    assert_eq!(s.get().await?, 2, "a transaction that failed has written");
    Ok(())
}

/// A destroyed ref can be made again, also with another type. Handles of the first one then find a `Mismatch`, or the new
/// value if the type is the same.
async fn a_destroyed_ref_is_made_again_as_another_type(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let old = one.create_ref("/r", 1_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    old.destroy().await?;
    let new = two.create_ref("/r", "x".to_owned()).await?;
    assert_eq!(new.get().await?, "x");
    for old in [&old, &of_two] {
        refused_at(old.get().await, ErrorKind::Mismatch, old.key(), "get of an old handle");
        refused_at(old.set(2).await, ErrorKind::Mismatch, old.key(), "set of an old handle");
        refused_at(old.destroy().await, ErrorKind::Mismatch, old.key(), "destroy of an old handle");
    }
    new.set("y".to_owned()).await?;
    assert_eq!(new.history().await?.first().and_then(|past| past.value.clone()), Some("y".to_owned()));
    new.destroy().await?;
    one.create_ref("/r", 5_i64).await?;
    assert_eq!((old.get().await?, of_two.get().await?), (5, 5));
    refused_at(new.get().await, ErrorKind::Mismatch, old.key(), "get of the handle between");
    Ok(())
}

/// A ref that is destroyed and made again with the same value between a read and its commit loses the attempt.
async fn a_ref_made_again_before_the_commit_loses_the_attempt(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let (r, s) = (one.create_ref("/r", 1_i64).await?, one.create_ref("/s", 0_i64).await?);
    let runs = Runs::default();
    one.dosync(async |tx| {
        let seen = tx.get(&r).await?;
        if runs.next() == 1 {
            let two = two.clone();
            super::bench::aside(async move {
                two.open_ref::<i64>("/r").await?.destroy().await?;
                two.create_ref("/r", 1_i64).await
            })
            .await?;
        }
        tx.set(&s, seen).await
    })
    .await?;
    assert_eq!(runs.count(), 2, "the second ref of the name was taken for the first");
    Ok(())
}

/// A ref that is destroyed between a read and its commit loses the attempt, and the next one does not find it.
async fn a_ref_destroyed_before_the_commit_loses_the_attempt(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 1_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let runs = Runs::default();
    let done = stm
        .dosync(async |tx| {
            runs.next();
            let seen = tx.get(&r).await?;
            let r = r.clone();
            super::bench::aside(async move { r.destroy().await }).await?;
            tx.set(&s, seen).await
        })
        .await;
    refused_at(done, ErrorKind::NotFound, r.key(), "the second run");
    assert_eq!((runs.count(), s.get().await?), (2, 0));
    Ok(())
}

/// A body that found a ref absent is run again if the ref is made before its commit.
async fn an_absent_ref_that_is_made_loses_its_opener(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let absent = one.create_ref("/absent", 1_i64).await?;
    absent.destroy().await?;
    let runs = Runs::default();
    one.dosync(async |tx| {
        let found = tx.get(&absent).await.ok();
        if runs.next() == 1 {
            assert_eq!(found, None);
            let two = two.clone();
            super::bench::aside(async move { two.create_ref("/absent", 7_i64).await }).await?;
        }
        tx.set(&r, found.unwrap_or(0)).await
    })
    .await?;
    assert_eq!((r.get().await?, runs.count()), (7, 2));
    Ok(())
}

/// The same where the body found it absent by an `ensure` under `Isolation::Snapshot`, or by a `commute`.
async fn an_absent_ref_that_is_made_loses_who_ensured_or_commuted_it(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    for (name, isolation) in [("/ensured", Isolation::Snapshot), ("/commuted", Isolation::Serializable)] {
        let absent = one.create_ref(name, 1_i64).await?;
        absent.destroy().await?;
        let runs = Runs::default();
        let transaction = one.transaction().isolation(isolation);
        let done = transaction.dosync(async |tx| {
            let found = match isolation {
                Isolation::Snapshot => tx.ensure(&absent).await.ok(),
                Isolation::Serializable => tx.commute(&absent, |n| n).await.ok(),
            };
            if runs.next() == 1 {
                assert_eq!(found, None);
                let two = two.clone();
                super::bench::aside(async move { two.create_ref(name, 7_i64).await }).await?;
            }
            tx.set(&r, found.unwrap_or(0)).await
        });
        done.await?;
        assert_eq!((r.get().await?, runs.count()), (7, 2), "{name}");
        r.set(1).await?;
    }
    Ok(())
}
