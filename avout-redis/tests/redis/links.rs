//! When a client leaves a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use avout_conformance::servers::{Redis, SENTINEL_SERVICE};
use avout_core::{ErrorKind, Stm};

use crate::support::{Outcome, Pair, Switch, at_last, estrange, hasty, namespace, open, replicated, within};

/// How long a client may stay behind when the new master is ready.
const BEHIND: Duration = Duration::from_secs(3);

pub(crate) fn sentinel_url(redis: &Redis, options: &str) -> String {
    format!("redis+sentinel://{}/{SENTINEL_SERVICE}/{}?{options}", redis.sentinel_address(), namespace())
}

/// A client whose callers give up before the connection does.
fn impatient(backend: avout_redis::Backend) -> Stm {
    Stm::builder(backend.coordinator, backend.store).deadline(Some(Duration::from_millis(300))).build()
}

async fn reads(pair: &Pair, value: u64) {
    at_last("the new value", async || pair.read().await.ok().filter(|found| *found == value)).await;
}

/// A client that only reads leaves a master that was cut from its peers, though it still answers, as soon as there is another one.
pub(crate) async fn a_reader_leaves_a_master_that_is_cut_from_its_peers() -> Outcome {
    let redis = Redis::sentinel(2).await?;
    let url = sentinel_url(&redis, "");
    let reader = Pair::open(open(&url).await?, "pair").await?;
    let mut changes = reader.a().watch().await?;
    assert_eq!(reader.bump().await?, 1);
    assert_eq!(changes.next().await.expect("a change")?.new, Some(1));
    let old = redis.master().await?;
    estrange(&redis, old).await?;
    at_last("another master", async || (redis.master().await.ok()? != old).then_some(())).await;
    let writer = Pair::open(open(&url).await?, "pair").await?;
    within(BEHIND, "a commit on the new master", writer.bump()).await?;
    within(BEHIND, "the new value", reads(&reader, 2)).await;
    let told = within(BEHIND, "the watch", changes.next()).await.expect("a change")?;
    assert_eq!(told.new, Some(2));
    Ok(())
}

/// A master that hangs is left, however soon its callers give up; and when it goes on nobody believes what it says.
pub(crate) async fn a_master_that_hangs_is_left_by_impatient_callers() -> Outcome {
    let redis = Redis::sentinel(2).await?;
    let url = sentinel_url(&redis, "");
    let pair = Pair::open(impatient(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    let old = redis.master().await?;
    redis.node(old).pause().await?;
    let asking = async {
        loop {
            let _ = pair.read().await;
        }
    };
    tokio::select! {
        () = asking => {}
        new = redis.master() => assert_ne!(new?, old),
    }
    let writer = Pair::open(open(&url).await?, "pair").await?;
    assert_eq!(writer.bump().await?, 2);
    within(BEHIND, "the new value", reads(&pair, 2)).await;
    redis.node(old).resume().await?;
    for _ in 0..20 {
        assert_eq!(pair.read_at_last().await, 2);
    }
    Ok(())
}

/// The same where no sentinel tells of it: a server that answers nothing within `timeout` is left, whatever its callers' deadlines are.
pub(crate) async fn a_server_that_hangs_is_left_without_a_word() -> Outcome {
    let redis = Redis::with_replicas(1).await?;
    let switch = Switch::to(redis.node(0).address()).await?;
    let pair = Pair::open(impatient(avout_redis::connect(&switch.url("timeout=1s")).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    replicated(&redis, 1).await;
    redis.node(0).pause().await?;
    redis.promote(1).await?;
    switch.lead(redis.node(1).address());
    within(Duration::from_secs(20), "the other server", reads(&pair, 1)).await;
    Ok(())
}

/// A master that has no replicas left, and so takes no writes, is left when another server has its address.
pub(crate) async fn a_master_without_replicas_is_left() -> Outcome {
    let settings = ["--min-replicas-to-write", "1", "--min-replicas-max-lag", "10"];
    let redis = Redis::builder().replicas(2).arguments(&settings).start().await?;
    let switch = Switch::to(redis.node(0).address()).await?;
    let pair = Pair::open(hasty(avout_redis::connect(&switch.url("")).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    replicated(&redis, 1).await;
    redis.promote(1).await?;
    redis.replicate(2, 1).await?;
    let refused = pair.bump().await.expect_err("no replica is there");
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    switch.lead(redis.node(1).address());
    let moved = at_last("a commit on the other server", async || pair.bump().await.ok());
    assert_eq!(within(BEHIND, "the other server", moved).await, 2);
    Ok(())
}

/// While its master has no replicas a client goes on reading, and does not connect again and again.
pub(crate) async fn a_master_without_replicas_brings_no_storm() -> Outcome {
    let redis = Redis::single().await?;
    let pair = Pair::open(hasty(avout_redis::connect(&redis.url(&namespace())).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    redis.command(0, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await?;
    let before = crate::support::connections(&redis, 0).await?;
    for _ in 0..2 {
        let refused = pair.bump().await.expect_err("no replica is there");
        assert!(matches!(refused.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{refused:?}");
        assert_eq!(pair.read().await?, 1);
    }
    let made = crate::support::connections(&redis, 0).await? - before;
    assert!(made < 25, "{made} connections in four seconds");
    redis.command(0, &["CONFIG", "SET", "min-replicas-to-write", "0"]).await?;
    assert_eq!(pair.bump().await?, 2);
    Ok(())
}

/// With `reads=confirmed` a master that has lost its replicas answers no reads: it may not be the master any more.
pub(crate) async fn confirmed_reads_are_not_late() -> Outcome {
    let redis = Redis::with_replicas(2).await?;
    let url = format!("{}?wait_replicas=2&wait_timeout=300ms&reads=confirmed", redis.url(&namespace()));
    let pair = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(pair.bump().await?, 1);
    assert_eq!(pair.read().await?, 1);
    redis.promote(1).await?;
    let error = pair.read().await.expect_err("the other one may be the master, and have more");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    redis.replicate(1, 0).await?;
    assert_eq!(pair.read_at_last().await, 1);
    Ok(())
}

/// With a majority that confirms commits and reads, a master that was cut from its peers tells nothing old: what began after a commit on
/// the new master sees it, or fails.
pub(crate) async fn a_master_that_was_cut_off_gives_no_late_reads() -> Outcome {
    let redis = Redis::sentinel(2).await?;
    let url = sentinel_url(&redis, "wait_replicas=majority&wait_timeout=500ms&reads=confirmed");
    let reader = Pair::open(hasty(avout_redis::connect(&url).await?), "pair").await?;
    assert_eq!(reader.bump().await?, 1);
    let old = redis.master().await?;
    estrange(&redis, old).await?;
    let committed = Arc::new(AtomicU64::new(1));
    let reading = {
        let (reader, committed) = (reader.clone(), Arc::clone(&committed));
        tokio::spawn(async move {
            loop {
                let least = committed.load(Ordering::SeqCst);
                if let Ok(value) = reader.read().await {
                    assert!(value >= least, "{value} was read after {least} was committed");
                    if value > 5 {
                        return;
                    }
                }
            }
        })
    };
    at_last("another master", async || (redis.master().await.ok()? != old).then_some(())).await;
    let writer = Pair::open(open(&url).await?, "pair").await?;
    for _ in 0..5 {
        let value = at_last("a commit on the new master", async || writer.bump().await.ok()).await;
        committed.store(value, Ordering::SeqCst);
    }
    within(BEHIND, "the new values", reading).await?;
    Ok(())
}
