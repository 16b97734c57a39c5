//! Groups of servers: another leads when the first is gone.

use avout_conformance::servers::{Mongo, Redis, ZooKeeper};

use super::support::{Outcome, connect, eventually, tests, zookeeper_session};

tests![
    zookeeper_elects_another,
    an_isolated_zookeeper_leads_no_more,
    mongo_elects_another,
    an_isolated_mongo_is_out_of_reach,
    a_replica_is_promoted,
    sentinels_promote_another,
    a_cluster_is_whole,
];

/// Killing the leader makes another, and the ensemble comes back from a kill of all.
async fn zookeeper_elects_another() -> Outcome {
    let zk = ZooKeeper::ensemble(3).await?;
    let first = zk.leader().await?;
    zk.node(first).kill().await?;
    let second = zk.leader().await?;
    assert_ne!(first, second);
    zk.node(first).start().await?;
    assert!(zk.ask(first, "srvr").await?.contains("Mode: follower"));
    zk.kill_all().await?;
    zk.start_all().await?;
    let leader = zk.leader().await?;
    assert!(zookeeper_session(zk.node(leader).address())? > 0);
    Ok(())
}

/// A leader that is cut off stops leading, the others go on, and it comes back as a follower.
async fn an_isolated_zookeeper_leads_no_more() -> Outcome {
    let zk = ZooKeeper::builder().nodes(3).behind_proxies().start().await?;
    let first = zk.leader().await?;
    zk.isolate(first).await?;
    assert!(zookeeper_session(zk.proxies()[first].address()).is_err());
    let start = std::time::Instant::now();
    let second = loop {
        let leader = zk.leader().await?;
        if leader != first {
            break leader;
        }
        assert!(start.elapsed().as_secs() < 60, "it leads on");
    };
    assert!(zookeeper_session(zk.proxies()[second].address())? > 0);
    assert!(!zk.ask(first, "srvr").await?.contains("Mode: "), "it serves on");
    zk.rejoin(first).await?;
    let start = std::time::Instant::now();
    while !zk.ask(first, "srvr").await?.contains("Mode: follower") {
        assert!(start.elapsed().as_secs() < 60, "it does not come back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(zookeeper_session(zk.proxies()[first].address())? > 0);
    Ok(())
}

/// Killing the primary makes another; so does asking it to step down, and pausing it.
async fn mongo_elects_another() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let first = mongo.primary().await?;
    mongo.node(first).kill().await?;
    let second = mongo.primary().await?;
    assert_ne!(first, second);
    mongo.node(first).start().await?;
    mongo.step_down().await?;
    let third = mongo.primary().await?;
    assert_ne!(third, second);
    mongo.node(third).pause().await?;
    assert_ne!(mongo.primary().await?, third);
    mongo.node(third).resume().await?;
    Ok(())
}

/// Clients cannot reach an isolated member until it rejoins.
async fn an_isolated_mongo_is_out_of_reach() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).behind_proxies().start().await?;
    let address = mongo.proxies()[0].address();
    assert_eq!(mongo.address(), address.to_string());
    mongo.isolate(0).await?;
    assert!(connect(address).is_err());
    mongo.rejoin(0).await?;
    assert!(connect(address).is_ok());
    mongo.primary().await?;
    let bare = Mongo::replica_set(1).await?;
    assert!(bare.isolate(0).await.expect_err("it is refused").to_string().contains("behind_proxies"));
    Ok(())
}

/// A replica has what its master had, and can take its place.
async fn a_replica_is_promoted() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    assert_eq!(redis.master().await?, 0);
    redis.command(0, &["SET", "a", "1"]).await?;
    // Each command has a connection of its own, and WAIT looks only at the writes of its own: so the replica is asked.
    let start = std::time::Instant::now();
    while redis.command(1, &["GET", "a"]).await? != "1" {
        assert!(start.elapsed().as_secs() < 30, "the write does not reach the replica");
    }
    redis.node(0).kill().await?;
    redis.promote(1).await?;
    assert_eq!(redis.master().await?, 1);
    assert_eq!(redis.command(1, &["GET", "a"]).await?, "1");
    redis.node(0).start().await?;
    redis.replicate(0, 1).await?;
    assert!(redis.command(0, &["ROLE"]).await?.starts_with("slave"));
    Ok(())
}

/// Sentinels promote a replica when the master is cut off.
async fn sentinels_promote_another() -> Outcome {
    let redis = Redis::builder().sentinel(2).behind_proxies().start().await?;
    assert_eq!(redis.master().await?, 0);
    assert_eq!(redis.sentinel_address().split(',').count(), 3);
    redis.isolate(0).await?;
    let start = std::time::Instant::now();
    while redis.master().await? == 0 {
        assert!(start.elapsed().as_secs() < 60, "it is master on");
    }
    let second = redis.master().await?;
    assert_eq!(redis.command(second, &["SET", "a", "1"]).await?, "OK");
    Ok(())
}

/// A cluster takes keys of all slots, and a replica takes over from a master that was killed.
async fn a_cluster_is_whole() -> Outcome {
    let redis = Redis::cluster().await?;
    assert_eq!(redis.nodes().len(), 6);
    redis.node(0).kill().await?;
    let address = redis.node(3).address();
    eventually("the replica takes over", || {
        let mut stream = connect(address).expect("it runs");
        super::support::ask(&mut stream, "ROLE\r\n").is_ok_and(|role| role.contains("master"))
    })
    .await;
    Ok(())
}
