//! What is sent to the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::Stm;
use tokio::task::JoinSet;

use crate::support::{Outcome, Pair, calls, namespace, open, within};

/// What clients called between two looks.
async fn called(redis: &Redis, name: &str, between: impl AsyncFnOnce() -> avout_core::Result<()>) -> Outcome<[u64; 3]> {
    let before = calls(redis).await?;
    between().await?;
    let after = calls(redis).await?;
    let count = |name: &str| after.get(name).copied().unwrap_or(0) - before.get(name).copied().unwrap_or(0);
    let total: u64 = after.keys().filter(|name| *name != "info").map(|name| count(name)).sum();
    eprintln!("{name}: {:?}", after.keys().map(|name| (name, count(name))).filter(|(_, n)| *n > 0).collect::<Vec<_>>());
    Ok([count("evalsha"), count("hmget"), total])
}

/// `hello`, as in the README, is two requests: one read and one commit.
pub(crate) async fn a_transaction_is_a_read_and_a_commit() -> Outcome {
    let redis = Redis::single().await?;
    let pair = Pair::open(open(&redis.url(&namespace())).await?, "pair").await?;
    pair.bump().await?;
    const ROUNDS: u64 = 50;
    let stats = pair.stm.stats();
    let [commits, gets, _] = called(&redis, "hello", async || {
        for _ in 0..ROUNDS {
            // Both refs at once, as one read.
            pair.bump_together().await?;
        }
        Ok(())
    })
    .await?;
    let now = pair.stm.stats();
    assert_eq!((now.reads - stats.reads, now.commits - stats.commits), (ROUNDS, ROUNDS));
    // The script of a commit gets the cells too.
    assert_eq!((commits, gets), (ROUNDS, 2 * ROUNDS));
    Ok(())
}

/// Reads that are made at once go together, and each gets its own.
pub(crate) async fn reads_at_once_go_together() -> Outcome {
    const TASKS: u64 = 64;
    const ROUNDS: u64 = 20;
    let redis = Redis::single().await?;
    let stm = open(&redis.url(&namespace())).await?;
    let mut refs = Vec::new();
    for n in 0..TASKS {
        refs.push((n, stm.create_ref(format!("/many/{n}"), n).await?));
    }
    let [_, gets, _] = called(&redis, "reads", async || {
        let mut tasks = JoinSet::new();
        for (n, reference) in refs {
            tasks.spawn(async move {
                for _ in 0..ROUNDS {
                    assert_eq!(reference.get().await?, n);
                }
                Ok::<(), avout_core::Error>(())
            });
        }
        tasks.join_all().await.into_iter().collect()
    })
    .await?;
    assert!(gets <= TASKS * ROUNDS / 2, "{gets} requests for {} reads", TASKS * ROUNDS);
    Ok(())
}

/// A read that nobody goes on with, or that is given up, holds up none of those that it was gathered with.
pub(crate) async fn a_read_that_is_held_holds_up_no_others() -> Outcome {
    let redis = Redis::single().await?;
    let pair = Pair::open(open(&redis.url(&namespace())).await?, "pair").await?;
    pair.bump().await?;
    for given_up in 0..4 {
        let mut held = Vec::new();
        for _ in 0..1_000 {
            let mut read = Box::pin(pair.a().get());
            tokio::select! {
                biased;
                // On a busy machine the reply is there before this thread has looked twice.
                value = &mut read => assert_eq!(value?, 1),
                () = std::future::ready(()) => held.push(read),
            }
            if held.len() == 4 {
                break;
            }
        }
        assert_eq!(held.len(), 4, "reads are answered before they wait");
        held.truncate(4 - given_up);
        assert_eq!(within(Duration::from_secs(60), "a read", pair.read()).await?, 1);
        for read in held {
            assert_eq!(within(Duration::from_secs(60), "a read that was held", read).await?, 1);
        }
    }
    Ok(())
}

/// A transaction that lost is run again with what the conflict brought along.
pub(crate) async fn a_conflict_needs_no_read() -> Outcome {
    let redis = Redis::single().await?;
    let url = redis.url(&namespace());
    let (one, two) = (Pair::open(open(&url).await?, "pair").await?, Pair::open(open(&url).await?, "pair").await?);
    let first = AtomicBool::new(true);
    let before = stats(&one.stm);
    let before_two = stats(&two.stm);
    one.bump_after(async || {
        if first.swap(false, Ordering::Relaxed) {
            let rival = two.clone();
            // A task of its own, since it is no part of this transaction.
            tokio::spawn(async move { rival.bump_together().await }).await.expect("it does not panic")?;
        }
        Ok(())
    })
    .await?;
    let (reads, commits) = (stats(&one.stm).0 - before.0, stats(&one.stm).1 - before.1);
    assert_eq!((reads, commits), (1, 2), "one read, a commit that conflicts, and one that does not");
    assert_eq!(stats(&two.stm).1 - before_two.1, 1);
    assert_eq!(one.read().await?, 2);
    Ok(())
}

fn stats(stm: &Stm) -> (u64, u64) {
    (stm.stats().reads, stm.stats().commits)
}

/// A server that forgot the scripts gets them again, and nobody notices.
pub(crate) async fn removed_scripts_are_loaded_again() -> Outcome {
    let redis = Redis::single().await?;
    let pair = Pair::open(open(&redis.url(&namespace())).await?, "pair").await?;
    for round in 1..=3 {
        redis.command(0, &["SCRIPT", "FLUSH"]).await?;
        assert_eq!(pair.bump().await?, round);
    }
    assert_eq!(pair.read().await?, 3);
    Ok(())
}

async fn told(redis: &Redis) -> Outcome<u64> {
    Ok(calls(redis).await?.get("spublish").copied().unwrap_or(0))
}

/// Changes cost nothing more where nobody has ever watched anything, and are told from the first watch on.
pub(crate) async fn changes_are_told_from_the_first_watch_on() -> Outcome {
    let redis = Redis::single().await?;
    let url = redis.url(&namespace());
    let (writer, watcher) =
        (Pair::open(open(&url).await?, "pair").await?, Pair::open(open(&url).await?, "pair").await?);
    for _ in 0..5 {
        writer.bump().await?;
    }
    assert_eq!(told(&redis).await?, 0);
    let mut changes = watcher.a().watch().await?;
    let before = told(&redis).await?;
    assert_eq!(writer.bump().await?, 6);
    assert_eq!(told(&redis).await? - before, 2, "both refs, and not the slot");
    let change = within(Duration::from_secs(60), "a change", changes.next()).await.expect("a change")?;
    assert_eq!(change.new, Some(6));
    Ok(())
}

/// What is committed after a watch was made is told, however many commits are under way meanwhile.
pub(crate) async fn a_first_watch_beside_a_writer_misses_nothing() -> Outcome {
    let redis = Redis::single().await?;
    for _ in 0..20 {
        let url = redis.url(&namespace());
        let (writer, watcher) =
            (Pair::open(open(&url).await?, "pair").await?, Pair::open(open(&url).await?, "pair").await?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let writing = tokio::spawn(async move {
            loop {
                let last = stopped.load(Ordering::Acquire);
                let value = writer.bump_together().await?;
                if last {
                    return Ok::<u64, avout_core::Error>(value);
                }
            }
        });
        let mut changes = watcher.a().watch().await?;
        stop.store(true, Ordering::Release);
        let value = writing.await.expect("it does not panic")?;
        let heard = async {
            while changes.next().await.expect("the watch goes on")?.new != Some(value) {}
            Ok::<(), avout_core::Error>(())
        };
        within(Duration::from_secs(60), "the last change", heard).await?;
    }
    Ok(())
}

/// Whoever listens notices that the server no longer knows of it, and is told of what it may have missed.
pub(crate) async fn a_watch_that_the_server_forgot_is_made_again() -> Outcome {
    let redis = Redis::single().await?;
    let name = namespace();
    let url = redis.url(&name);
    let (writer, watcher) =
        (Pair::open(open(&url).await?, "pair").await?, Pair::open(open(&url).await?, "pair").await?);
    let mut changes = watcher.a().watch().await?;
    redis.command(0, &["HDEL", &format!("{{{name}}}:cells"), "watched"]).await?;
    for round in 1..=2 {
        assert_eq!(writer.bump().await?, round);
        let change = within(Duration::from_secs(60), "a change", changes.next()).await.expect("a change")?;
        assert_eq!(change.new, Some(round));
    }
    Ok(())
}

/// Clients that know only the earlier format do not say that they watch: in a namespace of it all is told.
pub(crate) async fn the_earlier_format_tells_of_all_changes() -> Outcome {
    let redis = Redis::single().await?;
    let name = namespace();
    let url = redis.url(&name);
    drop(Pair::open(open(&url).await?, "pair").await?);
    redis.command(0, &["HSET", &format!("{{{name}}}:meta"), "format", "1"]).await?;
    let pair = Pair::open(open(&url).await?, "pair").await?;
    let before = told(&redis).await?;
    pair.bump().await?;
    assert_eq!(told(&redis).await? - before, 2);
    assert_eq!(redis.command(0, &["HGET", &format!("{{{name}}}:meta"), "format"]).await?.trim(), "1");
    Ok(())
}
