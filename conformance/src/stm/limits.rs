//! Deadlines, attempts, and stores that do not answer.

use std::time::Duration;

use avout_core::{Error, ErrorKind};

use super::bench::{INLINE, Runs, SOON, client, large, refused, refused_at, rigged, roles, set_aside, small};
use super::rig::{Rigged, Then};
use super::rig_store::RiggedStore;
use crate::law::{Ctx, Outcome, laws, within};

laws! { "stm":;
    timed:
    a_deadline_ends_a_body_that_hangs,
    a_deadline_ends_a_transaction_that_is_always_lost,
    attempts_are_limited,
    a_coordinator_away_for_a_while_is_waited_for,
    a_coordinator_away_for_good_is_unavailable,
    a_coordinator_that_hangs_is_given_up_at_the_deadline,
    a_commit_that_hangs_is_given_up_at_the_deadline,
    a_fence_that_hangs_is_given_up_at_the_deadline,
    a_commit_that_hangs_alone_is_found_out,
    a_store_away_for_a_while_is_waited_for,
    a_store_that_hangs_is_given_up_at_the_deadline,
    handles_keep_the_deadline_of_the_client,
    a_refusal_of_the_coordinator_comes_back,
    a_corrupt_record_is_named_and_harms_no_other,
    a_corrupt_value_is_named_and_harms_no_other,
    limits_of_the_coordinator_are_checked_before_sending,
}

const SHORT: Duration = Duration::from_millis(200);

#[track_caller]
fn assert_effort(error: &Error, least: u32, what: &str) {
    assert!(error.attempts().is_some_and(|attempts| attempts >= least), "{what}: attempts of {error:?}");
    assert!(error.elapsed().is_some_and(|elapsed| elapsed <= SOON), "{what}: time of {error:?}");
}

/// A body that is still running at the deadline is ended: `Timeout` with the attempts and the time, nothing written.
async fn a_deadline_ends_a_body_that_hangs(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let r = stm.create_ref("/r", 1_i64).await?;
    let hang = stm.transaction().deadline(SHORT).dosync(async |tx| {
        tx.set(&r, 2).await?;
        std::future::pending::<()>().await;
        Ok::<_, Error>(())
    });
    let error = refused(within(SOON, "the deadline", hang).await, ErrorKind::Timeout, "a body that hangs");
    assert_effort(&error, 1, "a body that hangs");
    assert!(error.elapsed().is_some_and(|elapsed| elapsed >= SHORT), "{error:?}");
    assert_eq!(r.get().await?, 1);
    Ok(())
}

/// A transaction that loses every attempt ends at its deadline: `Timeout` with the attempts, the time and the key, or `Unavailable`
/// if it waits for the store just then. Nothing is written.
async fn a_deadline_ends_a_transaction_that_is_always_lost(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let (runs, beside) = (Runs::default(), Runs::default());
    let lose = stm.transaction().deadline(SHORT).dosync(async |tx| {
        runs.next();
        let n = tx.get(&r).await?;
        set_aside(&r, i64::from(beside.next())).await;
        tx.set(&s, n).await
    });
    let done = within(SOON, "the deadline", lose).await;
    let what = "a transaction that is always lost";
    // The deadline may come while it waits for the answer to a request, and then that answer is what is missing.
    let error = match done {
        Err(error) if error.kind() == ErrorKind::Unavailable => error,
        done => refused_at(done, ErrorKind::Timeout, r.key(), what),
    };
    assert_effort(&error, 1, what);
    assert_eq!(error.attempts(), Some(runs.count()));
    // The deadline may come while the last write beside is under way: that one is another transaction's, and goes on.
    let last = i64::from(beside.count());
    within(SOON, "the last write beside", async {
        while r.get().await.expect("a ref that is there") != last {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    assert_eq!(s.get().await?, 0, "written by a transaction that was lost");
    Ok(())
}

/// A transaction that loses as many attempts as it may make ends: `Contended` with the attempts and the key, nothing written.
async fn attempts_are_limited(ctx: Ctx) -> Outcome {
    let stm = client(&ctx).await?;
    let (r, s) = (stm.create_ref("/r", 0_i64).await?, stm.create_ref("/s", 0_i64).await?);
    let limited = {
        let (coordinator, store) = roles(&ctx).await?;
        ctx.stm(coordinator, store).max_attempts(4).build()
    };
    let (of_r, of_s) = (limited.open_ref::<i64>("/r").await?, limited.open_ref::<i64>("/s").await?);
    for (stm, r, s, limit) in [(&stm, &r, &s, 1), (&stm, &r, &s, 3), (&limited, &of_r, &of_s, 4)] {
        let runs = Runs::default();
        let transaction = if limit == 4 { stm.transaction() } else { stm.transaction().max_attempts(limit) };
        let done = transaction
            .dosync(async |tx| {
                let n = tx.get(r).await?;
                runs.next();
                super::bench::add_aside(r, 1).await;
                tx.set(s, n).await
            })
            .await;
        let error = refused_at(done, ErrorKind::Contended, r.key(), "as many attempts as allowed");
        assert_eq!((runs.count(), error.attempts()), (limit, Some(limit)));
        assert_effort(&error, limit, "as many attempts as allowed");
    }
    assert_eq!((s.get().await?, r.get().await?), (0, 8));
    Ok(())
}

/// While the coordinator refuses everything for a time, transactions, reads and opening wait, and then succeed.
async fn a_coordinator_away_for_a_while_is_waited_for(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let atom = stm.create_atom("/a", 0_i64).await?;
    let away = async |reads: Then,
                      commits: Then,
                      what: &str,
                      work: &mut (dyn Future<Output = Result<(), Error>> + Send + Unpin)| {
        rig.reads(reads);
        rig.commits(commits);
        let back = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            rig.reads(Then::Pass);
            rig.commits(Then::Pass);
        };
        let (done, ()) = within(SOON, what, async { tokio::join!(work, back) }).await;
        done.unwrap_or_else(|error| panic!("{what}: {error:?}"));
    };
    let (pass, fail) = (Then::Pass, Then::Fail(ErrorKind::Unavailable));
    for (reads, commits) in [(fail, pass), (pass, fail), (fail, fail)] {
        let before = r.get().await?;
        away(reads, commits, "a transaction", &mut Box::pin(async { r.alter(|n| n + 1).await.map(drop) })).await;
        assert_eq!(r.get().await?, before + 1, "with {reads:?} and {commits:?}");
        away(reads, commits, "opening", &mut Box::pin(async { stm.open_ref::<i64>("/r").await.map(drop) })).await;
        away(reads, commits, "a list", &mut Box::pin(async { stm.list("/").await.map(drop) })).await;
        away(reads, commits, "a snapshot", &mut Box::pin(async { stm.snapshot().await?.get(&r).await.map(drop) }))
            .await;
        away(reads, commits, "history", &mut Box::pin(async { r.history().await.map(drop) })).await;
    }
    drop(atom);
    Ok(())
}

/// While the coordinator stays away, a transaction ends as `Unavailable` by its deadline, with the attempts and the
/// time, and nothing is written.
async fn a_coordinator_away_for_good_is_unavailable(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let (pass, fail) = (Then::Pass, Then::Fail(ErrorKind::Unavailable));
    for (reads, commits) in [(fail, pass), (pass, fail)] {
        rig.reads(reads);
        rig.commits(commits);
        let alter = stm.transaction().deadline(SHORT).dosync(async |tx| tx.alter(&r, |n| n + 1).await);
        let error = refused(within(SOON, "the deadline", alter).await, ErrorKind::Unavailable, "alter");
        assert_effort(&error, 1, &format!("alter with {reads:?} and {commits:?}"));
        let set = stm.transaction().deadline(SHORT).dosync(async |tx| tx.set(&r, 9).await);
        let error = refused(within(SOON, "the deadline", set).await, ErrorKind::Unavailable, "a blind set");
        assert_effort(&error, 1, &format!("a blind set with {reads:?} and {commits:?}"));
        rig.reads(pass);
        rig.commits(pass);
        assert_eq!(r.get().await?, 0);
    }
    Ok(())
}

#[track_caller]
fn assert_late<T: std::fmt::Debug>(done: Result<T, Error>, what: &str) {
    match done {
        Err(error) if matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable) => {}
        other => panic!("{what}: no answer came, and it is {other:?}"),
    }
}

/// While the coordinator answers no read at all, a transaction ends by its deadline, wherever it waits.
async fn a_coordinator_that_hangs_is_given_up_at_the_deadline(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig.plain()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    rig.reads(Then::Hang);
    let get = stm.transaction().deadline(SHORT).dosync(async |tx| tx.get(&r).await);
    assert_late(within(SOON, "a read in the body", get).await, "a read in the body");
    let set = stm.transaction().deadline(SHORT).dosync(async |tx| tx.set(&r, 1).await);
    assert_late(within(SOON, "a read of the commit", set).await, "a read of the commit");
    rig.reads(Then::Pass);
    let wait = stm.transaction().deadline(SHORT).dosync(async |tx| {
        tx.get(&r).await?;
        rig.reads(Then::Hang);
        Err::<(), _>(tx.retry())
    });
    assert_late(within(SOON, "a read of a wait", wait).await, "a read of a wait");
    rig.reads(Then::Pass);
    rig.watches(Then::Hang);
    let wait = stm.transaction().deadline(SHORT).dosync(async |tx| {
        tx.get(&r).await?;
        Err::<(), _>(tx.retry())
    });
    assert_late(within(SOON, "a watch of a wait", wait).await, "a watch of a wait");
    rig.watches(Then::Pass);
    assert_eq!(r.alter(|n| n + 1).await?, 1);
    Ok(())
}

/// A commit that never returns, with this becoming of the reads that would tell its outcome, and of all fences: its outcome is
/// unknown soon after the deadline, and is told by its receipt later.
async fn hangs(ctx: &Ctx, reads: Then) -> Outcome {
    let (stm, rig) = rigged(ctx, |rig| rig.plain()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let set = stm.transaction().deadline(SHORT).dosync(async |tx| {
        let n = tx.get(&r).await?;
        rig.commits(Then::Hang);
        rig.reads(reads);
        tx.set(&r, n + 1).await
    });
    let error = refused(within(SOON, "the deadline", set).await, ErrorKind::OutcomeUnknown, "a commit");
    let Some(receipt) = error.receipt().cloned() else {
        panic!("no receipt: {error:?}");
    };
    rig.commits(Then::Pass);
    rig.reads(Then::Pass);
    assert_eq!(stm.resolve(&receipt).await?, avout_core::Resolution::NotCommitted);
    assert_eq!(r.get().await?, 0);
    Ok(())
}

/// While the coordinator answers no commit, and no read that would tell its outcome either, a transaction ends soon after its
/// deadline as `OutcomeUnknown`, with a receipt.
async fn a_commit_that_hangs_is_given_up_at_the_deadline(ctx: Ctx) -> Outcome {
    hangs(&ctx, Then::Hang).await
}

/// The same while it answers reads.
async fn a_fence_that_hangs_is_given_up_at_the_deadline(ctx: Ctx) -> Outcome {
    hangs(&ctx, Then::Pass).await
}

/// If only the one request hangs, its outcome is found out at the deadline, and it is known that nothing happened.
async fn a_commit_that_hangs_alone_is_found_out(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig.plain()).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    let set = stm.transaction().deadline(SHORT).dosync(async |tx| {
        rig.before_commit(std::future::pending());
        tx.set(&r, 1).await
    });
    refused(within(SOON, "the deadline", set).await, ErrorKind::Unavailable, "a commit that hangs alone");
    assert_eq!(r.get().await?, 0);
    Ok(())
}

/// While the store of large values refuses everything for a time, a transaction waits; if for good, it is `Unavailable`
/// with nothing written.
async fn a_store_away_for_a_while_is_waited_for(ctx: Ctx) -> Outcome {
    let (stm, _, store) = small(&ctx).await?;
    let r = stm.create_ref("/r", large(0)).await?;
    let fail = Then::Fail(ErrorKind::Unavailable);
    store.value_writes(fail);
    let set = stm.transaction().deadline(SHORT).dosync(async |tx| tx.set(&r, large(1)).await);
    let error = refused(within(SOON, "the deadline", set).await, ErrorKind::Unavailable, "a store away for good");
    assert_effort(&error, 1, "a store away for good");
    assert_eq!(error.key(), Some(r.key()));
    let back = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        store.value_writes(Then::Pass);
    };
    let (done, ()) = within(SOON, "the store's return", async { tokio::join!(r.set(large(2)), back) }).await;
    done?;
    assert_eq!(r.get().await?, large(2));
    Ok(())
}

/// While the store of large values does not answer, a transaction ends by its deadline with nothing written.
async fn a_store_that_hangs_is_given_up_at_the_deadline(ctx: Ctx) -> Outcome {
    let (stm, _, store) = small(&ctx).await?;
    let r = stm.create_ref("/r", large(0)).await?;
    let s = stm.create_ref("/s", 0_i64).await?;
    store.value_writes(Then::Hang);
    let set = stm.transaction().deadline(SHORT).dosync(async |tx| {
        tx.set(&s, 1).await?;
        tx.set(&r, large(1)).await
    });
    assert_late(within(SOON, "a write of a value", set).await, "a write of a value");
    store.value_writes(Then::Pass);
    assert_eq!((r.get().await?, s.get().await?), (large(0), 0));
    let (other, _, store) = small(&ctx).await?;
    let r = other.open_ref::<Vec<u8>>("/r").await?;
    store.value_reads(Then::Hang);
    let alter = other.transaction().deadline(SHORT).dosync(async |tx| {
        tx.commute(&r, |value| value).await?;
        Ok::<_, Error>(())
    });
    assert_late(within(SOON, "a read of a value", alter).await, "a read of a value");
    Ok(())
}

/// Operations on handles, snapshots and lists end by the client's deadline while nothing answers; a write of an atom then
/// is `OutcomeUnknown`.
async fn handles_keep_the_deadline_of_the_client(ctx: Ctx) -> Outcome {
    let (coordinator, store) = roles(&ctx).await?;
    let rig = std::sync::Arc::new(Rigged::new(coordinator));
    let store = std::sync::Arc::new(RiggedStore::new(store));
    let stm = ctx.stm(rig.clone(), store.clone()).deadline(Some(SHORT)).build();
    let r = stm.create_ref("/r", 0_i64).await?;
    let atom = stm.create_atom("/a", 0_i64).await?;
    let snapshot = stm.snapshot().await?;
    rig.reads(Then::Hang);
    store.atom_reads(Then::Hang);
    assert_late(within(SOON, "get", r.get()).await, "get");
    assert_late(within(SOON, "history", r.history()).await, "history");
    assert_late(within(SOON, "snapshot", stm.snapshot()).await, "snapshot");
    assert_late(within(SOON, "a read of a snapshot", snapshot.get(&r)).await, "a read of a snapshot");
    assert_late(within(SOON, "list", stm.list("/")).await, "list");
    assert_late(within(SOON, "opening", stm.open_ref::<i64>("/r").into_future()).await, "opening");
    assert_late(within(SOON, "watch", r.watch()).await.map(drop), "watch");
    assert_late(within(SOON, "get of an atom", atom.get()).await, "get of an atom");
    store.atom_reads(Then::Pass);
    store.atom_writes(Then::Hang);
    for done in [within(SOON, "reset", atom.reset(1)).await, within(SOON, "destroy", atom.destroy()).await] {
        refused_at(done, ErrorKind::OutcomeUnknown, atom.key(), "a write of an atom");
    }
    Ok(())
}

/// A coordinator that has no room or denies the write gives its own error at once, with nothing written.
async fn a_refusal_of_the_coordinator_comes_back(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let r = stm.create_ref("/r", 0_i64).await?;
    for kind in [ErrorKind::Full, ErrorKind::Denied, ErrorKind::StoreLost, ErrorKind::Closed] {
        rig.commits(Then::Fail(kind));
        let before = rig.calls();
        let error = refused(r.set(1).await, kind, "a refused commit");
        assert_effort(&error, 1, "a refused commit");
        assert_eq!(rig.calls() - before, 2, "requests of a refused set");
        rig.commits(Then::Pass);
        rig.reads(Then::Fail(kind));
        refused(r.get().await, kind, "a refused read");
        rig.reads(Then::Pass);
        assert_eq!(r.get().await?, 0);
    }
    Ok(())
}

/// A record that cannot be read is `Corrupt` with its key for who reads it; other refs, and the list of all, are as
/// good as before.
async fn a_corrupt_record_is_named_and_harms_no_other(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig).await?;
    let (bad, good) = (stm.create_ref("/bad", 0_i64).await?, stm.create_ref("/good", 0_i64).await?);
    rig.poison(Some(bad.key().clone()));
    refused_at(bad.get().await, ErrorKind::Corrupt, bad.key(), "get");
    refused_at(bad.set(1).await, ErrorKind::Corrupt, bad.key(), "set");
    refused_at(stm.open_ref::<i64>("/bad").await, ErrorKind::Corrupt, bad.key(), "open_ref");
    let both = stm.dosync(async |tx| {
        tx.set(&good, 9).await?;
        tx.get(&bad).await
    });
    refused_at(both.await, ErrorKind::Corrupt, bad.key(), "with another");
    assert_eq!(good.alter(|n| n + 1).await?, 1);
    let listed = stm.list("/").await?;
    assert!(listed.contains(good.key()), "{listed:?}");
    rig.poison(None);
    assert_eq!(bad.get().await?, 0);
    Ok(())
}

/// A value that is not what was written is `Corrupt` with its key for who reads it; it can be set again or
/// destroyed, and other refs are as good as before.
async fn a_corrupt_value_is_named_and_harms_no_other(ctx: Ctx) -> Outcome {
    let (coordinator, _) = roles(&ctx).await?;
    let (stm, ..) = small(&ctx).await?;
    let (bad, good) = (stm.create_ref("/bad", 1_i64).await?, stm.create_ref("/good", 1_i64).await?);
    let entry = crate::sample::present(&*coordinator, bad.key()).await?;
    for garbage in [&b""[..], b"\x01", b"not an envelope at all", &[0xFF; INLINE]] {
        let entry = crate::sample::present(&*coordinator, bad.key()).await?;
        let payload = avout_core::Payload::Inline(bytes::Bytes::copy_from_slice(garbage));
        let record = avout_core::protocol::Record { payload, ..(*entry.record).clone() };
        let put = avout_core::protocol::Put {
            key: bad.key().clone(),
            revision: Some(entry.revision),
            record: std::sync::Arc::new(record),
        };
        crate::sample::committed(coordinator.commit(&crate::sample::puts([put])).await?);
        refused_at(bad.get().await, ErrorKind::Corrupt, bad.key(), "get");
        refused_at(bad.alter(|n| n).await, ErrorKind::Corrupt, bad.key(), "alter");
        assert_eq!(good.get().await?, 1);
    }
    drop(entry);
    bad.set(2).await?;
    assert_eq!(bad.get().await?, 2);
    Ok(())
}

/// Commits that are over the coordinator's limits are `TooLarge` before anything is sent, and those at the limit are sent.
async fn limits_of_the_coordinator_are_checked_before_sending(ctx: Ctx) -> Outcome {
    let (stm, rig) = rigged(&ctx, |rig| rig.limited(8, 400, 1500)).await?;
    let mut refs = Vec::new();
    for n in 0..10 {
        refs.push(stm.create_ref(format!("/r/{n}"), String::new()).history(1).await?);
    }
    let set = async |count: usize, size: usize| {
        let before = rig.calls();
        let done = stm
            .dosync(async |tx| {
                for r in &refs[..count] {
                    tx.get(r).await?;
                }
                for r in &refs[..count] {
                    tx.set(r, "x".repeat(size)).await?;
                }
                Ok(())
            })
            .await;
        (done, rig.calls() - before)
    };
    let (done, requests) = set(1, 500).await;
    refused_at(done, ErrorKind::TooLarge, refs[0].key(), "a record over the limit");
    assert_eq!(requests, 1, "requests of a record over the limit");
    let (done, requests) = set(10, 1).await;
    refused(done, ErrorKind::TooLarge, "more keys than the limit");
    assert!(requests <= 10, "{requests} requests for more keys than the limit");
    let (done, requests) = set(6, 280).await;
    refused(done, ErrorKind::TooLarge, "more bytes than the limit");
    assert!(requests <= 6, "{requests} requests for more bytes than the limit");
    for r in &refs {
        assert_eq!(r.get().await?, "", "after refusals");
    }
    set(6, 10).await.0?;
    assert_eq!(refs[5].get().await?, "x".repeat(10));
    Ok(())
}
