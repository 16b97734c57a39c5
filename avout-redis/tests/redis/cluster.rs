//! The nodes of a cluster.

use std::time::Duration;

use avout_conformance::servers::Redis;
use avout_core::backend::Coordinator as _;
use avout_core::{ErrorKind, Key};

use crate::support::{Load, Outcome, Pair, at_last, hasty, lost, namespace, open, stm, within};

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
    let moving = Moving::begin(&redis, &owner).await?;
    for key in [":meta", ":cells", ":names"] {
        moving.take(key).await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    moving.end().await?;
    within(Duration::from_secs(2), "commits on the other node", load.more(50)).await;
    load.check().await?;
    Ok(())
}

/// What a slot has lost to another node already is used there, however long the slot stays half moved: by clients that are connected,
/// by new ones, by watches, and where replicas confirm.
pub(crate) async fn a_slot_that_stays_half_moved_is_used() -> Outcome {
    let redis = Redis::cluster().await?;
    let name = namespace();
    let url = format!("redis+cluster://{}/{name}", redis.address());
    let confirmed = format!("{url}?wait_replicas=1&reads=confirmed");
    let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    let sure = Pair::open(hasty(avout_redis::connect(&confirmed).await?), "pair").await?;
    let watched = avout_redis::connect(&url).await?;
    let key = Key::new("/pair/a")?;
    let mut watcher = watched.coordinator.watch(std::slice::from_ref(&key)).await?;
    assert_eq!((pair.bump().await?, sure.bump().await?), (1, 2));
    sure.stm.create_ref("/large", vec![7_u8; 100_000]).await?;
    let owner = Owner::of(&redis, &name).await?;
    let moving = Moving::begin(&redis, &owner).await?;
    for key in [":meta", ":cells", ":names"] {
        moving.take(key).await?;
    }
    let soon = Duration::from_secs(10);
    assert_eq!(within(soon, "a read", pair.read()).await?, 2);
    assert_eq!((pair.bump().await?, sure.bump().await?), (3, 4));
    assert_eq!(watched.coordinator.list_all(&Key::root()).await?.iter().filter(|listed| **listed == key).count(), 1);
    // Values may be on either node.
    for rest in [":v/large", ""] {
        let large = open(&url).await?.open_ref::<Vec<u8>>("/large").await?;
        assert_eq!(within(soon, "a large value", large.get()).await?, vec![7; 100_000]);
        if !rest.is_empty() {
            moving.take(rest).await?;
        }
    }
    // A client that is new, and one that does not stop.
    let late = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(late.bump().await?, 5);
    assert_eq!((pair.bump().await?, sure.bump().await?), (6, 7));
    // Watches hear of what is committed there.
    within(soon, "a hint", watcher.changed()).await?;
    let fresh = watched.coordinator.watch(std::slice::from_ref(&key)).await;
    let mut fresh = within(soon, "a new watch", async { fresh }).await?;
    late.bump().await?;
    within(soon, "a hint to the new watch", fresh.changed()).await?;
    moving.end().await?;
    assert_eq!(within(soon, "a read after the move", pair.read_at_last()).await, 8);
    assert_eq!((pair.bump().await?, sure.bump().await?), (9, 10));
    Ok(())
}

/// A node that a slot is on its way to, and that comes back without the last commits, is noticed as any other server: clients that
/// have seen what is lost are told once, and each number is granted once after that.
pub(crate) async fn a_loss_in_the_middle_of_a_move_is_told() -> Outcome {
    let redis = Redis::builder().cluster(3, 0).arguments(&["--appendonly", "no"]).start().await?;
    let name = namespace();
    let url = format!("redis+cluster://{}/{name}", redis.address());
    let pairs = [Pair::open(open(&url).await?, "pair").await?, Pair::open(open(&url).await?, "pair").await?];
    let moving = Moving::begin(&redis, &Owner::of(&redis, &name).await?).await?;
    for key in [":meta", ":cells", ":names"] {
        moving.take(key).await?;
    }
    assert_eq!((pairs[0].bump().await?, pairs[1].bump().await?), (1, 2));
    assert_eq!(redis.command(moving.to, &["SAVE"]).await?, "OK");
    assert_eq!((pairs[0].bump().await?, pairs[1].bump().await?, pairs[0].read().await?), (3, 4, 4));
    redis.node(moving.to).kill().await?;
    redis.node(moving.to).start().await?;
    let mut granted = Vec::new();
    for pair in &pairs {
        let mut told = 0;
        let number = loop {
            match within(Duration::from_secs(30), "a commit after the loss", pair.bump()).await {
                Ok(number) => break number,
                Err(error) if lost(&error).is_some() => told += 1,
                Err(error) if error.kind() == ErrorKind::Timeout => {}
                Err(error) => return Err(error.into()),
            }
        };
        assert_eq!(told, 1, "it is told once");
        granted.push(number);
    }
    assert_eq!(granted, [3, 4]);
    Ok(())
}

/// A namespace's slot on its way to another node.
struct Moving<'a> {
    redis: &'a Redis,
    name: String,
    slot: String,
    from: usize,
    to: usize,
    to_id: String,
}

impl<'a> Moving<'a> {
    async fn begin(redis: &'a Redis, owner: &Owner) -> Outcome<Self> {
        let (from, to) = (owner.master, (owner.master + 1) % 3);
        let slot = redis.command(0, &["CLUSTER", "KEYSLOT", &format!("{{{}}}", owner.name)]).await?;
        let slot = slot.trim_start_matches(':').to_owned();
        let id = async |node| redis.command(node, &["CLUSTER", "MYID"]).await;
        let (from_id, to_id) = (id(from).await?, id(to).await?);
        redis.command(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from_id]).await?;
        redis.command(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to_id]).await?;
        Ok(Self { redis, name: owner.name.clone(), slot, from, to, to_id })
    }

    async fn take(&self, key: &str) -> Outcome {
        let port = self.redis.node(self.to).address().port().to_string();
        let key = format!("{{{}}}{key}", self.name);
        let moved = self.redis.command(self.from, &["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await?;
        assert_eq!(moved, "OK", "{key}");
        Ok(())
    }

    async fn end(&self) -> Outcome {
        for node in [self.to, self.from] {
            self.redis.command(node, &["CLUSTER", "SETSLOT", &self.slot, "NODE", &self.to_id]).await?;
        }
        Ok(())
    }
}
