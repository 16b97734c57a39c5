//! Another server takes the place of the master.

use std::time::Duration;

use avout_conformance::servers::{Redis, SENTINEL_SERVICE};
use avout_core::ErrorKind;

use crate::support::{Load, Outcome, Pair, Switch, at_last, hasty, lost, namespace, open, replicated};

/// A replica is promoted that lacks the last commits: who has seen them is told once, who has not goes on, and
/// nobody sees both histories.
pub(crate) async fn a_promotion_that_lost_commits_is_told_once() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    let switch = Switch::to(redis.node(0).address()).await?;
    let url = switch.url("");
    let one = Pair::open(open(&url).await?, "pair").await?;
    let other = Pair::open(open(&url).await?, "pair").await?;
    assert_eq!(one.bump().await?, 1);
    assert_eq!(other.read().await?, 1);
    replicated(&redis, 1).await;
    // From here on the master is alone, and does not know.
    redis.promote(1).await?;
    for value in 2..=5 {
        assert_eq!(one.bump().await?, value);
    }
    switch.turn(redis.node(1).address());
    // The other client comes first, and commits until the new history is longer than what was lost.
    for value in 2..=9 {
        at_last("a commit on the new master", async || other.bump().await.ok()).await;
        assert_eq!(other.read().await?, value);
    }
    let told = at_last("news of the loss", async || match one.bump().await {
        Ok(value) => panic!("{value} after a loss that nobody was told of"),
        Err(error) => lost(&error).copied(),
    })
    .await;
    assert!(told.kept.is_some_and(|kept| kept < told.seen), "{told:?}");
    assert_eq!(one.bump().await?, 10);
    assert_eq!(other.bump().await?, 11);
    assert_eq!((one.read().await?, other.read().await?), (11, 11));
    Ok(())
}

/// With `wait_replicas` what was acknowledged is on the replica, and outlives the master.
pub(crate) async fn what_replicas_have_confirmed_survives() -> Outcome {
    let redis = Redis::with_replicas(2).await?;
    let switch = Switch::to(redis.node(0).address()).await?;
    let clients = [hasty(avout_redis::connect(&switch.url("wait_replicas=1")).await?)];
    let load = Load::start(&clients, 8).await?;
    load.more(300).await;
    redis.node(0).kill().await?;
    // The one that has more: what one replica has confirmed it has.
    let offset = async |node| -> Outcome<u64> {
        let info = redis.command(node, &["INFO", "replication"]).await?;
        let field = info.lines().find_map(|line| line.strip_prefix("slave_repl_offset:")).unwrap_or("0");
        Ok(field.trim().parse()?)
    };
    let (next, last) = if offset(1).await? >= offset(2).await? { (1, 2) } else { (2, 1) };
    redis.promote(next).await?;
    redis.replicate(last, next).await?;
    switch.turn(redis.node(next).address());
    load.more(100).await;
    load.check().await?;
    Ok(())
}

/// A commit that no replica confirms is not acknowledged, and nothing that depends on it is; when the replica is back all is well.
pub(crate) async fn too_few_replicas_are_no_success() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    let url = format!("{}?wait_replicas=1&wait_timeout=200ms", redis.url(&namespace()));
    let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    redis.node(1).pause().await?;
    let error = pair.bump().await.expect_err("nobody has confirmed it");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    let error = pair.read().await.expect_err("it may be lost yet");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    redis.node(1).resume().await?;
    assert_eq!(pair.read_at_last().await, 2);
    assert_eq!(pair.bump().await?, 3);
    Ok(())
}

/// The sentinels promote a replica, and clients follow.
pub(crate) async fn sentinels_lead_to_the_new_master() -> Outcome {
    let redis = Redis::sentinel(2).await?;
    let hosts = redis.sentinel_address();
    let options = "timeout=1s&connect_timeout=2s&wait_replicas=1&wait_timeout=500ms";
    let url = format!("redis+sentinel://{hosts}/{SENTINEL_SERVICE}/{}?{options}", namespace());
    let clients = [hasty(avout_redis::connect(&url).await?)];
    let load = Load::start(&clients, 8).await?;
    load.more(200).await;
    let watched = Pair::open(open(&url).await?, "pair").await?;
    let mut changes = watched.a().watch().await?;
    let master = redis.master().await?;
    redis.node(master).pause().await?;
    redis.master().await?;
    load.more(100).await;
    redis.node(master).kill().await?;
    load.check().await?;
    let writer = Pair::open(open(&url).await?, "pair").await?;
    at_last("a commit on the new master", async || writer.bump().await.ok()).await;
    let seen = async {
        loop {
            match changes.next().await.expect("the watch goes on") {
                Ok(change) => return change.new,
                Err(error) => assert_ne!(error.kind(), ErrorKind::StoreLost, "{error:?}"),
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), seen).await?;
    assert_eq!(seen, Some(1));
    Ok(())
}

/// A replica in a cluster takes its master's slots, and clients follow.
pub(crate) async fn a_cluster_leads_to_the_new_master() -> Outcome {
    let redis = Redis::cluster().await?;
    let hosts = redis.address();
    let url = format!("redis+cluster://{hosts}/{}?timeout=1s&connect_timeout=2s", namespace());
    let name = url.split(['/', '?']).nth(3).expect("the namespace").to_owned();
    let clients = [hasty(avout_redis::connect(&url).await?)];
    let load = Load::start(&clients, 4).await?;
    load.more(100).await;
    let mut owner = None;
    for node in 0..redis.nodes().len() {
        let asked = redis.command(node, &["HGET", &format!("{{{name}}}:meta"), "realm"]).await?;
        if !asked.starts_with('-') {
            owner = Some(node);
        }
    }
    let owner = owner.expect("one of the nodes has the slot");
    redis.node(owner).kill().await?;
    load.more(100).await;
    load.check_with_loss().await?;
    let pair = Pair::open(open(&url).await?, "pair").await?;
    pair.bump().await?;
    Ok(())
}
