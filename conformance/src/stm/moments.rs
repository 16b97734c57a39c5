//! Long readers, history, and snapshots of a point.

use avout_core::{Error, ErrorKind};

use super::bench::{Runs, client, clients, large, refused_at, set_aside, small};
use crate::law::{Ctx, Outcome, laws};

laws! { "stm":
    a_long_reader_runs_once_by_history,
    a_reader_whose_history_was_trimmed_runs_again,
    a_reader_of_stored_values_runs_once_by_history,
    a_reader_of_trimmed_stored_values_is_never_wrong,
    a_writer_that_read_history_is_run_again,
    a_blind_write_over_history_commits,
    an_extended_reader_sees_the_newest,
    a_destroyed_ref_is_there_at_an_earlier_moment,
    history_gives_earlier_values,
    a_snapshot_is_one_point,
    a_snapshot_beyond_history_is_too_old,
    a_snapshot_refuses_refs_of_another_client,
}

/// A transaction that only reads, with history enough for it, runs once however often what it reads is changed, sees
/// one moment, and makes no commit.
async fn a_long_reader_runs_once_by_history(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let mut refs = Vec::new();
    let mut others = Vec::new();
    for n in 0..5 {
        refs.push(one.create_ref(format!("/r/{n}"), 0_i64).await?);
        others.push(two.open_ref::<i64>(format!("/r/{n}")).await?);
    }
    let runs = Runs::default();
    let seen = one
        .dosync(async |tx| {
            runs.next();
            let mut seen = Vec::new();
            for r in &refs {
                seen.push(tx.get(r).await?);
                for other in &others {
                    super::bench::add_aside(other, 1).await;
                }
            }
            Ok(seen)
        })
        .await?;
    assert_eq!(seen, [0; 5], "the reader's moment");
    assert_eq!(runs.count(), 1, "runs of the body");
    Ok(())
}

/// A reader whose ref has changed more often than its history reaches runs again, and sees no wrong value.
async fn a_reader_whose_history_was_trimmed_runs_again(ctx: Ctx) -> Outcome {
    for history in [0, 2] {
        let stm = client(&ctx).await?;
        let a = stm.create_ref(format!("/a/{history}"), 0_i64).history(history).await?;
        let b = stm.create_ref(format!("/b/{history}"), 0_i64).history(history).await?;
        let runs = Runs::default();
        let seen = stm
            .dosync(async |tx| {
                let first = tx.get(&a).await?;
                if runs.next() == 1 {
                    for n in 1..=4 {
                        set_aside(&a, n).await;
                        set_aside(&b, n).await;
                    }
                }
                Ok((first, tx.get(&b).await?))
            })
            .await?;
        // A coordinator with snapshots of its own needs no history.
        let native = ctx.coordinator().await?.capabilities().native_snapshots;
        let expected = if native { ((0, 0), 1) } else { ((4, 4), 2) };
        assert_eq!((seen, runs.count()), expected, "with a history of {history}");
    }
    Ok(())
}

/// The same as with values in records holds for values in stores.
async fn a_reader_of_stored_values_runs_once_by_history(ctx: Ctx) -> Outcome {
    let (stm, ..) = small(&ctx).await?;
    let a = stm.create_ref("/a", large(0)).await?;
    let b = stm.create_ref("/b", large(0)).await?;
    let runs = Runs::default();
    let seen = stm
        .dosync(async |tx| {
            runs.next();
            let first = tx.get(&a).await?;
            for n in 1..=4 {
                let (a, b) = (a.clone(), b.clone());
                super::bench::aside(async move {
                    a.set(large(n)).await?;
                    b.set(large(n)).await
                })
                .await?;
            }
            Ok((first, tx.get(&b).await?))
        })
        .await?;
    assert_eq!(seen, (large(0), large(0)));
    assert_eq!(runs.count(), 1, "runs of the body");
    Ok(())
}

/// A reader whose values in a store were trimmed and deleted under it runs again, and sees no wrong value and no error.
async fn a_reader_of_trimmed_stored_values_is_never_wrong(ctx: Ctx) -> Outcome {
    let (stm, ..) = small(&ctx).await?;
    let (other, ..) = small(&ctx).await?;
    let a = stm.create_ref("/a", large(0)).history(1).await?;
    let b = stm.create_ref("/b", large(0)).history(1).await?;
    let runs = Runs::default();
    let seen = stm
        .dosync(async |tx| {
            // The record of b is seen, and its value is not yet fetched.
            tx.prefetch((&a, &b)).await?;
            if runs.next() == 1 {
                let other = other.clone();
                super::bench::aside(async move {
                    let (a, b) = (other.open_ref::<Vec<u8>>("/a").await?, other.open_ref::<Vec<u8>>("/b").await?);
                    for n in 1..=4 {
                        a.set(large(n)).await?;
                        b.set(large(n)).await?;
                    }
                    other.close().await;
                    Ok::<_, Error>(())
                })
                .await?;
            }
            tx.get_many((&a, &b)).await
        })
        .await?;
    assert!(seen == (large(0), large(0)) || seen == (large(4), large(4)), "values of two moments");
    Ok(())
}

/// A body that read a value from history and writes is run again: what it wrote may depend on what is gone.
async fn a_writer_that_read_history_is_run_again(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let a = stm.create_ref("/a", 0_i64).await?;
    let b = stm.create_ref("/b", 0_i64).await?;
    let c = stm.create_ref("/c", 0_i64).await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        let seen = tx.get(&a).await?;
        if runs.next() == 1 {
            set_aside(&a, 1).await;
            set_aside(&b, 1).await;
        }
        let sum = seen + tx.get(&b).await?;
        assert!(sum == 0 || sum == 2, "values of two moments: {sum}");
        tx.set(&c, sum).await
    })
    .await?;
    assert_eq!((c.get().await?, runs.count()), (2, 2));
    Ok(())
}

/// Keys that were only prefetched, commuted or set do not make the body run again, whatever others do to them.
async fn a_blind_write_over_history_commits(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let a = stm.create_ref("/a", 0_i64).await?;
    let b = stm.create_ref("/b", 0_i64).await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        runs.next();
        tx.prefetch((&a, &b)).await?;
        set_aside(&a, 5).await;
        set_aside(&b, 5).await;
        tx.set(&a, 1).await?;
        tx.commute(&b, |n| n + 1).await?;
        Ok(())
    })
    .await?;
    assert_eq!((a.get().await?, b.get().await?, runs.count()), (1, 6, 1));
    Ok(())
}

/// A reader that has read nothing of what was changed sees the newest values, and commits what it writes.
async fn an_extended_reader_sees_the_newest(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let a = stm.create_ref("/a", 0_i64).await?;
    let b = stm.create_ref("/b", 0_i64).await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        runs.next();
        tx.get(&a).await?;
        set_aside(&b, 5).await;
        assert_eq!(tx.get(&b).await?, 5, "after an extension");
        tx.set(&a, 1).await
    })
    .await?;
    assert_eq!(runs.count(), 1);
    Ok(())
}

/// A reader finds a ref that was destroyed after its read point, and a ref made after it makes it run again.
async fn a_destroyed_ref_is_there_at_an_earlier_moment(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let a = stm.create_ref("/a", 1_i64).await?;
    let b = stm.create_ref("/b", 2_i64).await?;
    let runs = Runs::default();
    let seen = stm
        .dosync(async |tx| {
            runs.next();
            let first = tx.get(&a).await?;
            let (a, doomed) = (a.clone(), b.clone());
            super::bench::aside(async move {
                a.alter(|n| n).await?;
                match doomed.destroy().await {
                    Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                    done => done,
                }
            })
            .await?;
            Ok((first, tx.get(&b).await?))
        })
        .await?;
    assert_eq!((seen, runs.count()), ((1, 2), 1));
    refused_at(b.get().await, ErrorKind::NotFound, b.key(), "afterwards");
    Ok(())
}

/// `history` gives the values that are still held, newest first, with growing points and destruction as `None`.
async fn history_gives_earlier_values(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).history(3).await?;
    for n in 1..=5 {
        r.set(n).await?;
    }
    let of_two = two.open_ref::<i64>("/r").await?;
    for r in [&r, &of_two] {
        let past = r.history().await?;
        assert_eq!(past.iter().map(|past| past.value).collect::<Vec<_>>(), [5, 4, 3, 2].map(Some));
        assert!(past.windows(2).all(|pair| pair[0].point > pair[1].point), "{past:?}");
    }
    of_two.destroy().await?;
    one.create_ref("/r", 9_i64).history(3).await?;
    let values: Vec<_> = r.history().await?.into_iter().map(|past| past.value).collect();
    assert_eq!(values, [Some(9), None, Some(5), Some(4)]);
    let none = one.create_ref("/none", 0_i64).history(0).await?;
    none.set(1).await?;
    assert_eq!(none.history().await?.len(), 1);
    Ok(())
}

/// A snapshot shows all refs as they were when it was taken, whatever is committed after it.
async fn a_snapshot_is_one_point(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let a = one.create_ref("/a", 0_i64).await?;
    let b = one.create_ref("/b", "0".to_owned()).await?;
    let gone = one.create_ref("/gone", 1_i64).await?;
    gone.destroy().await?;
    let snapshot = one.snapshot().await?;
    let (of_a, of_b) = (two.open_ref::<i64>("/a").await?, two.open_ref::<String>("/b").await?);
    for n in 1..4 {
        two.dosync(async |tx| {
            tx.set(&of_a, n).await?;
            tx.set(&of_b, n.to_string()).await
        })
        .await?;
        assert_eq!(snapshot.get(&a).await?, 0);
        assert_eq!(snapshot.get_many((&a, &b)).await?, (0, "0".to_owned()));
        let now = one.snapshot().await?;
        assert_eq!(now.get_many((&b, &a)).await?, (n.to_string(), n));
        assert!(now.point() > snapshot.point());
    }
    refused_at(snapshot.get(&gone).await, ErrorKind::NotFound, gone.key(), "a ref destroyed before");
    one.create_ref("/gone", 2_i64).await?;
    refused_at(snapshot.get(&gone).await, ErrorKind::NotFound, gone.key(), "a ref made again after");
    b.destroy().await?;
    assert_eq!(snapshot.get(&b).await?, "0", "a ref destroyed after");
    Ok(())
}

/// A snapshot of a ref whose history no longer reaches back is `TooOld`; other refs can still be read from it.
async fn a_snapshot_beyond_history_is_too_old(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let native = stm.coordinator().capabilities().native_snapshots;
    crate::law::needs(!native, "the coordinator keeps snapshots of its own")?;
    let (a, b) = (stm.create_ref("/a", 0_i64).history(1).await?, stm.create_ref("/b", 0_i64).await?);
    let snapshot = stm.snapshot().await?;
    a.set(1).await?;
    assert_eq!(snapshot.get(&a).await?, 0);
    a.set(2).await?;
    refused_at(snapshot.get(&a).await, ErrorKind::TooOld, a.key(), "beyond the history");
    refused_at(snapshot.get_many((&b, &a)).await, ErrorKind::TooOld, a.key(), "with another");
    assert_eq!(snapshot.get(&b).await?, 0);
    Ok(())
}

/// A snapshot refuses a ref of another client as `Misuse`.
async fn a_snapshot_refuses_refs_of_another_client(ctx: Ctx) -> Outcome {
    let [one, two] = clients(&ctx).await?;
    let r = one.create_ref("/r", 0_i64).await?;
    refused_at(two.snapshot().await?.get(&r).await, ErrorKind::Misuse, r.key(), "another client's ref");
    Ok(())
}
