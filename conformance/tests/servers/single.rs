//! One server of each kind: it starts, answers, and keeps its data.

use std::time::Duration;

use avout_conformance::servers::{Error, Mongo, Node, Redis, Spec, ZooKeeper, shared};

use super::support::{Outcome, ask, connect, hear, tests, zookeeper_session};

tests![
    zookeeper_keeps_its_data,
    redis_keeps_its_data,
    mongo_keeps_its_data,
    a_paused_server_answers_later,
    a_stopped_server_has_ended,
    a_server_outlives_the_runtime,
    a_shared_server_is_one,
    a_server_of_another_kind_is_started_and_ends,
    mongo_asks_for_a_password,
];

/// A session that was granted is there again after a kill and a start, at the same address.
async fn zookeeper_keeps_its_data() -> Outcome {
    let zk = ZooKeeper::single().await?;
    let address = zk.node(0).address();
    assert!(zookeeper_session(address)? > 0);
    let sessions = zk.ask(0, "dump").await?;
    let session = sessions.split_whitespace().find(|word| word.starts_with("0x")).ok_or(sessions.clone())?;
    zk.node(0).kill().await?;
    assert_eq!(zk.node(0).pid(), None);
    assert!(connect(address).is_err());
    zk.node(0).start().await?;
    assert_eq!(zk.node(0).address(), address);
    assert!(zk.ask(0, "dump").await?.contains(session));
    assert!(zk.packets_received(0).await? > 0);
    assert_eq!(zk.leader().await?, 0);
    Ok(())
}

/// A value that was set is there again after a kill and a start.
async fn redis_keeps_its_data() -> Outcome {
    let redis = Redis::single().await?;
    assert_eq!(redis.command(0, &["SET", "a", "one\r\ntwo"]).await?, "OK");
    redis.node(0).restart().await?;
    assert_eq!(redis.command(0, &["GET", "a"]).await?, "one\r\ntwo");
    assert_eq!(redis.command(0, &["GET", "b"]).await?, "");
    Ok(())
}

/// A replica set knows after a kill and a start that it is one.
async fn mongo_keeps_its_data() -> Outcome {
    let mongo = Mongo::replica_set(1).await?;
    mongo.node(0).kill().await?;
    mongo.node(0).start().await?;
    assert_eq!(mongo.primary().await?, 0);
    let alone = Mongo::standalone().await?;
    assert_eq!(alone.primary().await?, 0);
    alone.admin(0, "fsync", 1).await?;
    assert!(alone.admin(0, "replSetGetStatus", 1).await.expect_err("it is refused").to_string().contains("replSet"));
    Ok(())
}

/// A paused server keeps its connections and answers when it goes on; it can also be killed.
async fn a_paused_server_answers_later() -> Outcome {
    let redis = Redis::single().await?;
    let mut stream = connect(redis.node(0).address())?;
    assert_eq!(ask(&mut stream, "PING\r\n")?, "+PONG\r\n");
    redis.node(0).pause().await?;
    assert!(redis.node(0).is_paused());
    assert!(ask(&mut stream, "PING\r\n").is_err());
    redis.node(0).resume().await?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    assert_eq!(hear(&mut stream)?, "+PONG\r\n");
    redis.node(0).pause().await?;
    redis.node(0).restart().await?;
    assert!(!redis.node(0).is_paused());
    assert_eq!(redis.command(0, &["PING"]).await?, "PONG");
    Ok(())
}

/// Stopping is orderly, also of a paused server, and what does not run says so.
async fn a_stopped_server_has_ended() -> Outcome {
    let redis = Redis::single().await?;
    redis.node(0).pause().await?;
    redis.node(0).stop().await?;
    assert!(redis.node(0).log().contains("bye bye"), "{}", redis.node(0).log());
    redis.node(0).stop().await?;
    redis.node(0).kill().await?;
    assert!(redis.node(0).pause().await.expect_err("it is refused").to_string().contains("does not run"));
    redis.node(0).start().await?;
    redis.node(0).start().await?;
    assert_eq!(redis.command(0, &["PING"]).await?, "PONG");
    Ok(())
}

/// The runtime in which a server was started may end before it.
async fn a_server_outlives_the_runtime() -> Outcome {
    let start = || tokio::runtime::Runtime::new().map(|runtime| runtime.block_on(Redis::single()));
    let redis = std::thread::spawn(start).join().map_err(|_| "panicked")???;
    assert_eq!(redis.command(0, &["PING"]).await?, "PONG");
    Ok(())
}

/// All who ask for the shared server get the same, also at once.
async fn a_shared_server_is_one() -> Outcome {
    let (one, two) = tokio::try_join!(shared::redis(), shared::redis())?;
    assert_eq!(one.address(), two.address());
    Ok(())
}

/// With a user, MongoDB refuses who has not said the password.
async fn mongo_asks_for_a_password() -> Outcome {
    let mongo = Mongo::builder().replica_set(1).user("ann", "secret").start().await?;
    let refused = mongo.admin(0, "listDatabases", 1).await.expect_err("it is refused").to_string();
    assert!(refused.contains("authentication"), "{refused}");
    Ok(())
}

/// Whoever tests against a server that the suite does not know starts it as the suite starts its own, once for all tests.
async fn a_server_of_another_kind_is_started_and_ends() -> Outcome {
    static SLOT: shared::Slot<Node> = shared::Slot::const_new();
    let own = || {
        shared::once(&SLOT, || async {
            let program = Spec::find("redis", "AVOUT_REDIS_SERVER", "redis-server", "install it")?;
            let spec = Spec::new("redis", program)?;
            let port = spec.port.to_string();
            let node = Node::new(spec.arguments(["--port", &port, "--save", ""]));
            node.start().await?;
            Ok::<_, Error>(node)
        })
    };
    let (node, again) = (own().await?, own().await?);
    assert_eq!(node.pid(), again.pid());
    assert_eq!(ask(&mut connect(node.address())?, "PING\r\n")?, "+PONG\r\n");
    node.stop().await?;
    assert!(connect(node.address()).is_err());
    let missing = Spec::find("etcd", "AVOUT_NO_SUCH_VARIABLE", "no-such-program", "there is no such thing");
    let missing = missing.expect_err("it is not there");
    assert!(missing.is_missing() && missing.to_string().contains("there is no such thing"), "{missing}");
    Ok(())
}
