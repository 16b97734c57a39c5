//! What replicas have confirmed.

use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::ErrorKind;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::links::sentinel_url;
use crate::support::{Load, Outcome, Pair, Switch, ask, at_last, connections, hasty, namespace, open, stm, within};

fn patient(backend: avout_redis::Backend, deadline: Duration) -> avout_core::Stm {
    avout_core::Stm::builder(backend.coordinator, backend.store).deadline(Some(deadline)).build()
}

/// Commits that overlap wait for the replicas together, and not one behind the other: those that nobody confirms fail at once, and
/// with one connection.
pub(crate) async fn commits_wait_for_replicas_together() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    let url = format!("{}?wait_replicas=1&wait_timeout=500ms&timeout=1s", redis.url(&namespace()));
    let client = patient(avout_redis::connect(&url).await?, Duration::from_millis(1500));
    let mut pairs = Vec::new();
    for n in 0..8 {
        let pair = Pair::open(client.clone(), &format!("pair{n}")).await?;
        pair.bump().await?;
        pairs.push(pair);
    }
    redis.node(1).pause().await?;
    let before = connections(&redis, 0).await?;
    let begun = Instant::now();
    let mut commits = JoinSet::new();
    for pair in &pairs {
        let pair = pair.clone();
        commits.spawn(async move { pair.bump().await });
    }
    for done in commits.join_all().await {
        let error = done.expect_err("nobody confirms it");
        assert!(matches!(error.kind(), ErrorKind::OutcomeUnknown), "{error:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let made = connections(&redis, 0).await? - before;
    assert!(made <= 8, "{made} connections");
    redis.node(1).resume().await?;
    for pair in &pairs {
        assert_eq!(pair.read_at_last().await, 2);
    }
    Ok(())
}

/// Nothing is read that the replicas have not confirmed, whoever wrote it; and what they have confirmed is read at once.
pub(crate) async fn nothing_is_read_that_a_failover_may_lose() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    let url = format!("{}?wait_replicas=1&wait_timeout=300ms", redis.url(&namespace()));
    let writer = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    let client = hasty(avout_redis::connect(&url).await?);
    let (reader, other) = (Pair::open(client.clone(), "pair").await?, Pair::open(client, "other").await?);
    assert_eq!((writer.bump().await?, reader.read().await?, other.read().await?), (1, 1, 0));
    let mut changes = reader.a().watch().await?;
    redis.node(1).pause().await?;
    let error = writer.bump().await.expect_err("nobody confirms it");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    let error = reader.read().await.expect_err("it is not confirmed");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    tokio::select! {
        told = changes.next() => assert!(told.expect("a change").is_err(), "a watch told of it"),
        () = tokio::time::sleep(Duration::from_millis(200)) => {}
    }
    assert_eq!(within(Duration::from_millis(1500), "a read of what is confirmed", other.read()).await?, 0);
    redis.node(1).resume().await?;
    assert_eq!(reader.read_at_last().await, 2);
    let told = async {
        loop {
            if changes.next().await.expect("it goes on").is_ok_and(|change| change.new == Some(2)) {
                return;
            }
        }
    };
    within(Duration::from_secs(10), "the watch", told).await;
    Ok(())
}

/// A master that is demoted while it waits for its replicas is left, and the commit is found out on the new one.
pub(crate) async fn a_master_demoted_while_it_waits_is_left() -> Outcome {
    let redis = Redis::with_replicas(2).await?;
    let switch = Switch::to(redis.node(0).address()).await?;
    let url = switch.url("wait_replicas=2&wait_timeout=3s");
    let pair = Pair::open(patient(avout_redis::connect(&url).await?, Duration::from_secs(10)), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    redis.node(2).pause().await?;
    let (done, moved) = tokio::join!(pair.bump(), async {
        at_last("a waiting commit", async || {
            let clients = redis.command(0, &["INFO", "clients"]).await.ok()?;
            clients.contains("blocked_clients:1").then_some(())
        })
        .await;
        switch.lead(redis.node(1).address());
        redis.promote(1).await?;
        redis.node(2).resume().await?;
        redis.replicate(2, 1).await?;
        redis.replicate(0, 1).await?;
        Ok::<(), Box<dyn std::error::Error>>(())
    });
    moved?;
    assert_eq!(done?, 2);
    assert_eq!(pair.bump().await?, 3);
    Ok(())
}

/// A master that hangs while its replicas are waited for is left, and what the new one's confirm is read.
pub(crate) async fn confirmations_leave_a_master_that_hangs() -> Outcome {
    let redis = Redis::sentinel(2).await?;
    // The connection's end is not to help.
    let url = sentinel_url(&redis, "wait_replicas=majority&reads=confirmed&timeout=60s");
    let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!((pair.bump().await?, pair.read().await?), (1, 1));
    let old = redis.master().await?;
    redis.node(old).pause().await?;
    // It asks the replicas of the old one.
    assert!(pair.read().await.is_err(), "nobody answers");
    at_last("another master", async || (redis.master().await.ok()? != old).then_some(())).await;
    assert_eq!(within(Duration::from_secs(20), "a read on the new master", pair.read_at_last()).await, 1);
    Ok(())
}

/// A replica that is known to be away is not waited for by a client that comes later, if the others are a majority.
pub(crate) async fn a_newcomer_waits_for_no_replica_that_is_away() -> Outcome {
    let redis = Redis::with_replicas(2).await?;
    redis.node(2).pause().await?;
    at_last("a replica that lags", async || {
        let info = ask(redis.node(0).address(), &["INFO", "replication"]).await.ok()?;
        let lags =
            info.lines().filter_map(|line| line.rsplit_once("lag=")?.1.split(',').next()?.trim().parse::<u32>().ok());
        lags.max().filter(|lag| *lag > 3)
    })
    .await;
    let url = format!("{}?wait_replicas=majority&wait_timeout=50s&timeout=60s", redis.url(&namespace()));
    let comes = async { Pair::open(stm(avout_redis::connect(&url).await?), "pair").await?.bump().await };
    assert_eq!(within(Duration::from_secs(20), "a commit", comes).await?, 1);
    Ok(())
}

/// With `wait_replicas=majority` nothing acknowledged is lost when the sentinels are told to fail over, though another replica goes on
/// confirming for the old master for a while.
pub(crate) async fn a_majority_loses_nothing_in_a_failover() -> Outcome {
    let redis = Redis::sentinel(2).await?;
    let url = sentinel_url(&redis, "wait_replicas=majority&wait_timeout=500ms");
    let clients = [stm(avout_redis::connect(&url).await?), open(&url).await?];
    let load = Load::start(&clients, 8).await?;
    load.more(300).await;
    let old = redis.master().await?;
    let sentinel = redis.sentinels()[0].address();
    let asked = ask(sentinel, &["SENTINEL", "FAILOVER", avout_conformance::servers::SENTINEL_SERVICE]);
    asked.await?;
    at_last("another master", async || (redis.master().await.ok()? != old).then_some(())).await;
    load.more(300).await;
    load.check().await?;
    Ok(())
}
