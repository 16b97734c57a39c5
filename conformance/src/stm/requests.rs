//! How many requests a transaction makes.

use avout_core::{ErrorKind, Stm};

use super::bench::{Runs, client, counted, large, refused_at, rigged, set_aside, small};
use crate::fault::Counts;
use crate::law::{Ctx, Outcome, laws};

laws! { "stm":
    a_cold_hello_is_a_read_each_and_one_commit,
    get_many_is_one_read,
    prefetch_leaves_no_more_reads,
    a_second_read_of_a_ref_is_free,
    a_read_only_transaction_makes_no_commit,
    a_blind_set_is_one_read_and_one_commit,
    a_blind_set_after_another_is_one_commit,
    no_error_rests_on_what_a_blind_set_left,
    a_lone_get_is_one_read,
    opening_an_existing_ref_is_one_read,
    making_a_ref_is_one_read_and_one_commit,
    a_conflict_with_fresh_entries_costs_no_read,
    a_conflict_without_fresh_entries_costs_one_read,
    a_body_that_fails_makes_no_commit,
    stats_agree_with_the_requests,
}

#[track_caller]
fn assert_requests(counts: Counts, reads: u64, commits: u64, what: &str) {
    assert_eq!((counts.reads, counts.commits), (reads, commits), "{what}: reads and commits; {counts:?}");
    assert_eq!(counts.requests(), reads + commits, "{what}: other requests; {counts:?}");
}

/// `hello` of two refs that are read apart makes two reads and one commit. The original made 84 requests.
async fn a_cold_hello_is_a_read_each_and_one_commit(ctx: Ctx) -> Outcome {
    let maker = client(&ctx).await?;
    maker.create_ref("/count", 0_i64).await?;
    maker.create_ref("/log", Vec::<i64>::new()).await?;
    let (stm, counting) = counted(&ctx).await?;
    let count = stm.open_ref::<i64>("/count").await?;
    let log = stm.open_ref::<Vec<i64>>("/log").await?;
    counting.take();
    for round in 0..3 {
        stm.dosync(async |tx| {
            let n = tx.alter(&count, |n| n + 1).await?;
            tx.update(&log, |log| log.push(n)).await
        })
        .await?;
        assert_requests(counting.take(), 2, 1, &format!("hello, round {round}"));
    }
    Ok(())
}

/// `get_many` of any number of refs is one read, and a `hello` that begins with it is one read and one commit.
async fn get_many_is_one_read(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let mut refs = Vec::new();
    for n in 0..10 {
        refs.push(stm.create_ref(format!("/r/{n}"), n).await?);
    }
    counting.take();
    stm.dosync(async |tx| tx.get_many(&refs).await).await?;
    assert_requests(counting.take(), 1, 0, "a slice of ten");
    stm.dosync(async |tx| {
        let (a, b) = tx.get_many((&refs[0], &refs[1])).await?;
        tx.set(&refs[0], b).await?;
        tx.set(&refs[1], a).await
    })
    .await?;
    assert_requests(counting.take(), 1, 1, "a swap");
    Ok(())
}

/// After `prefetch` the `get`, `alter`, `commute` and `set` of these refs make no read.
async fn prefetch_leaves_no_more_reads(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let mut refs = Vec::new();
    for n in 0..4 {
        refs.push(stm.create_ref(format!("/r/{n}"), n).await?);
    }
    counting.take();
    stm.dosync(async |tx| {
        tx.prefetch(&refs).await?;
        assert_requests(counting.counts(), 1, 0, "the prefetch");
        tx.get(&refs[0]).await?;
        tx.alter(&refs[1], |n| n + 1).await?;
        tx.commute(&refs[2], |n| n + 1).await?;
        tx.set(&refs[3], 9).await
    })
    .await?;
    assert_requests(counting.take(), 1, 1, "all of it");
    Ok(())
}

/// Reading a ref again in the same body makes no request.
async fn a_second_read_of_a_ref_is_free(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    counting.take();
    stm.dosync(async |tx| {
        for _ in 0..5 {
            tx.get(&r).await?;
            tx.ensure(&r).await?;
            tx.get_many((&r, &r)).await?;
        }
        Ok(())
    })
    .await?;
    assert_requests(counting.take(), 1, 0, "ten reads of one ref");
    Ok(())
}

/// A transaction that writes nothing makes no commit, with `ensure` too.
async fn a_read_only_transaction_makes_no_commit(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let s = stm.create_ref("/s", 1_i64).await?;
    counting.take();
    stm.dosync(async |tx| {
        tx.get(&r).await?;
        tx.ensure(&s).await
    })
    .await?;
    assert_requests(counting.take(), 2, 0, "two reads");
    Ok(())
}

/// A `set` of a ref that the body has not read makes one read, of the record that it replaces, and one commit; several
/// of them share the read.
async fn a_blind_set_is_one_read_and_one_commit(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let s = stm.create_ref("/s", 1_i64).await?;
    counting.take();
    r.set(2).await?;
    assert_requests(counting.take(), 1, 1, "one set");
    stm.dosync(async |tx| {
        tx.set(&r, 3).await?;
        tx.set(&s, 3).await
    })
    .await?;
    assert_requests(counting.take(), 1, 1, "two sets");
    Ok(())
}

/// What a blind set has left need not be read by the next one, as long as nobody else writes: it is one commit. Whoever writes
/// between, the value that was set last is there, after all that were there before it.
async fn a_blind_set_after_another_is_one_commit(ctx: Ctx) -> Outcome {
    let (stm, _, _) = small(&ctx).await?;
    let other = client(&ctx).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let s = stm.create_ref("/s", large(0)).await?;
    let of_other = other.open_ref::<i64>("/r").await?;
    let set = async |n: u8| {
        let before = stm.stats();
        stm.dosync(async |tx| {
            tx.set(&r, i64::from(n)).await?;
            tx.set(&s, large(n)).await
        })
        .await?;
        let after = stm.stats();
        Ok::<_, avout_core::Error>((after.reads - before.reads, after.commits - before.commits))
    };
    assert_eq!(set(1).await?, (1, 1), "reads and commits of the first");
    for n in 2..4 {
        assert_eq!(set(n).await?, (0, 1), "reads and commits of set {n}");
    }
    of_other.set(4).await?;
    set(5).await?;
    set(6).await?;
    assert_eq!(set(7).await?, (0, 1), "reads and commits, some time after somebody else wrote");
    assert_eq!((r.get().await?, s.get().await?), (7, large(7)));
    let past: Vec<Option<i64>> = r.history().await?.into_iter().map(|past| past.value).collect();
    assert_eq!(past, (0..8).rev().map(Some).collect::<Vec<_>>(), "the values, newest first");

    of_other.destroy().await?;
    refused_at(r.set(8).await, ErrorKind::NotFound, r.key(), "a blind set of a ref that is gone");
    other.create_ref("/r", 9_i64).await?;
    set(10).await?;
    assert_eq!((r.get().await?, s.get().await?), (10, large(10)));
    Ok(())
}

/// What a blind set has left is no reason to refuse the next one: a record that would be too large with that history is made
/// anew with the history that is there by then.
async fn no_error_rests_on_what_a_blind_set_left(ctx: Ctx) -> Outcome {
    let (stm, _) = rigged(&ctx, |rig| rig.limited(8, 700, 5000)).await?;
    let other = client(&ctx).await?;
    let r = stm.create_ref("/r", vec![0_u8; 100]).await?;
    for n in 1..5 {
        r.set(vec![n; 100]).await?;
    }
    let of_other = other.open_ref::<Vec<u8>>("/r").history(0).await?;
    of_other.set(vec![5; 10]).await?;
    r.set(vec![6; 400]).await?;
    assert_eq!(r.get().await?, vec![6; 400]);
    Ok(())
}

/// `Ref::get` is one read, with no cache that could be stale.
async fn a_lone_get_is_one_read(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    counting.take();
    for _ in 0..3 {
        r.get().await?;
        assert_requests(counting.take(), 1, 0, "a get");
    }
    Ok(())
}

/// `open_ref` and `create_or_open_ref` of a ref that is there make one read and no commit.
async fn opening_an_existing_ref_is_one_read(ctx: Ctx) -> Outcome {
    let maker = client(&ctx).await?;
    maker.create_ref("/r", 1_i64).await?;
    let (stm, counting) = counted(&ctx).await?;
    stm.create_or_open_ref("/r", 2_i64).await?;
    assert_requests(counting.take(), 1, 0, "create_or_open_ref");
    stm.open_ref::<i64>("/r").await?;
    assert_requests(counting.take(), 1, 0, "open_ref");
    Ok(())
}

/// `create_ref` and `create_or_open_ref` of a new ref make one read and one commit.
async fn making_a_ref_is_one_read_and_one_commit(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    stm.create_or_open_ref("/r", 2_i64).await?;
    assert_requests(counting.take(), 1, 1, "create_or_open_ref");
    stm.create_ref("/s", 2_i64).await?;
    assert_requests(counting.take(), 1, 1, "create_ref");
    Ok(())
}

/// Loses one attempt of two reads and a write to another client.
async fn lose_once(stm: &Stm, other: &Stm) -> Result<u32, crate::law::Failure> {
    let (r, s) = (stm.open_ref::<i64>("/r").await?, stm.open_ref::<i64>("/s").await?);
    let of_other = other.open_ref::<i64>("/r").await?;
    let runs = Runs::default();
    stm.dosync(async |tx| {
        let (a, b) = tx.get_many((&r, &s)).await?;
        if runs.next() == 1 {
            set_aside(&of_other, 5).await;
        } else {
            assert_eq!((a, b), (5, 1), "the second run");
        }
        tx.set(&s, a + b).await
    })
    .await?;
    assert_eq!(s.get().await?, 6);
    Ok(runs.count())
}

/// Where conflicts carry fresh entries, an attempt that was lost is repeated without another read.
async fn a_conflict_with_fresh_entries_costs_no_read(ctx: Ctx) -> Outcome {
    let other = client(&ctx).await?;
    other.create_ref("/r", 1_i64).await?;
    other.create_ref("/s", 1_i64).await?;
    // What the coordinator itself does in a conflict is seen from a first try.
    let (coordinator, _) = super::bench::roles(&ctx).await?;
    let probe = crate::sample::puts([crate::sample::put(&crate::sample::key("/r"), None, 0)]);
    let fresh = crate::sample::conflict(coordinator.commit(&probe).await?).fresh.is_some();
    crate::law::needs(fresh, "conflicts carry no fresh entries")?;
    let (stm, counting) = counted(&ctx).await?;
    let runs = lose_once(&stm, &other).await?;
    assert_eq!(runs, 2, "runs of the body");
    // Two to open, one in the first run, one for the last look.
    assert_requests(counting.take(), 4, 2, "an attempt lost and repeated");
    Ok(())
}

/// Where conflicts carry no fresh entries, an attempt that was lost is repeated with one more read.
async fn a_conflict_without_fresh_entries_costs_one_read(ctx: Ctx) -> Outcome {
    let other = client(&ctx).await?;
    other.create_ref("/r", 1_i64).await?;
    other.create_ref("/s", 1_i64).await?;
    let (stm, rigged) = rigged(&ctx, |rig| rig.stale()).await?;
    assert_eq!(lose_once(&stm, &other).await?, 2, "runs of the body");
    assert_eq!(rigged.calls(), 7, "two to open, a read and a commit for each run, one for the last look");
    Ok(())
}

/// A body that ends in an error makes no commit.
async fn a_body_that_fails_makes_no_commit(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    counting.take();
    let done = stm
        .dosync(async |tx| {
            tx.set(&r, 2).await?;
            Err::<(), _>(avout_core::Error::abort("no"))
        })
        .await;
    assert!(done.is_err());
    assert_requests(counting.take(), 0, 0, "a body that fails");
    Ok(())
}

/// `Stm::stats` counts the reads, commits, attempts and transactions that there were.
async fn stats_agree_with_the_requests(ctx: Ctx) -> Outcome {
    let (stm, counting) = counted(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    for n in 0..5 {
        r.set(n).await?;
        r.get().await?;
    }
    let (stats, counts) = (stm.stats(), counting.counts());
    assert_eq!((stats.reads, stats.commits), (counts.reads, counts.commits), "{stats:?} and {counts:?}");
    assert_eq!((stats.committed, stats.attempts, stats.conflicts), (11, 11, 0), "{stats:?}");
    Ok(())
}
