//! The example `ledger` keeps its promises while servers and processes die.

#[path = "../../tests/support/audit.rs"]
mod audit;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::error::Error;
use std::time::Duration;

use audit::Ledger;
use avout_conformance::server_tests;
use avout_conformance::servers::Mongo;
use tokio::time::timeout;

type Outcome = Result<(), Box<dyn Error>>;

/// The primary of three nodes is killed in the middle, and a process as well: the result is that of one process in memory.
async fn a_replica_set_loses_its_primary() -> Outcome {
    let mongo = Mongo::replica_set(3).await?;
    let (ledger, url) = (Ledger::new().await?, format!("{}&timeout=3s", mongo.url("ledger")));
    let all = ledger.all()?;
    let mut children = ledger.children(&url)?;
    let work = async {
        let stm = avout::connect(&url).await?;
        ledger.until_decided(&stm, all / 3).await?;
        let primary = mongo.primary().await?;
        mongo.node(primary).kill().await?;
        ledger.until_decided(&stm, all / 2).await?;
        children[1].kill().await?;
        mongo.node(primary).start().await?;
        ledger.until_decided(&stm, all * 2 / 3).await?;
        children[1] = ledger.child(&url, 1)?;
        ledger.until_done(&stm, &mut children).await
    };
    timeout(Duration::from_secs(180), work).await??;
    ledger.check(&url).await
}

server_tests![a_replica_set_loses_its_primary];
