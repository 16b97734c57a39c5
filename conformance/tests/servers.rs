//! The servers for tests keep their promises.

use std::error::Error;

use avout_conformance::servers::{Mongo, Redis, ZooKeeper};

async fn zookeeper_answers() -> Result<(), Box<dyn Error>> {
    let zk = ZooKeeper::single().await?;
    assert!(zk.packets_received(0).await? > 0);
    Ok(())
}

async fn redis_answers() -> Result<(), Box<dyn Error>> {
    assert_eq!(Redis::single().await?.command(0, &["PING"]).await?, "PONG");
    Ok(())
}

async fn mongo_answers() -> Result<(), Box<dyn Error>> {
    assert_eq!(Mongo::replica_set(1).await?.primary().await?, 0);
    Ok(())
}

avout_conformance::server_tests![zookeeper_answers, redis_answers, mongo_answers];
