//! Atomicity and isolation under load, in both isolation levels.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use avout_core::{Isolation, Ref, Stm};
use rand::RngExt as _;
use tokio::sync::Barrier;

use super::bench::{Runs, client, clients, set_aside};
use crate::law::{Ctx, Failure, Outcome, laws, together};

laws! { "stm":
    transfers_keep_the_sum_in_every_body,
    counters_lose_nothing,
    two_counters_are_never_apart,
    write_skew_is_impossible,
    write_skew_of_vectors_is_impossible,
    write_skew_is_possible_under_snapshot,
    ensure_prevents_write_skew_under_snapshot,
    no_update_is_lost_under_snapshot,
    a_blind_write_under_snapshot_overwrites_nothing_unseen,
    atom_swaps_lose_nothing,
    a_lost_body_has_seen_one_moment,
    reads_see_what_was_committed_before,
    one_of_conflicting_transactions_commits,
}

/// While tasks of two clients move amounts between refs, every run of every body sees the same sum, also
/// runs that are lost later, and so does every reader.
async fn transfers_keep_the_sum_in_every_body(ctx: Ctx) -> Outcome {
    const REFS: usize = 5;
    const EACH: i64 = 100;
    for isolation in [Isolation::Serializable, Isolation::Snapshot] {
        let [one, two] = clients(&ctx).await?;
        let open = async |stm: &Stm| {
            let mut refs = Vec::new();
            for n in 0..REFS {
                refs.push(stm.create_or_open_ref(format!("/account/{n}"), EACH).await?);
            }
            Ok::<_, Failure>(refs)
        };
        let both = [(one.clone(), open(&one).await?), (two.clone(), open(&two).await?)];
        let over = Arc::new(AtomicBool::new(false));
        let readers = both.clone().map(|(stm, refs)| {
            let over = Arc::clone(&over);
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    tokio::task::yield_now().await;
                    let sum = stm.dosync(async |tx| {
                        let mut sum = 0;
                        for r in &refs {
                            sum += tx.get(r).await?;
                        }
                        assert_eq!(sum, EACH * REFS as i64, "in a reader's body");
                        Ok(sum)
                    });
                    assert_eq!(sum.await?, EACH * REFS as i64);
                }
                Outcome::Ok(())
            })
        });
        let writers = (0..6_u64).map(|task| {
            let (stm, refs) = both[task as usize % 2].clone();
            let mut rng = ctx.rng(task);
            async move {
                for _ in 0..25 {
                    let (from, to) = (rng.random_range(0..REFS), rng.random_range(0..REFS));
                    let (amount, one_request) = (rng.random_range(1..20), rng.random_bool(0.5));
                    let transfer = stm.transaction().isolation(isolation).dosync(async |tx| {
                        let mut values = Vec::new();
                        if one_request {
                            values = tx.get_many(&refs).await?;
                        } else {
                            for r in &refs {
                                values.push(tx.get(r).await?);
                            }
                        }
                        assert_eq!(values.iter().sum::<i64>(), EACH * REFS as i64, "in a body: {values:?}");
                        tx.alter(&refs[from], |n| n - amount).await?;
                        tx.alter(&refs[to], |n| n + amount).await?;
                        Ok::<_, avout_core::Error>(())
                    });
                    transfer.await?;
                }
                Ok(())
            }
        });
        let done = together(writers).await;
        over.store(true, Ordering::SeqCst);
        for reader in readers {
            match reader.await {
                Ok(read) => read?,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
        done?;
    }
    Ok(())
}

/// Ten tasks of two clients add to one ref in each way there is, and the count is exact.
async fn counters_lose_nothing(ctx: Ctx) -> Outcome {
    const TIMES: i64 = 20;
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let tasks = (0..10).map(|task| {
        let (stm, r) = if task % 2 == 0 { (one.clone(), r.clone()) } else { (two.clone(), of_two.clone()) };
        async move {
            for round in 0..TIMES {
                match (task + round) % 4 {
                    0 => drop(r.alter(|n| n + 1).await?),
                    1 => r.update(|n| *n += 1).await?,
                    2 => drop(stm.dosync(async |tx| tx.commute(&r, |n| n + 1).await).await?),
                    _ => {
                        stm.dosync(async |tx| {
                            let n = tx.get(&r).await?;
                            tx.set(&r, n + 1).await
                        })
                        .await?;
                    }
                }
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(r.get().await?, 10 * TIMES);
    Ok(())
}

/// Two refs that are always changed together are never seen apart, by single reads in one body.
async fn two_counters_are_never_apart(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let refs = (one.create_ref("/a", 0_i64).await?, one.create_ref("/b", 0_i64).await?);
    let others = (two.open_ref::<i64>("/a").await?, two.open_ref::<i64>("/b").await?);
    let tasks = [(one, refs), (two, others)].into_iter().flat_map(|(stm, refs)| {
        (0..3).map(move |_| {
            let (stm, (a, b)) = (stm.clone(), refs.clone());
            async move {
                for _ in 0..20 {
                    stm.dosync(async |tx| {
                        let n = tx.alter(&a, |n| n + 1).await?;
                        tokio::task::yield_now().await;
                        assert_eq!(tx.alter(&b, |n| n + 1).await?, n, "two refs are apart");
                        Ok(())
                    })
                    .await?;
                }
                Ok(())
            }
        })
    });
    together(tasks).await?;
    Ok(())
}

/// Runs transactions that each read all refs and write their own, begun at once; gives how many of them
/// found every ref as it was at first.
async fn skew(stm: &Stm, other: &Stm, n: usize, isolation: Isolation, ensure: bool) -> Result<usize, Failure> {
    let name = |n: usize| format!("/skew/{n}");
    for n in 0..n {
        stm.create_or_open_ref(name(n), 0_i64).await?.set(0).await?;
    }
    let together_now = Arc::new(Barrier::new(n));
    let tasks = (0..n).map(|own| {
        let stm = if own % 2 == 0 { stm.clone() } else { other.clone() };
        let barrier = Arc::clone(&together_now);
        async move {
            let mut refs = Vec::new();
            for n in 0..n {
                refs.push(stm.open_ref::<i64>(name(n)).await?);
            }
            let runs = Runs::default();
            let first = stm.transaction().isolation(isolation).dosync(async |tx| {
                let mut sum = 0;
                for r in &refs {
                    sum += if ensure { tx.ensure(r).await? } else { tx.get(r).await? };
                }
                if runs.next() == 1 {
                    barrier.wait().await;
                }
                if sum == 0 {
                    tx.set(&refs[own], 1).await?;
                }
                Ok::<_, avout_core::Error>(sum == 0)
            });
            Ok(first.await?)
        }
    });
    Ok(together(tasks).await?.into_iter().filter(|first| *first).count())
}

/// The original let transactions commit that each had read what the other wrote: here, of up to ten that may
/// write only if nobody has, one does.
async fn write_skew_is_impossible(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    for n in [2, 3, 5, 10] {
        assert_eq!(skew(&one, &two, n, Isolation::Serializable, false).await?, 1, "of {n} transactions");
    }
    Ok(())
}

/// The same with two lists of which one may be appended to if both together are short enough.
async fn write_skew_of_vectors_is_impossible(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let open = async |stm: &Stm| -> Result<[Ref<Vec<i64>>; 2], Failure> {
        Ok([stm.create_or_open_ref("/a", vec![]).await?, stm.create_or_open_ref("/b", vec![]).await?])
    };
    let both = [(one.clone(), open(&one).await?), (two.clone(), open(&two).await?)];
    let all_have_read = Arc::new(Barrier::new(10));
    let tasks = (0..10_usize).map(|task| {
        let (stm, lists) = both[task % 2].clone();
        let all_have_read = Arc::clone(&all_have_read);
        async move {
            let runs = Runs::default();
            stm.dosync(async |tx| {
                let (a, b) = tx.get_many((&lists[0], &lists[1])).await?;
                if runs.next() == 1 {
                    all_have_read.wait().await;
                }
                if a.len() + b.len() < 5 {
                    tx.update(&lists[task / 2 % 2], |list| list.push(task as i64)).await?;
                }
                Ok(())
            })
            .await?;
            Ok(())
        }
    });
    together(tasks).await?;
    let (a, b) = one.dosync(async |tx| tx.get_many((&both[0].1[0], &both[0].1[1])).await).await?;
    assert_eq!(a.len() + b.len(), 5, "{a:?} and {b:?}");
    Ok(())
}

/// Under `Isolation::Snapshot` two transactions can each write what the other has read: it is what one asks for.
async fn write_skew_is_possible_under_snapshot(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    assert_eq!(skew(&one, &two, 2, Isolation::Snapshot, false).await?, 2);
    Ok(())
}

/// The original's `ensure` threw: here it protects what is only read, so that write skew is impossible under
/// `Isolation::Snapshot` too.
async fn ensure_prevents_write_skew_under_snapshot(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    for n in [2, 5, 10] {
        assert_eq!(skew(&one, &two, n, Isolation::Snapshot, true).await?, 1, "of {n} transactions");
    }
    Ok(())
}

/// Under `Isolation::Snapshot` what a body has read and then writes was not changed in between.
async fn no_update_is_lost_under_snapshot(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let all_have_read = Arc::new(Barrier::new(8));
    let tasks = (0..8).map(|task| {
        let (stm, r) = if task % 2 == 0 { (one.clone(), r.clone()) } else { (two.clone(), of_two.clone()) };
        let all_have_read = Arc::clone(&all_have_read);
        async move {
            for _ in 0..15 {
                let runs = Runs::default();
                let add = stm.transaction().isolation(Isolation::Snapshot).dosync(async |tx| {
                    let n = tx.get(&r).await?;
                    if runs.next() == 1 {
                        all_have_read.wait().await;
                    }
                    tx.set(&r, n + 1).await
                });
                add.await?;
            }
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(r.get().await?, 8 * 15);
    Ok(())
}

/// Under `Isolation::Snapshot` a body that has read anything writes over no commit that came after its read point, even to
/// a ref that it has not read.
async fn a_blind_write_under_snapshot_overwrites_nothing_unseen(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let runs = Runs::default();
    stm.transaction()
        .isolation(Isolation::Snapshot)
        .dosync(async |tx| {
            let seen = tx.get(&r).await?;
            if runs.next() == 1 {
                set_aside(&s, 5).await;
            }
            tx.set(&s, seen + 1).await
        })
        .await?;
    assert_eq!(runs.count(), 2, "runs of the body");
    Ok(())
}

/// 25 concurrent swaps of one atom by two clients lose nothing.
async fn atom_swaps_lose_nothing(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let atom = one.create_atom("/a", Vec::<i64>::new()).await?;
    let of_two = two.open_atom::<Vec<i64>>("/a").await?;
    let tasks = (0..25).map(|n| {
        let atom = if n % 2 == 0 { atom.clone() } else { of_two.clone() };
        async move {
            let after = atom
                .swap(|mut list| {
                    list.push(n);
                    list
                })
                .await?;
            assert_eq!(after.last(), Some(&n));
            Ok(())
        }
    });
    together(tasks).await?;
    let mut all = atom.get().await?;
    all.sort_unstable();
    assert_eq!(all, (0..25).collect::<Vec<_>>());
    assert!(!atom.compare_and_set(&vec![], vec![1]).await?, "compare_and_set of what it is not");
    assert!(of_two.compare_and_set(&atom.get().await?, vec![]).await?, "compare_and_set of what it is");
    assert_eq!(of_two.update(|list| list.len()).await?, 0);
    Ok(())
}

/// A body whose first read is overtaken before its second sees both as they were together, though the
/// attempt is lost.
async fn a_lost_body_has_seen_one_moment(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (a, b) = (stm.create_ref("/a", 0_i64).await?, stm.create_ref("/b", 0_i64).await?);
    let both = async |n: i64| {
        let (stm, a, b) = (stm.clone(), a.clone(), b.clone());
        let change = async move {
            stm.dosync(async |tx| {
                tx.set(&a, n).await?;
                tx.set(&b, n).await
            })
            .await
        };
        super::bench::aside(change).await
    };
    let runs = Runs::default();
    stm.dosync(async |tx| {
        let first = tx.get(&a).await?;
        let run = runs.next();
        if run == 1 {
            both(1).await?;
        }
        assert_eq!(tx.get(&b).await?, first, "in run {run}");
        tx.set(&a, first + 10).await
    })
    .await?;
    assert_eq!((runs.count(), a.get().await?), (2, 11));
    Ok(())
}

/// A transaction that begins after another client's commit was acknowledged sees it.
async fn reads_see_what_was_committed_before(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    for n in 1..100 {
        let (writer, reader) = if n % 2 == 0 { (&r, &of_two) } else { (&of_two, &r) };
        writer.set(n).await?;
        assert_eq!(reader.get().await?, n);
    }
    Ok(())
}

/// Of transactions that conflict one commits, at each moment: with no back-off at all, ten of them end.
async fn one_of_conflicting_transactions_commits(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    let of_two = two.open_ref::<i64>("/r").await?;
    let barrier = Arc::new(Barrier::new(10));
    let runs = Arc::new(Runs::default());
    let tasks = (0..10).map(|task| {
        let (stm, r) = if task % 2 == 0 { (one.clone(), r.clone()) } else { (two.clone(), of_two.clone()) };
        let (barrier, runs) = (Arc::clone(&barrier), Arc::clone(&runs));
        async move {
            let own = Runs::default();
            stm.dosync(async |tx| {
                let n = tx.get(&r).await?;
                runs.next();
                if own.next() == 1 {
                    barrier.wait().await;
                }
                tx.set(&r, n + 1).await
            })
            .await?;
            Ok(())
        }
    });
    together(tasks).await?;
    assert_eq!(r.get().await?, 10);
    // Each commit makes at most the nine others lose.
    assert!(runs.count() <= 55, "{} runs for ten transactions", runs.count());
    Ok(())
}
