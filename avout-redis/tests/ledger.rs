//! The example `ledger` keeps its promises while the server dies.

#[path = "../../tests/support/audit.rs"]
mod audit;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::time::Duration;

use audit::Ledger;
use avout_conformance::server_tests;
use avout_conformance::servers::Redis;
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn Error>>;

/// The server of a Redis that syncs each write is killed twice and started again, and nothing is lost, done twice or
/// overdrawn.
async fn redis_is_killed_twice() -> Outcome {
    let redis = Redis::with(&["--appendonly", "yes", "--appendfsync", "always"]).await?;
    let (ledger, url) = (Ledger::new().await?, format!("{}?appendfsync=always", redis.url("ledger")));
    let all = ledger.all()?;
    let mut children = ledger.children(&url)?;
    let work = async {
        let stm = avout::connect(&url).await?;
        for decided in [all / 4, all * 2 / 3] {
            ledger.until_decided(&stm, decided).await?;
            redis.node(0).kill().await?;
            redis.node(0).start().await?;
        }
        ledger.until_done(&stm, &mut children).await
    };
    timeout(Duration::from_secs(180), work).await??;
    ledger.check(&url).await
}

server_tests![redis_is_killed_twice];
