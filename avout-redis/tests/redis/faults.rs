//! Faults of one server and of the way to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::backend::Coordinator;
use avout_core::{ErrorKind, Key};

use crate::support::{Outcome, Pair, at_last, hasty, lost, namespace, open, stm, within};

/// Commits, but no other scripts.
fn is_commit(request: &[u8]) -> bool {
    request.windows(7).any(|word| word == b"EVALSHA") && request.windows(14).any(|word| word == b"/.avout/slots/")
}

/// The commit was applied and its reply lost: it is found out, and counted once.
pub(crate) async fn a_lost_reply_is_found_out() -> Outcome {
    let redis = Redis::single().await?;
    let proxy = redis.proxy(0).await?;
    let pair = Pair::open(open(&format!("redis://{}/{}", proxy.address(), namespace())).await?, "pair").await?;
    for round in 1..=5 {
        proxy.cut_on_reply_to(is_commit);
        let (done, ()) = tokio::join!(pair.bump(), async {
            proxy.is_cut().await;
            proxy.heal().await.expect("the proxy's port is free");
        });
        assert_eq!((done?, pair.read().await?), (round, round));
    }
    assert_eq!(pair.stm.stats().resolved, 5);
    Ok(())
}

/// The commit never came: it is made again, and counted once.
pub(crate) async fn a_lost_request_is_made_again() -> Outcome {
    let redis = Redis::single().await?;
    let proxy = redis.proxy(0).await?;
    let pair = Pair::open(open(&format!("redis://{}/{}", proxy.address(), namespace())).await?, "pair").await?;
    for round in 1..=5 {
        proxy.cut_on_request(is_commit);
        let (done, ()) = tokio::join!(pair.bump(), async {
            proxy.is_cut().await;
            proxy.heal().await.expect("the proxy's port is free");
        });
        assert_eq!((done?, pair.read().await?), (round, round));
    }
    Ok(())
}

/// With no memory left writes are `Full`, and reading goes on; with more of it writing does.
pub(crate) async fn a_full_memory_takes_no_writes() -> Outcome {
    let redis = Redis::single().await?;
    let url = redis.url(&namespace());
    let client = open(&url).await?;
    let pair = Pair::open(client.clone(), "pair").await?;
    let atom = client.create_atom("/atom", 1).await?;
    let large = client.create_ref("/large", Vec::<u8>::new()).await?;
    pair.bump().await?;
    redis.command(0, &["CONFIG", "SET", "maxmemory", "1mb"]).await?;
    assert_eq!(pair.bump().await.expect_err("no room").kind(), ErrorKind::Full);
    assert_eq!(atom.swap(|n| n + 1).await.expect_err("no room").kind(), ErrorKind::Full);
    assert_eq!(large.set(vec![1; 50_000]).await.expect_err("no room").kind(), ErrorKind::Full);
    assert_eq!((pair.read().await?, atom.get().await?), (1, 1));
    // A new client can read as well.
    assert_eq!(Pair::open(open(&url).await?, "pair").await?.read().await?, 1);
    redis.command(0, &["CONFIG", "SET", "maxmemory", "0"]).await?;
    assert_eq!((pair.bump().await?, atom.swap(|n| n + 1).await?), (2, 2));
    large.set(vec![1; 50_000]).await?;
    Ok(())
}

/// A server that sleeps and wakes up, with requests from before in its sockets, counts each transaction once.
pub(crate) async fn a_paused_server_loses_nothing() -> Outcome {
    let redis = Redis::single().await?;
    let url = format!("{}?timeout=300ms&connect_timeout=300ms", redis.url(&namespace()));
    let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    let (mut done, mut unknown) = (0, 0);
    for round in 0..3 {
        redis.node(0).pause().await?;
        let reads = pair.stm.stats().reads;
        let bumps: Vec<_> = (0..4)
            .map(|_| {
                let pair = pair.clone();
                tokio::spawn(async move { pair.bump().await })
            })
            .collect();
        if round == 1 {
            // Longer than anybody waits for.
            for bump in &bumps {
                at_last("the end of a transaction", async || bump.is_finished().then_some(())).await;
            }
        } else {
            // Their first requests are on their way.
            at_last("four reads", async || (pair.stm.stats().reads >= reads + 4).then_some(())).await;
        }
        redis.node(0).resume().await?;
        for bump in bumps {
            match bump.await? {
                Ok(_) => done += 1,
                Err(error) if error.kind() == ErrorKind::OutcomeUnknown => unknown += 1,
                Err(error) => assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}"),
            }
        }
        let now = pair.read_at_last().await;
        assert!((done..=done + unknown).contains(&now), "{now} counted, {done} done and {unknown} unknown");
    }
    Ok(())
}

/// A server that takes long is waited for, and one that takes longer than the limit is not.
pub(crate) async fn a_slow_server_is_waited_for() -> Outcome {
    let redis = Redis::single().await?;
    let proxy = redis.proxy(0).await?;
    let url = format!("redis://{}/{}?timeout=1s", proxy.address(), namespace());
    let pair = Pair::open(open(&url).await?, "pair").await?;
    proxy.delay(Duration::from_millis(100));
    assert_eq!(pair.bump().await?, 1);
    proxy.delay(Duration::from_millis(1500));
    let slow = hasty(avout_redis::connect(&redis.url(&namespace())).await?);
    drop(slow);
    let late = within(Duration::from_secs(20), "a read of a slow server", async {
        pair.stm.transaction().deadline(Duration::from_secs(3)).dosync(async |tx| tx.get(pair.a()).await).await
    });
    let error: avout_core::Error = late.await.expect_err("it took too long");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    proxy.delay(Duration::ZERO);
    assert_eq!(pair.read_at_last().await, 1);
    Ok(())
}

/// A connection that hears nothing any more is noticed and made again, however often something is asked of it meanwhile that needs
/// no answer.
pub(crate) async fn a_deaf_watch_is_noticed_though_others_come_and_go() -> Outcome {
    let redis = Redis::single().await?;
    let proxy = redis.proxy(0).await?;
    let url = format!("redis://{}/{}?timeout=500ms&connect_timeout=500ms", proxy.address(), namespace());
    let coordinator = avout_redis::connect(&url).await?.coordinator;
    let keys = [Key::new("/watched")?];
    let _kept = coordinator.watch(&keys).await?;
    let connections = async || -> Outcome<u64> {
        let stats = redis.command(0, &["INFO", "stats"]).await?;
        let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
        Ok(count.ok_or("a count")?.trim().parse()?)
    };
    let before = connections().await?;
    let of_one_look = connections().await? - before;
    let looks = AtomicU64::new(1);
    proxy.lose_replies();
    at_last("a new connection", async || {
        drop(coordinator.watch(&keys).await);
        let looks = looks.fetch_add(1, Ordering::Relaxed) + 1;
        connections().await.ok().filter(|now| *now > before + looks * of_one_look)
    })
    .await;
    Ok(())
}

/// After FLUSHALL nothing is as it was: every call says so, a watch ends, and the namespace can be opened anew.
pub(crate) async fn an_emptied_server_is_told() -> Outcome {
    let redis = Redis::single().await?;
    let url = redis.url(&namespace());
    let client = open(&url).await?;
    let pair = Pair::open(client.clone(), "pair").await?;
    let atom = client.create_atom("/atom", 1).await?;
    let mut changes = pair.a().watch().await?;
    pair.bump().await?;
    changes.next().await.expect("a change")?;
    redis.command(0, &["FLUSHALL"]).await?;
    for _ in 0..2 {
        assert_eq!(pair.bump().await.expect_err("it is gone").kind(), ErrorKind::StoreLost);
        assert_eq!(pair.read().await.expect_err("it is gone").kind(), ErrorKind::StoreLost);
        assert_eq!(atom.get().await.expect_err("it is gone").kind(), ErrorKind::StoreLost);
    }
    let end = async {
        while let Some(change) = changes.next().await {
            assert_eq!(change.expect_err("it is gone").kind(), ErrorKind::StoreLost);
        }
    };
    within(Duration::from_secs(20), "the end of a watch", end).await;
    let anew = Pair::open(open(&url).await?, "pair").await?;
    assert_eq!(anew.read().await?, 0);
    assert_eq!(pair.bump().await.expect_err("another namespace").kind(), ErrorKind::StoreLost);
    Ok(())
}

/// A server that comes back with an older state is told of once; then the client goes on with that state.
pub(crate) async fn a_server_that_forgets_is_told_once() -> Outcome {
    // No log, and a snapshot only when it is asked for.
    let redis = Redis::with(&["--appendonly", "no"]).await?;
    let url = redis.url(&namespace());
    let one = Pair::open(stm(avout_redis::connect(&url).await?), "pair").await?;
    let other = Pair::open(open(&url).await?, "pair").await?;
    assert_eq!(one.bump().await?, 1);
    assert_eq!(other.read().await?, 1);
    redis.command(0, &["SAVE"]).await?;
    let snapshot = one.stm.snapshot().await?;
    assert_eq!(one.bump().await?, 2);
    assert_eq!(one.bump().await?, 3);
    redis.node(0).kill().await?;
    redis.node(0).start().await?;
    let told = at_last("news of the loss", async || match one.read().await {
        Ok(value) => panic!("{value} is read, and nobody was told"),
        Err(error) => lost(&error).copied(),
    })
    .await;
    assert!(told.kept.is_some_and(|kept| kept < told.seen), "{told:?}");
    assert_eq!(one.read().await?, 1);
    // Whoever has not seen what is lost is not bothered.
    assert_eq!(other.read().await?, 1);
    assert_eq!(other.bump().await?, 2);
    assert_eq!((one.bump().await?, other.bump().await?), (3, 4));
    assert_eq!((one.read().await?, other.read().await?), (4, 4));
    // What was current then is told from a history that this client has seen go on otherwise.
    let past = snapshot.get(one.a()).await;
    assert!(past.is_err() || past? == 1);
    Ok(())
}
