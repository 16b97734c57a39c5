//! The nodes of a cluster.

use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::ErrorKind;

use crate::support::{Load, Outcome, Pair, at_last, hasty, namespace, open, stm, within};

/// The namespace's master and its replica, and what else there is.
struct Owner {
    name: String,
    master: usize,
    replica: usize,
}

impl Owner {
    async fn of(redis: &Redis, name: &str) -> Outcome<Self> {
        let mut master = None;
        for node in 0..3 {
            if !redis.command(node, &["HGET", &format!("{{{name}}}:meta"), "realm"]).await?.starts_with('-') {
                master = Some(node);
            }
        }
        let master = master.ok_or("one of the nodes has the slot")?;
        Ok(Self { name: name.to_owned(), master, replica: master + 3 })
    }

    fn url(&self, redis: &Redis, seed: usize, options: &str) -> String {
        format!("redis+cluster://{}/{}?{options}", redis.node(seed).address(), self.name)
    }
}

/// The replica takes its master's place, in agreement with it.
async fn fail_over(redis: &Redis, replica: usize) -> Outcome {
    redis.command(replica, &["CLUSTER", "FAILOVER"]).await?;
    at_last("a promotion", async || {
        let role = redis.command(replica, &["ROLE"]).await.ok()?;
        role.starts_with("master").then_some(())
    })
    .await;
    Ok(())
}

/// A client that still waits for replicas to confirm what it did follows to a new master.
pub(crate) async fn confirmations_follow_the_new_master() -> Outcome {
    let redis = Redis::cluster().await?;
    let name = namespace();
    let url = format!("redis+cluster://{}/{name}?wait_replicas=1&wait_timeout=300ms", redis.address());
    let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    let owner = Owner::of(&redis, &name).await?;
    redis.node(owner.replica).pause().await?;
    let error = pair.bump().await.expect_err("nobody confirms it");
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error:?}");
    redis.node(owner.replica).resume().await?;
    redis.caught_up(owner.replica).await?;
    fail_over(&redis, owner.replica).await?;
    assert_eq!(within(Duration::from_secs(5), "a read on the new master", pair.read_at_last()).await, 2);
    assert_eq!(pair.bump().await?, 3);
    Ok(())
}

/// A request of several commands follows to a new master as one of one command does.
pub(crate) async fn several_commands_follow_the_new_master() -> Outcome {
    let redis = Redis::cluster().await?;
    let name = namespace();
    let url = format!("redis+cluster://{}/{name}", redis.address());
    let client = hasty(avout_redis::connect(&url).await?);
    Pair::open(client.clone(), "pair").await?;
    let owner = Owner::of(&redis, &name).await?;
    fail_over(&redis, owner.replica).await?;
    let listed = at_last("a list", async || client.list("/pair").await.ok());
    assert_eq!(within(Duration::from_secs(3), "a list", listed).await.len(), 2);
    Ok(())
}

/// A replica as the only seed leads to its cluster, and the nodes that were learned are asked when it is gone.
pub(crate) async fn any_node_leads_to_the_cluster_and_all_are_remembered() -> Outcome {
    let redis = Redis::cluster().await?;
    let name = namespace();
    open(&format!("redis+cluster://{}/{name}", redis.address())).await?;
    let owner = Owner::of(&redis, &name).await?;
    // A replica of the owner's, and one of another master's.
    for seed in [owner.replica, 3 + (owner.master + 1) % 3] {
        let url = owner.url(&redis, seed, "");
        let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
        pair.bump().await?;
    }
    let seed = 3 + (owner.master + 1) % 3;
    let pair = Pair::open(stm(avout_redis::connect(&owner.url(&redis, seed, "")).await?), "pair").await?;
    redis.node(seed).kill().await?;
    fail_over(&redis, owner.replica).await?;
    redis.node(owner.master).kill().await?;
    within(Duration::from_secs(10), "the new master", pair.bump()).await?;
    Ok(())
}

/// A client that does nothing but watch leaves a master that hangs, and hears what is committed on the new one.
pub(crate) async fn a_watch_alone_leaves_a_master_that_hangs() -> Outcome {
    let redis = Redis::cluster().await?;
    let name = namespace();
    // Neither the connection's end nor the engine's own look is to help.
    let url = format!("redis+cluster://{}/{name}?timeout=60s", redis.address());
    let backend = avout_redis::connect(&url).await?;
    let builder = avout_core::Stm::builder(backend.coordinator, backend.store);
    let watcher = Pair::open(builder.look_every(Duration::from_secs(3600)).build(), "pair").await?;
    let mut changes = watcher.a().watch().await?;
    let writer = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(writer.bump().await?, 1);
    assert_eq!(within(Duration::from_secs(5), "a change", changes.next()).await.expect("a change")?.new, Some(1));
    let owner = Owner::of(&redis, &name).await?;
    redis.node(owner.master).pause().await?;
    at_last("a promotion", async || {
        redis.command(owner.replica, &["ROLE"]).await.ok().filter(|role| role.starts_with("master"))
    })
    .await;
    at_last("a commit on the new master", async || writer.bump().await.ok()).await;
    // An error tells of commits that were lost.
    let told = async { while changes.next().await.expect("it goes on").is_ok_and(|change| change.new < Some(2)) {} };
    within(Duration::from_secs(20), "the watch", told).await;
    Ok(())
}

/// While a slot is moved requests wait, and go on as soon as it has.
pub(crate) async fn a_moving_slot_holds_up_nobody_longer_than_it_takes() -> Outcome {
    let redis = Redis::cluster().await?;
    let name = namespace();
    let url = format!("redis+cluster://{}/{name}", redis.address());
    let clients = [stm(avout_redis::connect(&url).await?), stm(avout_redis::connect(&url).await?)];
    let load = Load::start(&clients, 4).await?;
    load.more(50).await;
    let owner = Owner::of(&redis, &name).await?;
    let (from, to) = (owner.master, (owner.master + 1) % 3);
    let keys = [":meta", ":cells", ":names"].map(|rest| format!("{{{name}}}{rest}"));
    let slot = redis.command(0, &["CLUSTER", "KEYSLOT", &keys[0]]).await?;
    let slot = slot.trim_start_matches(':').to_owned();
    let id = async |node| redis.command(node, &["CLUSTER", "MYID"]).await;
    let (from_id, to_id) = (id(from).await?, id(to).await?);
    redis.command(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await?;
    redis.command(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await?;
    let port = redis.node(to).address().port().to_string();
    for key in &keys {
        redis.command(from, &["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    redis.command(to, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
    redis.command(from, &["CLUSTER", "SETSLOT", &slot, "NODE", &to_id]).await?;
    within(Duration::from_secs(2), "commits on the other node", load.more(50)).await;
    load.check().await?;
    Ok(())
}
