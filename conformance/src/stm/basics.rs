//! What a body sees of its own, and what is there afterwards.

use avout_core::ErrorKind;

use super::bench::{Runs, client, clients, refused_at};
use crate::law::{Ctx, Outcome, laws};

laws! { "stm":
    hello,
    a_body_reads_what_it_has_written,
    a_body_reads_what_it_has_commuted,
    a_body_finds_nothing_that_it_has_destroyed,
    writes_are_seen_by_nobody_before_the_commit,
    get_many_takes_tuples_slices_and_vectors,
    get_arc_is_the_value,
    ref_methods_are_transactions_of_their_own,
    a_transaction_of_nothing_commits,
    a_transaction_of_many_refs_commits_as_one,
    clones_of_a_handle_are_one_ref,
    reads_side_by_side_in_one_body_agree,
}

/// Two refs are changed as one, and another client finds both changes.
async fn hello(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let count = one.create_or_open_ref("/count", 0_i64).await?;
    let log = one.create_or_open_ref("/log", Vec::<i64>::new()).await?;
    for _ in 0..3 {
        one.dosync(async |tx| {
            let n = tx.alter(&count, |n| n + 1).await?;
            tx.alter(&log, |mut log| {
                log.push(n);
                log
            })
            .await
        })
        .await?;
    }
    let count = two.open_ref::<i64>("/count").await?;
    let log = two.open_ref::<Vec<i64>>("/log").await?;
    let found = two.dosync(async |tx| tx.get_many((&count, &log)).await).await?;
    assert_eq!(found, (3, vec![1, 2, 3]));
    Ok(())
}

/// After each kind of write, and after each pair of them, `get` in the same body gives the new value, and so
/// does every read after the commit.
async fn a_body_reads_what_it_has_written(ctx: Ctx) -> Outcome {
    const KINDS: usize = 4;
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    for pair in 0..KINDS * KINDS {
        for read_first in [false, true] {
            r.set(1).await?;
            let expected = stm
                .dosync(async |tx| {
                    let mut expected = 1;
                    if read_first {
                        assert_eq!(tx.get(&r).await?, 1);
                    }
                    for kind in [pair / KINDS, pair % KINDS] {
                        match kind {
                            0 => {
                                expected = 100;
                                tx.set(&r, 100).await?;
                            }
                            1 => {
                                expected *= 3;
                                assert_eq!(tx.alter(&r, |n| n * 3).await?, expected);
                            }
                            2 => {
                                expected += 7;
                                assert_eq!(tx.commute(&r, |n| n + 7).await?, expected);
                            }
                            _ => {
                                let before = expected;
                                expected -= 2;
                                let out = tx.update(&r, |n| std::mem::replace(n, *n - 2)).await?;
                                assert_eq!(out, before, "update's own answer, in pair {pair}");
                            }
                        }
                        assert_eq!(tx.get(&r).await?, expected, "after kind {kind} of pair {pair}");
                        assert_eq!(tx.get_many((&r, &r)).await?, (expected, expected), "in pair {pair}");
                    }
                    Ok(expected)
                })
                .await?;
            assert_eq!(r.get().await?, expected, "after pair {pair}");
        }
    }
    Ok(())
}

/// Writes of each kind that are never read back in the body are committed all the same, in their order.
async fn a_body_reads_what_it_has_commuted(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    stm.dosync(async |tx| {
        assert_eq!(tx.commute(&r, |n| n + 1).await?, 2);
        assert_eq!(tx.commute(&r, |n| n * 10).await?, 20);
        Ok(())
    })
    .await?;
    assert_eq!(r.get().await?, 20, "two commutes of one ref");
    stm.dosync(async |tx| {
        tx.set(&r, 5).await?;
        assert_eq!(tx.commute(&r, |n| n + 1).await?, 6);
        Ok(())
    })
    .await?;
    assert_eq!(r.get().await?, 6, "a commute after a set");
    stm.dosync(async |tx| {
        tx.commute(&r, |n| n + 1).await?;
        tx.set(&r, 9).await
    })
    .await?;
    assert_eq!(r.get().await?, 9, "a set after a commute");
    Ok(())
}

/// A ref that the body has destroyed is not found by any read or write of the same body.
async fn a_body_finds_nothing_that_it_has_destroyed(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    for read_first in [false, true] {
        let done = stm
            .dosync(async |tx| {
                if read_first {
                    tx.get(&r).await?;
                }
                tx.destroy(&r).await?;
                refused_at(tx.get(&r).await, ErrorKind::NotFound, r.key(), "get");
                refused_at(tx.set(&r, 2).await, ErrorKind::NotFound, r.key(), "set");
                refused_at(tx.alter(&r, |n| n).await, ErrorKind::NotFound, r.key(), "alter");
                refused_at(tx.commute(&r, |n| n).await, ErrorKind::NotFound, r.key(), "commute");
                refused_at(tx.ensure(&r).await, ErrorKind::NotFound, r.key(), "ensure");
                refused_at(tx.update(&r, |_| ()).await, ErrorKind::NotFound, r.key(), "update");
                Err::<(), _>(avout_core::Error::abort("leave it there"))
            })
            .await;
        super::bench::refused(done, ErrorKind::Aborted, "the body");
        assert_eq!(r.get().await?, 1, "an aborted destroy");
    }
    Ok(())
}

/// What a body has written is not seen by others while the body is still running.
async fn writes_are_seen_by_nobody_before_the_commit(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    one.dosync(async |tx| {
        tx.set(&r, 2).await?;
        for handle in [&r, &of_two] {
            let handle = handle.clone();
            let seen = super::bench::aside(async move { handle.get().await }).await?;
            assert_eq!(seen, 1, "an uncommitted value is seen");
        }
        Ok(())
    })
    .await?;
    assert_eq!(of_two.get().await?, 2);
    Ok(())
}

/// `get_many` gives tuples of mixed types and vectors of one type, in the order of the refs, also if one is named
/// twice or was written before.
async fn get_many_takes_tuples_slices_and_vectors(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let a = stm.create_ref("/a", 1_i64).await?;
    let b = stm.create_ref("/b", 2_i64).await?;
    let s = stm.create_ref("/s", "x".to_owned()).await?;
    stm.dosync(async |tx| {
        assert_eq!(tx.get_many((&b,)).await?, (2,));
        assert_eq!(tx.get_many((&s, &a, &b, &a)).await?, ("x".to_owned(), 1, 2, 1));
        assert_eq!(tx.get_many((&a, &a, &a, &a, &a, &a, &a, &s)).await?.7, "x");
        assert_eq!(tx.get_many([&b, &a]).await?, [2, 1]);
        assert_eq!(tx.get_many(&[a.clone(), b.clone()]).await?, [1, 2]);
        assert_eq!(tx.get_many(&vec![b.clone()]).await?, [2]);
        assert_eq!(tx.get_many(&[a.clone(), b.clone()][..]).await?, [1, 2]);
        assert_eq!(tx.get_many(vec![&a, &b, &a]).await?, [1, 2, 1]);
        assert!(tx.get_many(&Vec::<avout_core::Ref<i64>>::new()).await?.is_empty());
        tx.set(&a, 10).await?;
        tx.commute(&b, |n| n + 1).await?;
        assert_eq!(tx.get_many((&a, &b)).await?, (10, 3));
        Ok(())
    })
    .await?;
    Ok(())
}

/// `get_arc` gives the same as `get`, before and after a write.
async fn get_arc_is_the_value(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", vec![1_i64]).await?;
    stm.dosync(async |tx| {
        assert_eq!(*tx.get_arc(&r).await?, [1]);
        tx.update(&r, |list| list.push(2)).await?;
        assert_eq!(*tx.get_arc(&r).await?, [1, 2]);
        Ok(())
    })
    .await?;
    assert_eq!(r.get().await?, [1, 2]);
    Ok(())
}

/// `get`, `set`, `alter`, `update` and `destroy` of a handle each take effect by themselves.
async fn ref_methods_are_transactions_of_their_own(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 1_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    r.set(5).await?;
    assert_eq!(of_two.get().await?, 5);
    assert_eq!(of_two.alter(|n| n * 2).await?, 10);
    assert_eq!(r.get().await?, 10);
    assert_eq!(r.update(|n| std::mem::replace(n, 3)).await?, 10);
    assert_eq!(of_two.get().await?, 3);
    r.destroy().await?;
    refused_at(of_two.get().await, ErrorKind::NotFound, r.key(), "get after destroy");
    Ok(())
}

/// A body that touches no ref ends with its own answer, after one run.
async fn a_transaction_of_nothing_commits(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let runs = Runs::default();
    let answer = stm
        .dosync(async |_| {
            runs.next();
            Ok("answer")
        })
        .await?;
    assert_eq!((answer, runs.count()), ("answer", 1));
    Ok(())
}

/// A transaction over a hundred refs takes effect as one.
async fn a_transaction_of_many_refs_commits_as_one(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    if one.coordinator().capabilities().max_keys < 110 {
        return crate::law::needs(false, "the coordinator takes fewer keys at once");
    }
    let mut refs = Vec::new();
    for n in 0..100 {
        refs.push(one.create_ref(format!("/many/{n}"), 0_i64).await?);
    }
    one.dosync(async |tx| {
        for r in &refs {
            tx.set(r, 7).await?;
        }
        Ok(())
    })
    .await?;
    let mut others = Vec::new();
    for n in 0..100 {
        others.push(two.open_ref::<i64>(format!("/many/{n}")).await?);
    }
    two.dosync(async |tx| {
        assert_eq!(tx.get_many(&others).await?, [7; 100]);
        for r in &others {
            tx.commute(r, |n| n + 1).await?;
        }
        Ok(())
    })
    .await?;
    assert_eq!(one.dosync(async |tx| tx.get_many(&refs).await).await?, [8; 100]);
    Ok(())
}

/// Two handles of one ref in one body see each other's writes.
async fn clones_of_a_handle_are_one_ref(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let one = stm.create_ref("/r", 1_i64).await?;
    let two = stm.open_ref::<i64>("/r").await?;
    stm.dosync(async |tx| {
        tx.set(&one, 2).await?;
        assert_eq!(tx.get(&two).await?, 2);
        tx.commute(&two, |n| n + 1).await?;
        assert_eq!(tx.alter(&one.clone(), |n| n * 2).await?, 6);
        Ok(())
    })
    .await?;
    assert_eq!(two.get().await?, 6);
    Ok(())
}

/// Reads that one body makes side by side are of one moment, while another client goes on writing.
async fn reads_side_by_side_in_one_body_agree(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let a = one.create_ref("/a", 0_i64).await?;
    let b = one.create_ref("/b", 0_i64).await?;
    let (of_a, of_b) = (two.open_ref::<i64>("/a").await?, two.open_ref::<i64>("/b").await?);
    let writer = tokio::spawn(async move {
        for n in 1..=60 {
            two.dosync(async |tx| {
                tx.set(&of_a, n).await?;
                tx.set(&of_b, n).await
            })
            .await?;
        }
        Outcome::Ok(())
    });
    while !writer.is_finished() {
        tokio::task::yield_now().await;
        one.dosync(async |tx| {
            let (a, b) = tokio::join!(tx.get(&a), tx.get(&b));
            assert_eq!(a?, b?, "two reads side by side");
            Ok(())
        })
        .await?;
    }
    writer.await.expect("the writer does not panic")?;
    Ok(())
}
