//! Faults under load.

use std::time::Duration;

use avout_conformance::servers::Redis;
use tokio::time::sleep;

use crate::support::{Load, Outcome, hasty, namespace, open};

/// With `appendfsync always` a server that is killed and started again, three times, has all that it acknowledged.
pub(crate) async fn a_server_killed_under_load_keeps_what_it_acknowledged() -> Outcome {
    let redis = Redis::with(&["--appendfsync", "always"]).await?;
    let url = format!("{}?appendfsync=always", redis.url(&namespace()));
    let clients = [hasty(avout_redis::connect(&url).await?), hasty(avout_redis::connect(&url).await?)];
    let load = Load::start(&clients, 16).await?;
    for round in 0..3 {
        load.more(200).await;
        redis.node(0).kill().await?;
        // At once, and after all have given up.
        sleep(Duration::from_millis(800 * round)).await;
        redis.node(0).start().await?;
    }
    load.more(200).await;
    load.check().await?;
    Ok(())
}

/// Scripts that are removed again and again are loaded again, and no transaction fails.
pub(crate) async fn scripts_flushed_under_load_change_nothing() -> Outcome {
    let redis = Redis::single().await?;
    let load = Load::start(&[open(&redis.url(&namespace())).await?], 8).await?;
    for _ in 0..50 {
        load.more(20).await;
        redis.command(0, &["SCRIPT", "FLUSH"]).await?;
    }
    let tally = load.check().await?;
    assert_eq!((tally.unknown, tally.failed), (0, 0));
    Ok(())
}
